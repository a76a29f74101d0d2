#pragma once

#include "stem_work.cuh"

/// The end of kernels that leave moments.
namespace lamella::stem {

/// The moments of a part, from what kRows threads have of each channel: `left` [row][pivot, sum, square]
/// [channel], in shared memory, with sums around the row's pivot; `counts` of values by row. The first row
/// has some. By one thread for each channel.
template <int kChannels, int kRows>
__device__ __forceinline__ void leave_moments(const MultiplyWork& work, const float* left, const int* counts,
                                              int part, int first_channel) {
  constexpr int kLeft = 3 * kChannels;
  const Sizes& sizes = work.sizes;
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kChannels || first_channel + c >= sizes.outputs) return;
  // All around the first pivot.
  double total = 0, first = 0, second = 0;
  const double around = static_cast<double>(left[c]);
#pragma unroll 4
  for (int i = 0; i < kRows; ++i) {
    if (counts[i] == 0) continue;
    const double n = counts[i], s = static_cast<double>(left[i * kLeft + kChannels + c]),
                 q = static_cast<double>(left[i * kLeft + 2 * kChannels + c]);
    const double d = static_cast<double>(left[i * kLeft + c]) - around;
    total += n;
    first += s + n * d;
    second += q + d * (2 * s + n * d);
  }
  const double moved = total > 0 ? first / total : 0, m2 = second - first * moved;
  double* const to = work.moments + static_cast<Int64>(part) * 3 * sizes.outputs + first_channel + c;
  to[0] = total;
  to[sizes.outputs] = around + moved;
  to[2 * sizes.outputs] = m2 < 0 ? 0 : m2;  // NaN stays
}

}  // namespace lamella::stem
