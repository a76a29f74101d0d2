#pragma once

#include <array>
#include <cstdint>

#include "core/cuda/divisor.cuh"
#include "tensor/strided.h"

/// Positions along the axes of a StridedPlan, on the device.
namespace lamella::cuda {

/// The axes of a plan with fewer than 2^31 elements.
struct Index {
  int axes = 0;
  std::uint32_t total = 0;
  detail::cuda::Divisor size[kMaxAxes];

  /// Calls body(axis, position) for every axis of element i, the innermost first.
  template <class Body>
  __device__ void visit(std::uint32_t i, const Body& body) const {
    for (int axis = axes - 1; axis > 0; --axis) {
      const std::uint32_t outer = size[axis].divide(i);
      body(axis, i - outer * size[axis].value);
      i = outer;
    }
    body(0, i);
  }
};

/// Calls body(index, offsets) once for a plan of fewer than 2^31 elements, and several times, for parts that
/// begin at offsets[n] of operand n, for a larger one.
template <int N, class Body>
void for_each_slice(const detail::StridedPlan<N>& plan, const Body& body,
                    const std::array<std::int64_t, N>& offsets = {}) {
  constexpr std::int64_t kLargest = (std::int64_t{1} << 31) - 1;
  if (plan.total == 0) return;
  if (plan.total <= kLargest) {
    Index index;
    index.axes = plan.axes;
    index.total = static_cast<std::uint32_t>(plan.total);
    for (int axis = 0; axis < plan.axes; ++axis)
      index.size[axis] =
          detail::cuda::Divisor(static_cast<std::uint32_t>(plan.size[static_cast<std::size_t>(axis)]));
    body(index, offsets);
    return;
  }
  std::size_t longest = 0;
  for (std::size_t axis = 1; axis < static_cast<std::size_t>(plan.axes); ++axis)
    if (plan.size[axis] > plan.size[longest]) longest = axis;
  const std::int64_t half = plan.size[longest] / 2;
  detail::StridedPlan<N> part = plan;
  part.total = plan.total / plan.size[longest] * half;
  part.size[longest] = half;
  for_each_slice<N>(part, body, offsets);
  part.total = plan.total - part.total;
  part.size[longest] = plan.size[longest] - half;
  std::array<std::int64_t, N> rest = offsets;
  for (std::size_t n = 0; n < N; ++n) rest[n] += half * plan.stride[n][longest];
  for_each_slice<N>(part, body, rest);
}

}  // namespace lamella::cuda
