#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/view.h"

/// The depthwise kernels of each device. Views may have any strides; dense NCHW and dense NHWC are
/// fast, anything else is right. input, output and gradients share one floating type; weight, bias and their
/// gradients have that type or float32. Half types accumulate in float32, double in double.
///
///   output[n, c·m + j, oh, ow] = bias[c·m + j]
///       + Σ_{kh,kw} weight[c·m + j, 0, kh, kw] · input[n, c, oh·s_h − p_h + kh·d_h, ow·s_w − p_w + kw·d_w]
///
/// with m = geometry.multiplier() and zero outside the input.
namespace lamella::cpu {

/// `bias.data` may be null. Every element of `output` is written.
void depthwise_conv2d_forward(const Conv2dGeometry& geometry, const detail::ConstTensorView& input,
                              const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                              const detail::TensorView& output);

/// Gradient with respect to the input.
void depthwise_conv2d_backward_input(const Conv2dGeometry& geometry,
                                     const detail::ConstTensorView& grad_output,
                                     const detail::ConstTensorView& weight,
                                     const detail::TensorView& grad_input, detail::GradientWrite write);

/// Gradients with respect to weight and bias in one pass; either destination's `data` may be null.
/// Deterministic: partial sums are cut by shape and added in a fixed order.
void depthwise_conv2d_backward_weight(const Conv2dGeometry& geometry,
                                      const detail::ConstTensorView& grad_output,
                                      const detail::ConstTensorView& input,
                                      const detail::TensorView& grad_weight,
                                      detail::GradientWrite weight_write, const detail::TensorView& grad_bias,
                                      detail::GradientWrite bias_write);

/// All three gradients, in one pass over grad_output where that is faster.
void depthwise_conv2d_backward(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                               const detail::ConstTensorView& input, const detail::ConstTensorView& weight,
                               const detail::TensorView& grad_input, detail::GradientWrite input_write,
                               const detail::TensorView& grad_weight, detail::GradientWrite weight_write,
                               const detail::TensorView& grad_bias, detail::GradientWrite bias_write);

/// What the same call of depthwise_conv2d_forward() (if there is an output), or of the gradients that have a
/// place to go to, will take as Workspace: 0 here, where kernels have scratch of their own. On a GPU this
/// also chooses and compiles the call's kernel, if nothing has done so yet. Of addresses only the alignment
/// matters.
void depthwise_conv2d_prepare(const Conv2dGeometry& geometry, const detail::ConstTensorView& input,
                              const detail::ConstTensorView& weight, const detail::TensorView& output,
                              const detail::ConstTensorView& grad_output,
                              const detail::TensorView& grad_input, detail::GradientWrite input_write,
                              const detail::TensorView& grad_weight, const detail::TensorView& grad_bias,
                              std::int64_t& workspace_bytes);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::depthwise_conv2d_forward) depthwise_conv2d_forward;
decltype(cpu::depthwise_conv2d_backward_input) depthwise_conv2d_backward_input;
decltype(cpu::depthwise_conv2d_backward_weight) depthwise_conv2d_backward_weight;
decltype(cpu::depthwise_conv2d_backward) depthwise_conv2d_backward;
decltype(cpu::depthwise_conv2d_prepare) depthwise_conv2d_prepare;

}  // namespace lamella::cuda
