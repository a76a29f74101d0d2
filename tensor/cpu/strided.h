#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/parallel.h"
#include "tensor/strided.h"

/// Loops over operands of one shape and any strides.
namespace lamella::cpu {

using detail::plan_strided;
using detail::StridedPlan;

/// Elements one thread takes at a time.
inline constexpr std::int64_t kElementGrain = 16384;

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
