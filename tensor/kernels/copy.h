#pragma once

#include "tensor/view.h"

namespace lamella::cpu {

/// target = source, or += source; equal shapes, any strides, any two types (Accumulate: equal floating
/// types).
void copy(const detail::ConstTensorView& source, const detail::TensorView& target,
          detail::GradientWrite write);

/// Every element = value, converted.
void fill(const detail::TensorView& target, double value);

/// *found = some element is NaN.
void find_nan(const detail::ConstTensorView& source, bool* found);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::copy) copy;
decltype(cpu::fill) fill;
decltype(cpu::find_nan) find_nan;

}  // namespace lamella::cuda
