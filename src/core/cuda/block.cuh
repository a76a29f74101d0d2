#pragma once

/// Sums over the threads of a block in a fixed order.
namespace lamella::detail::cuda {

/// The sum of every thread's value, for all of them; `shared` is free before and after. kThreads, a power of
/// two, are the whole block.
template <int kThreads>
__device__ inline double sum_over_block(double value, double (&shared)[kThreads]) {
  shared[threadIdx.x] = value;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  const double sum = shared[0];
  __syncthreads();
  return sum;
}

}  // namespace lamella::detail::cuda
