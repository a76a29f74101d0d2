#pragma once

#include <cstdint>

#include "tensor/view.h"

/// The last passes over what products left: everything is rounded once, here.
namespace lamella::cuda {

/// target = or += sums + bias. `sums` are float32 (float64 where all is) and lie as the target does, pixel by
/// pixel or in planes, without gaps; they may be the target itself. `bias` has a number per channel, or no
/// data.
void store_sums(const detail::ConstTensorView& sums, const detail::ConstTensorView& bias,
                const detail::TensorView& target, detail::GradientWrite write);

/// Partial results of one shape, one after the other. Float32 or float64.
struct PartialSums {
  const void* data = nullptr;
  DType dtype = DType::Float32;
  std::int64_t count = 0;
  std::int64_t size = 0;  ///< from one to the next
  Strides strides;        ///< of the target's elements in one of them
};

/// target = or += their sum, in their order.
void add_partial_sums(const PartialSums& parts, const detail::TensorView& target,
                      detail::GradientWrite write);

/// target[c] = or += the sum of all pixels of channel c of x, which is dense in either format. Adds in
/// float64, in parts cut by shape.
void sum_channels(const detail::ConstTensorView& x, bool channels_last, const detail::TensorView& target,
                  detail::GradientWrite write);

}  // namespace lamella::cuda
