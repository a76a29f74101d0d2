#pragma once

#include <vector>

#include "tensor/view.h"

namespace lamella::cpu {

/// A dense parameter, or a [C] vector of any stride, as `count` numbers in float64; `filler` where there is
/// none.
std::vector<double> load_parameter(const detail::ConstTensorView& from, std::int64_t count, double filler);

/// A parameter's gradient from as many dense float64 sums; target has any floating type and strides.
void write_parameter_gradient(const detail::ConstTensorView& sums, const detail::TensorView& target,
                              detail::GradientWrite write);

}  // namespace lamella::cpu
