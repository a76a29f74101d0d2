#pragma once

#include "layers/norm/channel_layout.h"
#include "tensor/view.h"

namespace lamella::cpu {

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

}  // namespace lamella::cpu
