#pragma once

#include <cstdint>

#include "lamella/layers/conv_geometry.h"
#include "tensor/door.h"
#include "tensor/left_parts.h"

/// Convolutions that fold what their input owes, and leave sums for norms: see docs/architecture.md,
/// "Training: what is folded where". Each function sets `done`; where it stays false nothing has been
/// written, and the kernels of layers/conv/kernels.h do the work of what has been paid for. No kernel of the
/// CPU folds. Sums are left by parts.
///
/// Of an image of few channels, what is folded is the rounding: input (which owes nothing) and weight may be
/// float32 where output and grad_output are of a half type. With all of them in float32 nothing is folded,
/// but moments are left.
namespace lamella::cpu {

/// y = conv(a, weight) + bias of a pending a, or of a plain one. moments, where they are wanted: those of
/// each channel of y.
void conv2d_forward_pending(const Conv2dGeometry& geometry, const detail::PendingView& input,
                            const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                            const detail::TensorView& output, detail::LeftParts* moments, bool& done);

/// The gradient of the input, taken back through what `input` owes; sums:
/// Σ g and Σ g · (stored − center).
void conv2d_backward_input_pending(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                                   const detail::ConstTensorView& weight, const detail::PendingView& input,
                                   const detail::TensorView& grad_input, detail::LeftParts& sums, bool& done);

/// As conv2d_backward_weight(), of a pending input, or of a plain one. `parts`, if not null: the weight's
/// gradient is left there and goes nowhere else, the bias's is not wanted.
void conv2d_backward_weight_pending(const Conv2dGeometry& geometry,
                                    const detail::ConstTensorView& grad_output,
                                    const detail::PendingView& input, const detail::TensorView& grad_weight,
                                    detail::GradientWrite weight_write, const detail::TensorView& grad_bias,
                                    detail::GradientWrite bias_write, detail::GradientParts* parts,
                                    bool& done);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::conv2d_forward_pending) conv2d_forward_pending;
decltype(cpu::conv2d_backward_input_pending) conv2d_backward_input_pending;
decltype(cpu::conv2d_backward_weight_pending) conv2d_backward_weight_pending;

}  // namespace lamella::cuda
