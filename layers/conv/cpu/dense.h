#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/view.h"

/// Convolutions of any kernel: blocks of columns (columns.h), each multiplied while it is in the cache.
/// Operands as in layers/conv/kernels.h.
namespace lamella::cpu {

void dense_forward(const Conv2dGeometry& geometry, const detail::ConstTensorView& input,
                   const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                   const detail::TensorView& output);
void dense_backward_input(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                          const detail::ConstTensorView& weight, const detail::TensorView& grad_input,
                          detail::GradientWrite write);
void dense_backward_weight(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                           const detail::ConstTensorView& input, const detail::TensorView& grad_weight,
                           detail::GradientWrite write);

}  // namespace lamella::cpu
