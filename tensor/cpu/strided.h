#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "core/parallel.h"
#include "lamella/tensor/shape.h"

/// Loops over operands of one shape and any strides: axes are ordered by the first operand's strides and
/// merged where every operand allows, so that dense operands of either memory format become one long row.
namespace lamella::cpu {

/// Elements one thread takes at a time.
inline constexpr std::int64_t kElementGrain = 16384;

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

/// Calls row(offsets, n) for runs of n elements along the innermost axis; offsets[i] is where operand i's run
/// begins and plan.stride[i][plan.axes - 1] its step. Runs are cut by shape alone and may be called from
/// several threads.
template <int N, class Row>
void for_each_row(const StridedPlan<N>& plan, const Row& row, std::int64_t grain = kElementGrain) {
  const auto inner = static_cast<std::size_t>(plan.axes - 1);
  detail::parallel_for(plan.total, grain, [&](std::int64_t begin, std::int64_t end) {
    std::array<std::int64_t, kMaxAxes> index{};
    std::int64_t rest = begin;
    for (int axis = plan.axes - 1; axis >= 0; --axis) {
      const auto a = static_cast<std::size_t>(axis);
      index[a] = rest % plan.size[a];
      rest /= plan.size[a];
    }
    while (begin < end) {
      std::array<std::int64_t, N> offsets{};
      for (std::size_t n = 0; n < N; ++n)
        for (std::size_t a = 0; a <= inner; ++a) offsets[n] += index[a] * plan.stride[n][a];
      const std::int64_t run = std::min(plan.size[inner] - index[inner], end - begin);
      row(offsets, run);
      begin += run;
      index[inner] += run;
      for (std::size_t a = inner; a > 0 && index[a] == plan.size[a]; --a) {
        index[a] = 0;
        ++index[a - 1];
      }
    }
  });
}

}  // namespace lamella::cpu
