#pragma once

#include <vector>

#include "tensor/view.h"

namespace lamella::cpu {

/// target = source, or += source; equal shapes, any strides, any two types (Accumulate: equal floating
/// types).
void copy(const detail::ConstTensorView& source, const detail::TensorView& target,
          detail::GradientWrite write);

struct Rounding {
  detail::ConstTensorView from;  ///< float32
  detail::TensorView to;         ///< bfloat16 or float16, one type for all
};

/// to = from for each, as copy() does it. Many of them, most of them small, take few launches.
void round_all(const std::vector<Rounding>& all);

/// Every element = value, converted.
void fill(const detail::TensorView& target, double value);

/// *found = some element is NaN.
void find_nan(const detail::ConstTensorView& source, bool* found);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

using cpu::Rounding;

decltype(cpu::copy) copy;
decltype(cpu::round_all) round_all;
decltype(cpu::fill) fill;
decltype(cpu::find_nan) find_nan;

}  // namespace lamella::cuda
