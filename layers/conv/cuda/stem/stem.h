#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/left_parts.h"
#include "tensor/view.h"

/// Convolutions of images of one to four channels, as networks begin with: kernels that read the image and
/// write the output once. For eight to 64 output channels, in multiples of eight, without groups and
/// dilation; the output's side is channels-last.
///
/// In bfloat16 or float16, by the matrix units: kernels up to about 5x5. A float32 image is rounded as it is
/// read, to the bits that rounding it first would give, and so are float32 weights.
/// In float32, where TF32 is allowed, too, by plain multiply-adds: 3x3, of one or three channels, with a step
/// of one or two from column to column.
///
/// Each function returns false, with nothing done, where its kernel cannot do the work: then conv2d_forward()
/// and its like (layers/conv/kernels.h) can. Everything is on the current stream, in an order that depends on
/// the sizes alone.
namespace lamella::cuda::stem {

/// y = x ∗ w + bias.
struct ForwardOperands {
  detail::ConstTensorView input;   ///< [N,C,H,W] of any strides in an image, float32 or the output's type
  detail::ConstTensorView weight;  ///< of any strides, float32 or the output's type
  detail::ConstTensorView bias;    ///< without gaps, float32 or the output's type; or no data
  detail::TensorView output;
  detail::LeftParts* moments = nullptr;  ///< of results before they are rounded; null: not wanted
};
bool forward(const Conv2dGeometry& geometry, const ForwardOperands& operands);

/// The weight's gradient.
struct WeightOperands {
  detail::ConstTensorView grad_output;
  detail::ConstTensorView input;  ///< as forward has it
  detail::TensorView grad_weight;
  detail::GradientWrite write = detail::GradientWrite::Overwrite;
  detail::GradientParts* parts = nullptr;  ///< not null: left there, and goes nowhere else
};
bool backward_weight(const Conv2dGeometry& geometry, const WeightOperands& operands);

}  // namespace lamella::cuda::stem
