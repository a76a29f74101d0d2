#include "lamella/layers/fold.h"

#include <typeinfo>
#include <unordered_map>
#include <vector>

#include "autograd/record.h"
#include "lamella/autograd/autograd.h"
#include "lamella/layers/blocks.h"
#include "lamella/layers/conv.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "layers/module/folded.h"
#include "layers/module/observe.h"
#include "layers/module/state.h"
#include "tensor/door.h"

namespace lamella {

namespace detail {

namespace {

using Mark = ModuleState::FoldedTensor;

Mark mark_of(const Tensor& tensor) {
  const TensorImpl& impl = TensorDoor::impl(tensor);
  return {impl.storage, impl.storage->version.load(std::memory_order_relaxed)};
}

bool is_as_marked(const Mark& mark, const Tensor& tensor) {
  const Mark now = mark_of(tensor);
  return mark.storage.lock() == now.storage.lock() && mark.version == now.version;
}

/// How often the modules and the memory of a network are held by modules of it.
class Holders {
 public:
  explicit Holders(Module& network) {
    network.apply([&](const std::string&, Module& module) {
      const ModuleState& state = *ModuleState::of(module);
      for (const auto& [name, child] : module.children()) ++times_[ModuleState::of(*child)];
      for (const auto& [name, tensor] : state.parameters) ++times_[memory(tensor)];
      for (const auto& buffer : state.buffers) ++times_[memory(buffer.tensor)];
    });
  }
  bool only_once(const Module& module) const { return times_.at(ModuleState::of(module)) == 1; }
  bool only_once(const Tensor& tensor) const { return times_.at(memory(tensor)) == 1; }

 private:
  static const void* memory(const Tensor& tensor) { return TensorDoor::impl(tensor).storage.get(); }
  std::unordered_map<const void*, int> times_;
};

double epsilon(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return 0x1p-52;
    case DType::Float32:
      return 0x1p-23;
    case DType::BFloat16:
      return 0x1p-7;
    default:
      return 0x1p-10;
  }
}

/// Whether `rounded` is `exact` [C, …] but for rounding, in each channel: nothing overflowed, and not so much
/// came near 0 that few digits are left.
bool keeps(const Tensor& exact, const Tensor& rounded) {
  const auto squares = [&](const Tensor& x) {
    return sum(mul(x, x).reshape({exact.size(0), -1}), {.axes = {1}}).to_vector<double>();
  };
  const std::vector<double> all = squares(exact), off = squares(sub(exact, rounded.to(DType::Float64)));
  const double bound = epsilon(rounded.dtype()) * epsilon(rounded.dtype());
  for (std::size_t channel = 0; channel < all.size(); ++channel)
    if (!(off[channel] <= bound * all[channel])) return false;  // NaN, too
  return true;
}

bool is_finite(const Tensor& x) {
  // x − x is 0 for what is finite and NaN for all else; a sum keeps it.
  return sum(sub(x, x)).item() == 0;
}

/// What the tensors of a pair are to become.
struct Folded {
  const BatchNorm2d* norm;
  Tensor kernel, weight, bias, mean, var;  ///< as they are
  Tensor new_kernel{}, new_weight{}, new_bias{}, new_mean{}, new_var{};
};

/// Nothing where the pair cannot be folded, or need not. Changes nothing yet.
std::vector<Folded> fold(const Conv2d& conv, const BatchNorm2d& norm, const Holders& holders) {
  if (conv.bias().defined() || !norm.weight().defined() || !norm.running_mean().defined() ||
      is_addition(norm))
    return {};
  Folded pair{.norm = &norm,
              .kernel = conv.weight(),
              .weight = norm.weight(),
              .bias = norm.bias(),
              .mean = norm.running_mean(),
              .var = norm.running_var()};
  if (pair.kernel.size(0) != norm.channels()) return {};  // whose forward() says what is wrong
  // Whoever else uses one of them relies on its numbers.
  if (!holders.only_once(conv) || !holders.only_once(norm)) return {};
  for (const Tensor& tensor : {pair.kernel, pair.weight, pair.bias, pair.mean, pair.var})
    if (!holders.only_once(tensor)) return {};
  const auto exact = [](const Tensor& tensor) { return tensor.detach().to(DType::Float64); };
  const double eps = norm.options().eps;
  const Tensor scale = exact(pair.weight) / sqrt(exact(pair.var) + eps);
  const Tensor shift = exact(pair.bias) - exact(pair.mean) * scale;
  const Tensor kernel = exact(pair.kernel) * scale.reshape({scale.numel(), 1, 1, 1});
  pair.new_kernel = kernel.to(pair.kernel.dtype()).contiguous(pair.kernel.memory_format());
  pair.new_bias = shift.to(pair.bias.dtype());
  if (!keeps(kernel, pair.new_kernel) || !is_finite(pair.new_bias.to(DType::Float64))) return {};
  const auto filled = [](const Tensor& like, double value) { return empty_like(like).fill_(value); };
  pair.new_weight = filled(pair.weight, 1);
  pair.new_mean = filled(pair.mean, 0);
  pair.new_var = filled(pair.var, 1 - eps);
  return {pair};
}

}  // namespace

bool is_addition(const BatchNorm2d& norm) {
  const auto& marks = ModuleState::of(norm)->folded;
  return marks.size() == 3 && is_as_marked(marks[0], norm.weight()) &&
         is_as_marked(marks[1], norm.running_mean()) && is_as_marked(marks[2], norm.running_var());
}

bool is_folded(const Conv2d& conv, const BatchNorm2d& norm) {
  return !norm.is_training() && !conv.bias().defined() && is_addition(norm) && !wants_gradient(norm.weight());
}

Tensor folded_conv(const Conv2d& conv, const BatchNorm2d& norm, const Tensor& x) {
  const Conv2dLayerOptions& options = conv.options();
  const Tensor y = conv2d(x, conv.weight(), norm.bias(),
                          {.stride = options.stride,
                           .padding = options.padding,
                           .dilation = options.dilation,
                           .groups = options.groups,
                           .same_padding = options.same_padding});
  notify_call(conv, y);
  notify_call(norm, y);
  return y;
}

}  // namespace detail

