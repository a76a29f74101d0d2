#pragma once

#include "layers/depthwise_conv2d/cuda/device/vector.cuh"
#include "point_tile.cuh"

/// What is left to do when all parts of a sum are there: they are added in their order, in float64.
namespace lamella::pointwise {

/// A block has neighbouring numbers side by side, and its slices every so many-th part: 256 threads.
constexpr int kFinishThreads = 256;

/// Mean and biased variance of each channel, of parts that each have mean and sum of squared deviations. 32
/// channels to a block; needs shared memory for 3 doubles a thread.
template <int kLanes>
__global__ void __launch_bounds__(kFinishThreads) finish_moments(const FinishMomentsWork work) {
  constexpr int kSlices = kFinishThreads / kLanes;
  double* const shared = reinterpret_cast<double*>(shared_memory());
  const int lane = static_cast<int>(threadIdx.x) % kLanes, slice = static_cast<int>(threadIdx.x) / kLanes;
  const int channel = static_cast<int>(blockIdx.x) * kLanes + lane;
  const bool exists = channel < work.channels;
  // Around the first part's mean (Chan, Golub & LeVeque, 1983).
  const double pivot = exists ? work.parts[channel] : 0;
  double count = 0, sum = 0, square = 0;
  if (exists) {
#pragma unroll 4
    for (int part = slice; part < work.count; part += kSlices) {
      const double* const of = work.parts + static_cast<Int64>(part) * 2 * work.channels + channel;
      const Int64 left = work.pixels - part * work.pixels_of_part;
      const auto n = static_cast<double>(left < work.pixels_of_part ? left : work.pixels_of_part);
      const double d = of[0] - pivot;
      count += n, sum += n * d, square += of[work.channels] + n * d * d;
    }
  }
  double* const mine = shared + threadIdx.x * 3;
  mine[0] = count, mine[1] = sum, mine[2] = square;
  __syncthreads();
  if (slice > 0 || !exists) return;
  for (int s = 1; s < kSlices; ++s) {
    const double* const other = shared + (s * kLanes + lane) * 3;
    count += other[0], sum += other[1], square += other[2];
  }
  const double moved = sum / count, variance = (square - sum * moved) / count;
  work.mean[channel] = pivot + moved;
  work.variance[channel] = variance < 0 ? 0 : variance;  // NaN stays
}

/// Sums of parts of From (float or double) as numbers of To (float, double, BFloat16 or Float16). Needs
/// shared memory for a double a thread.
template <class From, class To, int kLanes>
__global__ void __launch_bounds__(kFinishThreads) finish_sums(const FinishSumsWork work) {
  constexpr int kSlices = kFinishThreads / kLanes;
  double* const shared = reinterpret_cast<double*>(shared_memory());
  const int lane = static_cast<int>(threadIdx.x) % kLanes, slice = static_cast<int>(threadIdx.x) / kLanes;
  const Int64 numbers = work.rows * work.columns, i = static_cast<Int64>(blockIdx.x) * kLanes + lane;
  double sum = 0;
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
