#pragma once

#include <cstdint>

#include "core/cuda/block.cuh"

/// Sums over a block in a fixed order.
namespace lamella::cuda {

inline constexpr int kLossThreads = 256;

using detail::cuda::sum_over_block;

/// The sum of n numbers that lie `step` apart, for all threads.
__device__ inline double sum_in_block(const double* numbers, std::int64_t n, std::int64_t step,
                                      double (&shared)[kLossThreads]) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kLossThreads) sum += numbers[i * step];
  return sum_over_block(sum, shared);
}

}  // namespace lamella::cuda
