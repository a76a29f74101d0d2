#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "lamella/tensor/shape.h"

/// How kernels of any device walk over operands of one shape and any strides: axes are ordered by the first
/// operand's strides and merged where every operand allows, so that dense operands of either memory format
/// become one long row.
namespace lamella::detail {

template <int N>
struct StridedPlan {
  int axes = 0;  ///< at least 1; the last is the row
  std::array<std::int64_t, kMaxAxes> size{};
  std::array<std::array<std::int64_t, kMaxAxes>, N> stride{};
  std::int64_t total = 0;
};

/// `strides[i]` are those of operand i over `shape` (0 along a broadcast axis). Operand 0 sets the order.
template <int N>
StridedPlan<N> plan_strided(const Shape& shape, const std::array<Strides, N>& strides) {
  StridedPlan<N> plan;
  plan.total = shape.product();
  std::array<int, kMaxAxes> order{};
  int count = 0;
  for (int axis = 0; axis < shape.size(); ++axis)
    if (shape[axis] != 1) order[static_cast<std::size_t>(count++)] = axis;
  // Insertion sort, stable: few axes. Operands after the first decide ties (broadcast outputs do not occur).
  for (int i = 1; i < count; ++i)
    for (int j = i; j > 0; --j) {
      const int left = order[static_cast<std::size_t>(j - 1)], right = order[static_cast<std::size_t>(j)];
      if (std::abs(strides[0][left]) >= std::abs(strides[0][right])) break;
      std::swap(order[static_cast<std::size_t>(j - 1)], order[static_cast<std::size_t>(j)]);
    }
  for (int i = 0; i < count; ++i) {
    const int axis = order[static_cast<std::size_t>(i)];
    const auto last = static_cast<std::size_t>(plan.axes - 1);
    bool merge = plan.axes > 0;
    for (int n = 0; merge && n < N; ++n)
      merge = plan.stride[static_cast<std::size_t>(n)][last] ==
              strides[static_cast<std::size_t>(n)][axis] * shape[axis];
    if (merge) {
      plan.size[last] *= shape[axis];
      for (int n = 0; n < N; ++n)
        plan.stride[static_cast<std::size_t>(n)][last] = strides[static_cast<std::size_t>(n)][axis];
    } else {
      const auto next = static_cast<std::size_t>(plan.axes++);
      plan.size[next] = shape[axis];
      for (int n = 0; n < N; ++n)
        plan.stride[static_cast<std::size_t>(n)][next] = strides[static_cast<std::size_t>(n)][axis];
    }
  }
  if (plan.axes == 0) {
    plan.axes = 1;
    plan.size[0] = 1;
  }
  return plan;
}

}  // namespace lamella::detail
