#include "lamella/train/step.h"

#include <cmath>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"
#include "lamella/layers/loss.h"
#include "lamella/optim/clip.h"
#include "lamella/optim/ema.h"
#include "lamella/optim/schedule.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/reduce.h"

namespace lamella::train {

namespace {

bool all_finite(const Tensor& tensor) {
  if (!is_floating(tensor.dtype()) || tensor.numel() == 0) return true;
  const NoGrad no_grad;
  // x − x is 0 for what is finite and NaN for all else; a sum keeps it.
  const Tensor values = tensor.detach();
  return sum(sub(values, values)).item() == 0;
}

}  // namespace

std::string first_non_finite(const Module& module) {
  for (const auto& [name, parameter] : module.named_parameters())
    if (!all_finite(parameter)) return name;
  for (const auto& [name, buffer] : module.named_buffers())
    if (!all_finite(buffer)) return name;
  return {};
}

void check_finite(const Tensor& loss, std::int64_t step, const Module& module, const Tensor& input) {
  const double value = loss.detach().item();
  if (std::isfinite(value)) return;
  const std::string name = first_non_finite(module);
  std::string why = "; the first parameter that is not finite is " + name;
  if (name.empty()) {
    why = "; all parameters are finite";
    if (input.defined()) why += all_finite(input) ? ", and so is the input" : ", but the input is not";
  }
  throw NonFiniteError(lamella::detail::concat("train: the loss is ", value, " at step ", step, why));
}

Step::Step(Module& network, optim::Optimizer& optimizer, StepOptions options)
    : network_(network),
      optimizer_(optimizer),
      options_(std::move(options)),
      parameters_(network.parameters()) {
  LAMELLA_CHECK(Error, options_.accumulate >= 1, "train::Step: accumulate is ", options_.accumulate,
                ", must be at least 1");
  LAMELLA_CHECK(Error, options_.check_every >= 0, "train::Step: check_every is ", options_.check_every,
                ", must not be negative");
  LAMELLA_CHECK(Error, std::isfinite(options_.clip_grad_norm) && options_.clip_grad_norm >= 0,
                "train::Step: clip_grad_norm is ", options_.clip_grad_norm,
                ", must be finite and not negative");
  LAMELLA_CHECK(Error, !parameters_.empty(), "train::Step: the network has no parameters");
  if (!options_.loss)
    options_.loss = [](const Tensor& output, const Tensor& target) { return cross_entropy(output, target); };
}

Step::Result Step::operator()(const Tensor& input, const Tensor& target) {
  const Device device = parameters_.front().device();
  const Tensor x = input.to(device);
  next_random_step();
  const Tensor output = network_(x);
  const Tensor loss = options_.loss(output, target.to(device));
  LAMELLA_CHECK(ShapeError, loss.numel() == 1, "train::Step: the loss is ", loss.describe(),
                ", must be a single number");
  if (options_.check_every > 0 && count_ % options_.check_every == 0) check_finite(loss, count_, network_, x);

  if (accumulated_ == 0) optimizer_.zero_grad();
  if (options_.accumulate == 1)
    loss.backward();
  else
    mul(loss, 1.0 / options_.accumulate).backward();
  ++count_;
  if (++accumulated_ == options_.accumulate) {
    accumulated_ = 0;
    if (options_.clip_grad_norm > 0) optim::clip_grad_norm_(parameters_, options_.clip_grad_norm);
    optimizer_.step();
    if (options_.scheduler != nullptr) options_.scheduler->step();
    if (options_.ema != nullptr) options_.ema->update();
  }
  return {loss.detach(), output.detach()};
}

}  // namespace lamella::train
