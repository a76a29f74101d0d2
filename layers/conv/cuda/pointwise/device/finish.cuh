#pragma once

#include "layers/depthwise_conv2d/cuda/device/vector.cuh"
#include "point_tile.cuh"

/// What is left to do when all parts of a sum are there: they are added in their order, in float64.
namespace lamella::pointwise {

/// A block has neighbouring numbers side by side, and its slices every so many-th part: 256 threads.
constexpr int kFinishThreads = 256;

/// Sums of parts of From (float or double) as numbers of To (float, double, BFloat16 or Float16). Needs
/// shared memory for a double a thread.
template <class From, class To, int kLanes>
__global__ void __launch_bounds__(kFinishThreads) finish_sums(const FinishSumsWork work) {
  constexpr int kSlices = kFinishThreads / kLanes;
  double* const shared = reinterpret_cast<double*>(shared_memory());
  const int lane = static_cast<int>(threadIdx.x) % kLanes, slice = static_cast<int>(threadIdx.x) / kLanes;
  const Int64 numbers = work.rows * work.columns, i = static_cast<Int64>(blockIdx.x) * kLanes + lane;
  double sum = 0;
  wait_for_stream();
  if (i < numbers) {
    const From* const parts = static_cast<const From*>(work.parts) + i;
#pragma unroll 8
    for (int part = slice; part < work.count; part += kSlices)
      sum += static_cast<double>(parts[part * numbers]);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (slice > 0 || i >= numbers) return;
  for (int s = 1; s < kSlices; ++s) sum += shared[s * kLanes + lane];
  const Int64 row = i / work.columns;
  To* const to = static_cast<To*>(work.to) + row * work.row + (i - row * work.columns) * work.column;
  if constexpr (sizeof(To) == 8) {
    *to = work.accumulate ? *to + sum : sum;
  } else {
    // Float64 and float32 lie far apart: a half type is rounded by way of float32.
    if (work.accumulate) sum += static_cast<double>(widen(*to));
    *to = narrow<To>(static_cast<float>(sum));
  }
}

}  // namespace lamella::pointwise
