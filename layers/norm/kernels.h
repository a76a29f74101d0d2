#pragma once

#include "layers/norm/channel_layout.h"
#include "tensor/door.h"

namespace lamella::detail {

/// The activation behind a normalisation: f(x · scale + shift), of scale and shift one number per channel in
/// the compute type. The gradient after it is `grad`; the one before it, in the kernels' type, goes to
/// `passed`, dense like x, which may be dx's memory.
struct ActivationSlope {
  PendingActivation activation = PendingActivation::None;
  const void* scale = nullptr;
  const void* shift = nullptr;
  TensorView passed = {};
};

/// What batch norm makes of a channel's mean and variance.
struct BatchNormForward {
  double eps = 0, momentum = 0;
  TensorView statistics;                 ///< [2,C], float64: mean and 1 / σ, of the biased variance + eps
  TensorView running_mean, running_var;  ///< moved where they have data and x is not empty
  TensorView tracked;                    ///< int64, one more than before; or no data
  ConstTensorView weight, bias;          ///< or no data: 1, 0
  /// scale = weight / σ, shift = bias − mean · scale. shift is taken in float64 with scale as rounded, so
  /// that only shift's own rounding is left where mean ≫ σ. center, if it has data: mean, rounded.
  TensorView scale, shift, center;
};

/// Where a norm's gradients of its parameters go; no data: not wanted. Both may be one tensor's, the weight's
/// first.
struct NormParameterGradients {
  TensorView weight, bias;
  GradientWrite weight_write = GradientWrite::Overwrite, bias_write = GradientWrite::Overwrite;
};

}  // namespace lamella::detail

namespace lamella::cpu {

/// Of a dense x.
void batch_norm_statistics(const detail::ConstTensorView& x, const detail::ChannelLayout& layout,
                           const detail::BatchNormForward& norm);

/// Of `count` numbers a channel whose moments were left in parts ([parts,2 or 3,C], float64 or float32): see
/// LeftParts for `of_part`.
void batch_norm_statistics_of(const detail::ConstTensorView& parts, std::int64_t of_part, std::int64_t count,
                              const detail::BatchNormForward& norm);

/// From running estimates, which stay as they are.
void batch_norm_running_statistics(const detail::ConstTensorView& running_mean,
                                   const detail::ConstTensorView& running_var,
                                   const detail::BatchNormForward& norm);

/// The gradients of weight and bias, Σ g · (x − mean) / σ and Σ g, and dx, each where its data is set, after
/// going back through `slope`. `training`: the statistics depend on x. `known`, if it has data: parts of Σ g
/// and Σ g · (x − center) ([parts,2,C], float64 or float32), which need not be taken then; grad has gone back
/// through the activation already, so that `slope` has none.
void batch_norm_backward(const detail::ConstTensorView& grad, const detail::ConstTensorView& x,
                         const detail::ChannelLayout& layout, const detail::ConstTensorView& statistics,
                         const detail::ConstTensorView& weight, bool training,
                         const detail::ConstTensorView& known,
                         const detail::NormParameterGradients& parameters, const detail::TensorView& dx,
                         detail::GradientWrite write, const detail::ActivationSlope& slope);

/// Dense x, one segment per image: y = (x − mean) / σ · weight[c] + bias[c] with the statistics of c's group;
/// statistics ([2,N,groups], float64) = mean and 1 / sqrt(biased variance + eps). weight and bias may have no
/// data.
void group_norm_forward(const detail::ConstTensorView& x, const detail::ChannelLayout& layout,
                        std::int64_t groups, const detail::ConstTensorView& weight,
                        const detail::ConstTensorView& bias, double eps, const detail::TensorView& y,
                        const detail::TensorView& statistics);

/// sums ([2,C], float64) = Σ g and Σ g · (x − mean) / σ, the gradients of bias and weight, and dx where its
/// data is set.
void group_norm_backward(const detail::ConstTensorView& grad, const detail::ConstTensorView& x,
                         const detail::ChannelLayout& layout, std::int64_t groups,
                         const detail::ConstTensorView& weight, const detail::ConstTensorView& statistics,
                         const detail::TensorView& sums, const detail::TensorView& dx,
                         detail::GradientWrite write);

/// Row-major x of rows of `size` numbers: y = (x − mean) / σ · weight + bias; statistics ([2,rows], float64)
/// = mean and 1 / sqrt(biased variance + eps). weight and bias may have no data.
void layer_norm_forward(const detail::ConstTensorView& x, std::int64_t size,
                        const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                        double eps, const detail::TensorView& y, const detail::TensorView& statistics);

void layer_norm_backward_input(const detail::ConstTensorView& grad, const detail::ConstTensorView& x,
                               std::int64_t size, const detail::ConstTensorView& weight,
                               const detail::ConstTensorView& statistics, const detail::TensorView& dx,
                               detail::GradientWrite write);

/// sums ([2,size], float64) = Σ g and Σ g · (x − mean) / σ over the rows: the gradients of bias and weight.
void layer_norm_backward_parameters(const detail::ConstTensorView& grad, const detail::ConstTensorView& x,
                                    std::int64_t size, const detail::ConstTensorView& statistics,
                                    const detail::TensorView& sums);

/// A parameter's gradient from as many dense float64 sums; target has any floating type and strides.
void write_parameter_gradient(const detail::ConstTensorView& sums, const detail::TensorView& target,
                              detail::GradientWrite write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::batch_norm_statistics) batch_norm_statistics;
decltype(cpu::batch_norm_statistics_of) batch_norm_statistics_of;
decltype(cpu::batch_norm_running_statistics) batch_norm_running_statistics;
decltype(cpu::batch_norm_backward) batch_norm_backward;
decltype(cpu::group_norm_forward) group_norm_forward;
decltype(cpu::group_norm_backward) group_norm_backward;
decltype(cpu::layer_norm_forward) layer_norm_forward;
decltype(cpu::layer_norm_backward_input) layer_norm_backward_input;
decltype(cpu::layer_norm_backward_parameters) layer_norm_backward_parameters;
decltype(cpu::write_parameter_gradient) write_parameter_gradient;

}  // namespace lamella::cuda
