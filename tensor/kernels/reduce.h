#pragma once

#include <cstdint>

#include "tensor/view.h"

namespace lamella::detail {

enum class ReduceKind : std::uint8_t { Sum, Max, Min };

}  // namespace lamella::detail

namespace lamella::cpu {

/// `output` has input's shape with size 1 along the reduced axes. Sums run in double (integers in int64), in
/// blocks cut by shape and added in order: output = scale · Σ input, or the extreme (scale unused; NaN wins).
/// Floating outputs have input's type; sums of other types are int64.
void reduce(detail::ReduceKind kind, const detail::ConstTensorView& input, const detail::TensorView& output,
            double scale);

/// Position along `axis` of the first largest (or smallest) element; NaN counts as the extreme. `output` is
/// int64.
void arg_extreme(bool largest, const detail::ConstTensorView& input, int axis,
                 const detail::TensorView& output);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::reduce) reduce;
decltype(cpu::arg_extreme) arg_extreme;

}  // namespace lamella::cuda
