#include "layers/conv/pending.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PendingView;
using detail::TensorView;

void conv2d_forward_pending(const Conv2dGeometry& /*geometry*/, const PendingView& /*input*/,
                            const ConstTensorView& /*weight*/, const ConstTensorView& /*bias*/,
                            const TensorView& /*output*/, detail::LeftParts* /*moments*/, bool& done) {
  done = false;
}
void conv2d_backward_input_pending(const Conv2dGeometry& /*geometry*/, const ConstTensorView& /*grad_output*/,
                                   const ConstTensorView& /*weight*/, const PendingView& /*input*/,
                                   const TensorView& /*grad_input*/, detail::LeftParts& /*sums*/,
                                   bool& done) {
  done = false;
}
void conv2d_backward_weight_pending(const Conv2dGeometry& /*geometry*/,
                                    const ConstTensorView& /*grad_output*/, const PendingView& /*input*/,
                                    const TensorView& /*grad_weight*/, GradientWrite /*weight_write*/,
                                    const TensorView& /*grad_bias*/, GradientWrite /*bias_write*/,
                                    detail::GradientParts* /*parts*/, bool& done) {
  done = false;
}

}  // namespace lamella::cpu
