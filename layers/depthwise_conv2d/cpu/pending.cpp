#include "layers/depthwise_conv2d/pending.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PendingView;
using detail::TensorView;

void depthwise_conv2d_forward_pending(const Conv2dGeometry& /*geometry*/, const PendingView& /*input*/,
                                      const ConstTensorView& /*weight*/, const ConstTensorView& /*bias*/,
                                      const TensorView& /*output*/, detail::LeftParts* /*moments*/,
                                      bool& done) {
  done = false;
}

void depthwise_conv2d_backward_pending(const Conv2dGeometry& /*geometry*/,
                                       const ConstTensorView& /*grad_output*/, const PendingView& /*input*/,
                                       const ConstTensorView& /*weight*/, const TensorView& /*grad_input*/,
                                       GradientWrite /*input_write*/, detail::LeftParts* /*sums*/,
                                       const TensorView& /*grad_weight*/, GradientWrite /*weight_write*/,
                                       const TensorView& /*grad_bias*/, GradientWrite /*bias_write*/,
                                       detail::GradientParts* /*parts*/, bool& done, bool& summed) {
  done = summed = false;
}

}  // namespace lamella::cpu
