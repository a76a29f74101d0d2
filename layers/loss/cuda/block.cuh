#pragma once

#include <cstdint>

/// Sums over a block in a fixed order.
namespace lamella::cuda {

inline constexpr int kLossThreads = 256;

/// The sum of every thread's value, for all of them; `shared` is free before and after.
__device__ inline double sum_over_block(double value, double (&shared)[kLossThreads]) {
  shared[threadIdx.x] = value;
  for (unsigned half = kLossThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  const double sum = shared[0];
  __syncthreads();
  return sum;
}

/// The sum of n numbers that lie `step` apart, for all threads.
__device__ inline double sum_in_block(const double* numbers, std::int64_t n, std::int64_t step,
                                      double (&shared)[kLossThreads]) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kLossThreads) sum += numbers[i * step];
  return sum_over_block(sum, shared);
}

}  // namespace lamella::cuda
