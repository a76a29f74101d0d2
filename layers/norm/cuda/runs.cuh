#pragma once

#include "layers/norm/cuda/packets.cuh"
#include "layers/norm/cuda/tally.cuh"

/// Sums over a dense run of numbers, by the threads of a warp or of a block.
namespace lamella::cuda {

/// Packets of one run, as they are loaded.
template <class T, int kStreams>
struct Loaded {
  Numbers<T> stream[kStreams];
  int valid;
};

/// The moments of a thread's numbers: deviations from a number that is near their mean, in the compute type.
template <class T>
struct RunMoments {
  using C = detail::ComputeType<T>;
  static constexpr int kSize = Numbers<T>::kSize;

  C pivot = 0, sum[kSize] = {}, square[kSize] = {};
  unsigned count = 0;
  double total = 0, squares = 0;

  /// The mean of the first batch, so that neither a single outlier nor a border unlike the rest makes the
  /// deviations from it large.
  __device__ void begin(const Loaded<T, 1> (&batch)[kBatch], unsigned n) {
    constexpr C kShare = C(1) / C(kBatch * kSize);
    const C first = batch[0].stream[0].at(0);
#pragma unroll
    for (unsigned u = 0; u < kBatch; ++u)
#pragma unroll
      for (int k = 0; k < kSize; ++k)
        pivot += kShare * (u < n && k < batch[u].valid ? batch[u].stream[0].at(k) : first);
  }
  template <bool kWide>
  __device__ void add(const Loaded<T, 1>& loaded) {
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const C d = loaded.stream[0].at(k) - pivot;
      if (kWide || k < loaded.valid) {
        sum[k] += d;
        square[k] += d * d;
      }
    }
    count += static_cast<unsigned>(loaded.valid);
  }
  /// To be called at least every kRun packets, and at the end.
  __device__ void settle() {
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      total += static_cast<double>(sum[k]);
      squares += static_cast<double>(square[k]);
      sum[k] = square[k] = 0;
    }
  }
  __device__ Pair result() const { return moments_from(pivot, count, total, squares); }
};

/// Two sums of a thread's terms.
template <class T>
struct RunSums {
  using C = detail::ComputeType<T>;
  static constexpr int kSize = Numbers<T>::kSize;

  C first[kSize] = {}, second[kSize] = {};
  Pair total = {0, 0};

  __device__ void add(int k, C value, C factor) {
    first[k] += value;
    second[k] += value * factor;
  }
  __device__ void settle() {
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      total.x += static_cast<double>(first[k]);
      total.y += static_cast<double>(second[k]);
      first[k] = second[k] = 0;
    }
  }
};

/// The total over threadIdx.x of what each of `width` (a warp, or the whole block) threads has: `part` of
/// `count` numbers. All of them get it. For the whole block to call, once a kernel.
template <class Tally>
__device__ Pair over_threads(double count, Pair part, unsigned width) {
  constexpr unsigned kWarp = 32;
  // Thread 0 has numbers wherever another one has.
  double pivot = __shfl_sync(0xffffffffu, part.x, 0);
  if (width == kWarp) {
    Tally tally = Tally::around(pivot);
    tally.add(count, part);
    return over_lanes(tally, kWarp).result();
  }
  __shared__ double first;
  __shared__ Tally warps[kNormThreads / kWarp];
  if (threadIdx.x == 0) first = pivot;
  __syncthreads();
  pivot = first;
  Tally tally = Tally::around(pivot);
  tally.add(count, part);
  tally = over_lanes(tally, kWarp);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = tally;
  __syncthreads();
  tally = warps[0];
  for (unsigned warp = 1; warp < kNormThreads / kWarp; ++warp) tally.merge(warps[warp]);
  return tally.result();
}

}  // namespace lamella::cuda
