#pragma once

#include <vector>

#include "tensor/view.h"

namespace lamella::cpu {

/// A dense parameter, or a [C] vector of any stride, as `count` numbers in float64; `filler` where there is
/// none.
std::vector<double> load_parameter(const detail::ConstTensorView& from, std::int64_t count, double filler);

}  // namespace lamella::cpu
