#include <cmath>
#include <limits>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"
#include "lamella/core/threads.h"
#include "lamella/layers/module.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"

namespace lamella::testing {

namespace {

using Forward = std::function<Tensor(const Tensor&)>;

Comparison fail(const std::string& what, const Comparison& why) {
  return {false, "check_layer: " + what + ": " + why.message};
}

/// Output and every gradient of one run.
struct Run {
  Tensor output;
  Tensors gradients;  ///< of the input, then of the parameters
};

/// Draws and running statistics begin each run where the first began.
class Restart {
 public:
  explicit Restart(const Module& module) : random_(random_state()), buffers_(module.named_buffers()) {
    for (const auto& [name, buffer] : buffers_) kept_.push_back(buffer.clone());
  }
  void operator()() {
    set_random_state(random_);
    const NoGrad no_grad;
    for (std::size_t i = 0; i < buffers_.size(); ++i) buffers_[i].second.copy_(kept_[i]);
  }

 private:
  RandomState random_;
  std::vector<std::pair<std::string, Tensor>> buffers_;
  Tensors kept_;
};

Run run(const Forward& forward, const Tensors& leaves, const Tensor& cotangent) {
  Run result;
  result.output = forward(leaves[0]);
  backward({result.output}, {cotangent.defined() ? cotangent : ones_like(result.output)});
  for (const Tensor& leaf : leaves)
    result.gradients.push_back(leaf.grad().defined() ? leaf.grad().clone() : Tensor());
  return result;
}

void forget(const Tensors& leaves) {
  for (Tensor leaf : leaves) {
    if (leaf.grad().defined()) leaf.grad().fill_(std::numeric_limits<double>::quiet_NaN());
    leaf.zero_grad();
  }
}

std::string leaf_name(std::size_t i, const std::vector<std::pair<std::string, Tensor>>& parameters) {
  return i == 0 ? "the input" : "parameter " + parameters[i - 1].first;
}

}  // namespace

Comparison check_layer(const Forward& forward, Module& module, const Tensor& input,
                       const GradcheckOptions& options) {
  module.to(DType::Float64);
  const auto parameters = module.named_parameters();
  const bool differentiable = is_floating(input.dtype());
  Tensor x = differentiable ? input.detach().to(DType::Float64).clone().set_requires_grad() : input.detach();
  Tensors leaves{x};
  for (const auto& [name, parameter] : parameters) leaves.push_back(parameter);
  Restart restart(module);
  const Forward restarted = [&](const Tensor& at) {
    restart();
    return forward(at);
  };

  const Comparison gradients =
      gradcheck([&](const Tensors& in) { return restarted(in[0]); }, leaves, options);
  if (!gradients) return fail("gradient (input 0 is the layer's input, then the parameters)", gradients);

  Tensor cotangent;
  {
    const NoGrad no_grad;
    cotangent = random_tensor(restarted(x).shape(), options.seed + 2).to(x.device());
  }
  forget(leaves);
  const Run first = run(restarted, leaves, cotangent);

  forget(leaves);
  const Run second = run(restarted, leaves, cotangent);
  if (const Comparison c = equal_bits(second.output, first.output); !c)
    return fail("a second run gave other bits", c);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    if (const Comparison c = equal_bits(second.gradients[i], first.gradients[i]); !c)
      return fail("a second run after zero_grad() gave other gradients of " + leaf_name(i, parameters), c);

  const Run added = run(restarted, leaves, cotangent);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (!first.gradients[i].defined()) continue;
    auto twice = first.gradients[i].to_vector<double>();
    for (double& value : twice) value *= 2;
    if (const Comparison c =
            all_close(added.gradients[i], from_vector(twice, leaves[i].shape()), {1e-12, 1e-12});
        !c)
      return fail("two backward passes did not add up for " + leaf_name(i, parameters), c);
  }

  const int threads = num_threads();
  set_num_threads(threads == 1 ? 3 : 1);
  forget(leaves);
  const Run threaded = run(restarted, leaves, cotangent);
  set_num_threads(threads);
  if (const Comparison c = equal_bits(threaded.output, first.output); !c)
    return fail("the number of threads changed the output", c);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    if (const Comparison c = equal_bits(threaded.gradients[i], first.gradients[i]); !c)
      return fail("the number of threads changed the gradient of " + leaf_name(i, parameters), c);

  if (x.dim() == 4 && differentiable) {
    Tensors other = leaves;
    other[0] = x.detach().contiguous(MemoryFormat::ChannelsLast).clone().set_requires_grad();
    forget(leaves);
    const Run last = run(restarted, other, cotangent);
    if (const Comparison c = all_close(last.output, first.output, {1e-9, 1e-9}); !c)
      return fail("a channels_last input gave another output", c);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (const Comparison c = all_close(last.gradients[i], first.gradients[i], {1e-9, 1e-9}); !c)
        return fail("a channels_last input gave another gradient of " + leaf_name(i, parameters), c);
  }

  // The numbers must all be in the state: spoil them, load them, and expect the same output.
  restart();
  const StateDict state = module.state_dict().clone();
  {
    const NoGrad no_grad;
    for (const auto& entry : module.state_dict()) Tensor(entry.second).fill_(3);
    module.load_state_dict(state);
  }
  if (const Comparison c = equal_bits(restarted(x), first.output); !c)
    return fail("load_state_dict() of the layer's own state_dict() changed the output", c);
  forget(leaves);
  restart();
  return {};
}

Comparison check_layer(Module& module, const Tensor& input, const GradcheckOptions& options) {
  return check_layer([&module](const Tensor& x) { return module(x); }, module, input, options);
}

}  // namespace lamella::testing
