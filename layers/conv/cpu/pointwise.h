#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/view.h"

/// 1x1 convolutions as matrix products of whole images. Operands as in layers/conv/kernels.h.
namespace lamella::cpu {

/// One tap and no padding; any stride.
bool is_pointwise(const Conv2dGeometry& geometry);

void pointwise_forward(const Conv2dGeometry& geometry, const detail::ConstTensorView& input,
                       const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                       const detail::TensorView& output);
void pointwise_backward_input(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                              const detail::ConstTensorView& weight, const detail::TensorView& grad_input,
                              detail::GradientWrite write);
void pointwise_backward_weight(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                               const detail::ConstTensorView& input, const detail::TensorView& grad_weight,
                               detail::GradientWrite write);

}  // namespace lamella::cpu
