#include "lamella/train/step.h"

#include <cmath>

#include "autograd/autocast.h"
#include "core/check.h"
#include "core/cuda_backend.h"
#include "core/profiling_bytes.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"
#include "lamella/layers/loss.h"
#include "lamella/optim/clip.h"
#include "lamella/optim/ema.h"
#include "lamella/optim/grad_scaler.h"
#include "lamella/optim/schedule.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "tensor/door.h"
#include "train/surroundings.h"

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

/// Recorded launches, one recording for each place in a cycle of `accumulate` batches.
struct Step::Recorded {
  struct Part {
    std::unique_ptr<lamella::detail::cuda::Recording> launches;
    Result result;
    Tensors changed;  ///< those of state() that the launches change
  };
  Tensor input, target;
  Surroundings surroundings;
  std::uint64_t revision = 0;
  std::vector<Part> parts;
};

Step::~Step() = default;

/// What recorded launches may change, besides their own.
Tensors Step::state() const {
  Tensors all = parameters_;
  for (const auto& [name, buffer] : network_.named_buffers()) all.push_back(buffer);
  if (options_.ema != nullptr)
    for (const Tensor& tensor : tensors_of(options_.ema->module())) all.push_back(tensor);
  return all;
}

/// Goes up when something moves that recorded launches write to. A sum of two that never fall does.
std::uint64_t Step::revision() const {
  return optimizer_.revision() + (options_.scaler != nullptr ? options_.scaler->revision() : 0);
}

void Step::backward(const Tensor& loss) {
  const Tensor mean = options_.accumulate == 1 ? loss : mul(loss, 1.0 / options_.accumulate);
  (options_.scaler != nullptr ? options_.scaler->scale(mean) : mean).backward();
}

void Step::update() {
  optim::GradScaler* const scaler = options_.scaler;
  if (scaler != nullptr) scaler->unscale_(optimizer_);
  if (options_.clip_grad_norm > 0) optim::clip_grad_norm_(parameters_, options_.clip_grad_norm);
  if (scaler == nullptr) {
    optimizer_.step();
  } else {
    scaler->step(optimizer_);
    scaler->update();
  }
  if (options_.ema != nullptr) options_.ema->update();
}

/// Everything on the device: forward, backward, update.
Step::Result Step::run(const Tensor& input, const Tensor& target) {
  Tensor output, loss;
  {
    std::optional<Autocast> mixed;
    if (options_.autocast) mixed.emplace(*options_.autocast);
    lamella::detail::round_together(rounded_);
    output = network_(input);
    loss = options_.loss(output, target);
    if (autocast_dtype()) rounded_ = lamella::detail::rounded_among(parameters_);
  }
  LAMELLA_CHECK(ShapeError, loss.numel() == 1, "train::Step: the loss is ", loss.describe(),
                ", must be a single number");
  const Result result{loss.detach(), output.detach()};
  if (!options_.capture) finish(result, input);
  if (accumulated_ == 0) optimizer_.zero_grad();
  try {
    backward(loss);
    if (updates_now()) update();
  } catch (...) {
    if (options_.scaler != nullptr) options_.scaler->abandon();
    throw;
  }
  return result;
}

void Step::finish(const Result& result, const Tensor& input) {
  if (options_.check_every > 0 && count_ % options_.check_every == 0)
    check_finite(result.loss, count_, network_, input);
}

Step::Result Step::replay(const Tensor& input, const Tensor& target) {
  const auto surroundings = [this] {
    Tensors tensors = state();
    for (const Tensor& parameter : parameters_) tensors.push_back(parameter.grad());
    return surroundings_of(network_, tensors);
  };
  Surroundings now = surroundings();
  if (recorded_ && (recorded_->revision != revision() || !(recorded_->surroundings == now))) {
    recorded_ = nullptr;
    run_as_always_ = 0;
  }
  const auto alike = [](const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() && a.dtype() == b.dtype() && a.memory_format() == b.memory_format();
  };
  const bool fits = !recorded_ || (alike(input, recorded_->input) && alike(target, recorded_->target));
  // Two updates make every tensor that outlives a step.
  if (!fits || run_as_always_ < 2 * options_.accumulate || (!recorded_ && accumulated_ != 0)) {
    ++run_as_always_;
    return run(input, target);
  }
  if (!recorded_) {
    recorded_ = std::make_unique<Recorded>();
    recorded_->parts.resize(static_cast<std::size_t>(options_.accumulate));
    recorded_->input = empty_like(input);
    recorded_->target = empty_like(target);
    recorded_->surroundings = std::move(now);
    recorded_->revision = revision();
  }
  recorded_->input.copy_(input);
  recorded_->target.copy_(target);
  Recorded::Part& part = recorded_->parts[static_cast<std::size_t>(accumulated_)];
  if (!part.launches) {
    const RandomState before = random_state();
    const ChangeWatch watch(state());
    try {
      part.launches = lamella::detail::cuda::record_launches(input.device(), [&] {
        const lamella::detail::FreshRounding replays_round_anew;
        part.result = run(recorded_->input, recorded_->target);
        const lamella::detail::profiling::BytesApart no_kernel_reads_it;
        lamella::detail::read(part.result.output);  // if it is pending, each replay must compute it
      });
      LAMELLA_CHECK(Error, random_state().step == before.step,
                    "train::Step: the network moves the random sequence to ",
                    "another step, which cannot be recorded");
    } catch (...) {
      recorded_ = nullptr;
      throw;
    }
    part.changed = watch.changed();
    // Recording makes gradients. What the network was when it began to be recorded stays.
    recorded_->surroundings.tensors = surroundings().tensors;
  }
  part.launches->replay();
  ++replayed_;
  // Replayed launches change tensors in place, which counts as if operators had done it; of others, as a
  // folded norm that is frozen, it must not.
  const lamella::detail::profiling::BytesApart no_kernel_writes_them;
  for (const Tensor& tensor : part.changed) lamella::detail::write(tensor, "train::Step");
  return {part.result.loss.clone(), part.result.output.clone()};
}

Step::Result Step::operator()(const Tensor& input, const Tensor& target) {
  const Device device = parameters_.front().device();
  LAMELLA_CHECK(DeviceError, !options_.capture || device.is_cuda(),
                "train::Step: capture records a GPU's launches, and the network is on ", device.to_string());
  const Tensor x = input.to(device), y = target.to(device);
  next_random_step();
  const Result result = options_.capture ? replay(x, y) : run(x, y);
  if (options_.capture) finish(result, x);
  ++count_;
  const bool updated = updates_now();
  accumulated_ = updated ? 0 : accumulated_ + 1;
  if (updated && options_.scheduler != nullptr) options_.scheduler->step();
  return result;
}

}  // namespace lamella::train
