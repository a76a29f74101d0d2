#include "layers/depthwise_conv2d/kernels.h"

namespace lamella::cpu {

// Two passes: either is bound by arithmetic here, not by memory.
void depthwise_conv2d_backward(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                               const detail::ConstTensorView& input, const detail::ConstTensorView& weight,
                               const detail::TensorView& grad_input, detail::GradientWrite input_write,
                               const detail::TensorView& grad_weight, detail::GradientWrite weight_write,
                               const detail::TensorView& grad_bias, detail::GradientWrite bias_write) {
  depthwise_conv2d_backward_input(geometry, grad_output, weight, grad_input, input_write);
  depthwise_conv2d_backward_weight(geometry, grad_output, input, grad_weight, weight_write, grad_bias,
                                   bias_write);
}

void depthwise_conv2d_prepare(const Conv2dGeometry&, const detail::DepthwiseFusion&,
                              const detail::ConstTensorView&, const detail::ConstTensorView&,
                              const detail::TensorView&, const detail::ConstTensorView&,
                              const detail::TensorView&, detail::GradientWrite, const detail::TensorView&,
                              const detail::TensorView&, std::int64_t& workspace_bytes) {
  workspace_bytes = 0;
}

}  // namespace lamella::cpu
