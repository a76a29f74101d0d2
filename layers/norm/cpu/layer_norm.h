#pragma once

#include "tensor/view.h"

namespace lamella::cpu {

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

}  // namespace lamella::cpu
