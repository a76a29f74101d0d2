#pragma once

#include "tensor/view.h"

namespace lamella::cpu {

/// `output` has input's shape with size 1 along the reduced axes. Sums run in double (integers in int64), in
/// blocks cut by shape and added in order.
enum class Reduction : std::uint8_t { Sum, Max, Min };

/// output = scale · Σ input, or the extreme (scale unused; NaN wins). Floating outputs have input's type;
/// sums of other types are int64.
void reduce(Reduction kind, const detail::ConstTensorView& input, const detail::TensorView& output,
            double scale);

/// Position along `axis` of the first largest (or smallest) element; NaN counts as the extreme. `output` is
/// int64.
void arg_extreme(bool largest, const detail::ConstTensorView& input, int axis,
                 const detail::TensorView& output);

}  // namespace lamella::cpu
