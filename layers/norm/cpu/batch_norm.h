#pragma once

#include "layers/norm/channel_layout.h"
#include "layers/norm/cpu/channel_sums.h"
#include "tensor/view.h"

namespace lamella::cpu {

/// statistics ([2,C], float64) = mean and 1 / sqrt(biased variance + eps) of a dense x. Moves the running
/// estimates where their data is set and x is not empty.
void batch_norm_statistics(const detail::ConstTensorView& x, const detail::ChannelLayout& layout, double eps,
                           double momentum, const detail::TensorView& statistics,
                           const detail::TensorView& running_mean, const detail::TensorView& running_var);

/// The same from the running estimates.
void batch_norm_running_statistics(const detail::ConstTensorView& running_mean,
                                   const detail::ConstTensorView& running_var, double eps,
                                   const detail::TensorView& statistics);

/// scale = weight / σ, shift = bias − mean · scale; weight and bias may have no data (1, 0). shift is taken
/// in float64 with scale as rounded, so that only shift's own rounding is left where mean ≫ σ.
void batch_norm_affine(const detail::ConstTensorView& statistics, const detail::ConstTensorView& weight,
                       const detail::ConstTensorView& bias, const detail::TensorView& scale,
                       const detail::TensorView& shift);

/// sums ([2,C], float64) = Σ g and Σ g · (x − mean) / σ, the gradients of bias and weight, and dx where its
/// data is set, after going back through `slope`. `training`: the statistics depend on x.
void batch_norm_backward(const detail::ConstTensorView& grad, const detail::ConstTensorView& x,
                         const detail::ChannelLayout& layout, const detail::ConstTensorView& statistics,
                         const detail::ConstTensorView& weight, bool training, const detail::TensorView& sums,
                         const detail::TensorView& dx, detail::GradientWrite write,
                         const ActivationSlope& slope = {});

}  // namespace lamella::cpu
