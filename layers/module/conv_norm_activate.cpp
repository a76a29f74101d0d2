#include "layers/module/conv_norm_activate.h"

#include "layers/module/folded.h"
#include "layers/module/observe.h"
#include "layers/norm/norm_activate.h"
#include "tensor/door.h"
#include "tensor/moments.h"

namespace lamella::detail {
namespace {

/// activate(norm(x), activation), in one operator where there is one.
Tensor norm_and_activate(BatchNorm2d& norm, const Tensor& x, Activation activation) {
  const PendingActivation together = activation == Activation::ReLU        ? PendingActivation::Relu
                                     : activation == Activation::ReLU6     ? PendingActivation::Relu6
                                     : activation == Activation::Hardswish ? PendingActivation::Hardswish
                                     : activation == Activation::SiLU      ? PendingActivation::Silu
                                                                           : PendingActivation::None;
  if (together == PendingActivation::None || !fusion_enabled()) return activate(norm(x), activation);
  const Tensor y = norm_activate(norm, x, together);
  notify_call(norm, y);
  return y;
}

}  // namespace

Tensor conv_norm_activate(Conv2d& conv, BatchNorm2d& norm, const Tensor& x, Activation activation) {
  if (is_folded(conv, norm)) return activate(folded_conv(conv, norm, x), activation);
  Tensor z;
  {
    const MomentsRequest request(norm.is_training());
    z = conv(x);
  }
  return norm_and_activate(norm, z, activation);
}

}  // namespace lamella::detail
