#pragma once

#include <vector>

#include "tensor/view.h"

/// Gradients are float32 or float64, of any strides.
namespace lamella::cpu {

/// 2-norm of all gradients together to `norm`, float64 [].
void gradient_norm(const std::vector<detail::ConstTensorView>& gradients, const detail::TensorView& norm);
/// Times min(1, max_norm / (norm + 1e-6)). `norm` points to device memory.
void scale_gradients(const std::vector<detail::TensorView>& gradients, const double* norm, double max_norm);
/// To [-limit, limit]; NaN stays.
void limit_gradients(const std::vector<detail::TensorView>& gradients, double limit);

}  // namespace lamella::cpu