int fold_batch_norms(Module& module) {
  const NoGrad no_grad;
  const detail::Holders holders(module);
  std::vector<detail::Folded> pairs;
  module.apply([&](const std::string&, Module& part) {
    // In these, a norm comes right behind its convolution, and nothing else sees what lies between. A class
    // derived from them may do something else with its parts.
    if (typeid(part) != typeid(ConvNormActivation) && typeid(part) != typeid(DepthwiseSeparable) &&
        typeid(part) != typeid(Sequential))
      return;
    const auto children = part.children();
    for (std::size_t i = 0; i + 1 < children.size(); ++i) {
      const Module &first = *children[i].second, &second = *children[i + 1].second;
      if (typeid(first) != typeid(Conv2d) || typeid(second) != typeid(BatchNorm2d)) continue;
      for (const detail::Folded& pair :
           detail::fold(static_cast<const Conv2d&>(first), static_cast<const BatchNorm2d&>(second), holders))
        pairs.push_back(pair);
    }
  });
  // All that may fail is behind us. New memory: what else holds the old one, as a state_dict() from before,
  // keeps its numbers.
  for (const detail::Folded& pair : pairs) {
    detail::replace_values(pair.kernel, pair.new_kernel);
    detail::replace_values(pair.weight, pair.new_weight);
    detail::replace_values(pair.bias, pair.new_bias);
    detail::replace_values(pair.mean, pair.new_mean);
    detail::replace_values(pair.var, pair.new_var);
    detail::ModuleState::of(*pair.norm)->folded = {detail::mark_of(pair.weight), detail::mark_of(pair.mean),
                                                   detail::mark_of(pair.var)};
  }
  return static_cast<int>(pairs.size());
}

}  // namespace lamella
