#pragma once

#include <limits>

#include "lamella/layers/conv_geometry.h"
#include "tensor/view.h"

namespace lamella::detail {

/// What a batch norm before or behind the convolution has its kernels do on their way. All arrays are
/// float32, of the device, with a number for each channel.
struct DepthwiseFusion {
  /// The input is clamp(scale[c] · z + shift[c], low, high) of a z that is given in its place, with zeros
  /// around it; null: it is z. The gradient of the input is that of the clamp's result, masked where `sum` is
  /// wanted.
  const float *scale = nullptr, *shift = nullptr;
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();
  float *mean = nullptr, *variance = nullptr;  ///< of the output, rounded or not; null: not wanted
  /// With g the gradient of the input where low < scale[c] · z + shift[c] < high, and 0 elsewhere: Σ g, and Σ
  /// g · (z - center[c]); null: not wanted.
  const float* center = nullptr;
  float *sum = nullptr, *product = nullptr;

  bool any() const { return scale != nullptr || mean != nullptr || sum != nullptr; }
};

}  // namespace lamella::detail

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

/// depthwise_conv2d_forward() with the transform and the statistics of `fusion`.
void depthwise_conv2d_forward_fused(const Conv2dGeometry& geometry, const detail::DepthwiseFusion& fusion,
                                    const detail::ConstTensorView& input,
                                    const detail::ConstTensorView& weight,
                                    const detail::ConstTensorView& bias, const detail::TensorView& output);

/// depthwise_conv2d_backward() with the transform and the sums of `fusion`; any destination's `data` may be
/// null. Sums are of this call's gradient, also where it is added to another.
void depthwise_conv2d_backward_fused(const Conv2dGeometry& geometry, const detail::DepthwiseFusion& fusion,
                                     const detail::ConstTensorView& grad_output,
                                     const detail::ConstTensorView& input,
                                     const detail::ConstTensorView& weight,
                                     const detail::TensorView& grad_input, detail::GradientWrite input_write,
                                     const detail::TensorView& grad_weight,
                                     detail::GradientWrite weight_write, const detail::TensorView& grad_bias,
                                     detail::GradientWrite bias_write);

/// What the same call of depthwise_conv2d_forward() (if there is an output), or of the gradients that have a
/// place to go to, will take as Workspace: 0 here, where kernels have scratch of their own. On a GPU this
/// also chooses and compiles the call's kernel, if nothing has done so yet. Of addresses only the alignment
/// matters.
void depthwise_conv2d_prepare(const Conv2dGeometry& geometry, const detail::DepthwiseFusion& fusion,
                              const detail::ConstTensorView& input, const detail::ConstTensorView& weight,
                              const detail::TensorView& output, const detail::ConstTensorView& grad_output,
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
decltype(cpu::depthwise_conv2d_forward_fused) depthwise_conv2d_forward_fused;
decltype(cpu::depthwise_conv2d_backward_fused) depthwise_conv2d_backward_fused;
decltype(cpu::depthwise_conv2d_prepare) depthwise_conv2d_prepare;

}  // namespace lamella::cuda
