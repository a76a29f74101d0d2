#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/view.h"

/// The three kernels of a convolution with groups. Input, output and their gradients are dense, all in
/// row-major or all in channels-last order, and of one type; weight, bias and their gradients may have any
/// strides, and that type or float32. The sums are in float32, or in float64 if all is.
namespace lamella::cpu {

/// `bias.data` may be null. Every element of `output` is written.
void conv2d_forward(const Conv2dGeometry& geometry, const detail::ConstTensorView& input,
                    const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                    const detail::TensorView& output);

/// Gradient with respect to the input.
void conv2d_backward_input(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                           const detail::ConstTensorView& weight, const detail::TensorView& grad_input,
                           detail::GradientWrite write);

/// Gradients with respect to weight and bias; either destination's `data` may be null. Partial sums are cut
/// by shape and added in a fixed order.
void conv2d_backward_weight(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                            const detail::ConstTensorView& input, const detail::TensorView& grad_weight,
                            detail::GradientWrite weight_write, const detail::TensorView& grad_bias,
                            detail::GradientWrite bias_write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::conv2d_forward) conv2d_forward;
decltype(cpu::conv2d_backward_input) conv2d_backward_input;
decltype(cpu::conv2d_backward_weight) conv2d_backward_weight;

}  // namespace lamella::cuda
