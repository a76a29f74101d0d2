#include "lamella/layers/fold.h"

#include <typeinfo>

#include "autograd/record.h"
#include "lamella/autograd/autograd.h"
#include "lamella/layers/blocks.h"
#include "lamella/layers/conv.h"
#include "lamella/tensor/arithmetic.h"
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

/// Whether the norm adds its bias and does nothing else.
bool is_addition(const BatchNorm2d& norm) {
  const auto& marks = ModuleState::of(norm)->folded;
  return marks.size() == 3 && is_as_marked(marks[0], norm.weight()) &&
         is_as_marked(marks[1], norm.running_mean()) && is_as_marked(marks[2], norm.running_var());
}

bool fold(const Conv2d& conv, const BatchNorm2d& norm) {
  if (conv.bias().defined() || !norm.weight().defined() || !norm.running_mean().defined() ||
      is_addition(norm))
    return false;
  const NoGrad no_grad;
  const auto exact = [](const Tensor& tensor) { return tensor.to(DType::Float64); };
  const double eps = norm.options().eps;
  const Tensor scale = exact(norm.weight()) / sqrt(exact(norm.running_var()) + eps);
  const Tensor shift = exact(norm.bias()) - exact(norm.running_mean()) * scale;
  Tensor kernel = conv.weight(), weight = norm.weight(), bias = norm.bias(), mean = norm.running_mean(),
         var = norm.running_var();
  kernel.copy_((exact(kernel) * scale.reshape({scale.numel(), 1, 1, 1})).to(kernel.dtype()));
  bias.copy_(shift.to(bias.dtype()));
  weight.fill_(1);
  mean.fill_(0);
  var.fill_(1 - eps);
  ModuleState::of(norm)->folded = {mark_of(weight), mark_of(mean), mark_of(var)};
  return true;
}

}  // namespace

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
  int folded = 0;
  module.apply([&](const std::string&, Module& part) {
    if (auto* const block = dynamic_cast<ConvNormActivation*>(&part))
      folded += detail::fold(block->conv(), block->norm());
    const bool is_separable = dynamic_cast<DepthwiseSeparable*>(&part) != nullptr;
    if (!is_separable && dynamic_cast<Sequential*>(&part) == nullptr) return;
    // In both, a norm comes right behind its convolution.
    const auto children = part.children();
    for (std::size_t i = 0; i + 1 < children.size(); ++i) {
      const Module &first = *children[i].second, &second = *children[i + 1].second;
      if (typeid(first) == typeid(Conv2d) && typeid(second) == typeid(BatchNorm2d))
        folded += detail::fold(static_cast<const Conv2d&>(first), static_cast<const BatchNorm2d&>(second));
    }
  });
  return folded;
}

}  // namespace lamella
