#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/door.h"
#include "tensor/left_parts.h"

/// Depthwise convolutions that fold what their input owes, and leave sums for norms: see
/// docs/architecture.md, "Training: what is folded where". Each function sets `done`; where it stays false
/// nothing has been written, and the kernels of kernels.h do the work of what has been paid for. No kernel of
/// the CPU folds. Sums are left by parts.
namespace lamella::cpu {

/// The output of a pending input, or of a plain one. moments, where they are wanted: those of each channel of
/// the output.
void depthwise_conv2d_forward_pending(const Conv2dGeometry& geometry, const detail::PendingView& input,
                                      const detail::ConstTensorView& weight,
                                      const detail::ConstTensorView& bias, const detail::TensorView& output,
                                      detail::LeftParts* moments, bool& done);

/// Those gradients of a pending input's convolution that have data, among them the weight's or the bias's.
/// `parts`, if not null: the weight's is wanted, is left there and goes nowhere else, the bias's is not
/// wanted. sums, where they are wanted: if a kernel can, the input's gradient goes back through what `input`
/// owes, they are Σ g and Σ g · (stored − center), and `summed` is set.
/// Else it is the gradient of the paid input.
void depthwise_conv2d_backward_pending(
    const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
    const detail::PendingView& input, const detail::ConstTensorView& weight,
    const detail::TensorView& grad_input, detail::GradientWrite input_write, detail::LeftParts* sums,
    const detail::TensorView& grad_weight, detail::GradientWrite weight_write,
    const detail::TensorView& grad_bias, detail::GradientWrite bias_write, detail::GradientParts* parts,
    bool& done, bool& summed);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::depthwise_conv2d_forward_pending) depthwise_conv2d_forward_pending;
decltype(cpu::depthwise_conv2d_backward_pending) depthwise_conv2d_backward_pending;

}  // namespace lamella::cuda
