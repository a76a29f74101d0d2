#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "core/cuda/divisor.cuh"
#include "layers/loss/cuda/block.cuh"
#include "layers/loss/kernels.h"

/// How a block of threads shares samples and their classes.
namespace lamella::cuda {

/// `lanes` threads of a block walk over the classes of each of its `together` samples; both are powers of
/// two. Neighbouring threads take neighbouring classes where these lie side by side, else neighbouring
/// samples.
struct Samples {
  std::int64_t count, classes;
  std::int64_t inner;  ///< class c of sample n · inner + i lies at (n · classes + c) · inner + i
  detail::cuda::Divisor by_inner;
  bool small;  ///< positions of samples have 31 bits
  int lanes, together;

  std::int64_t groups() const { return (count + together - 1) / together; }

  __device__ int lane() const { return inner == 1 ? threadIdx.x % lanes : threadIdx.x / together; }
  __device__ int slot() const { return inner == 1 ? threadIdx.x / lanes : threadIdx.x % together; }
  /// Where class 0 of a sample lies; class c lies c · inner further.
  __device__ std::int64_t offset(std::int64_t sample) const {
    if (inner == 1) return sample * classes;
    const std::int64_t n = small ? by_inner.divide(static_cast<std::uint32_t>(sample)) : sample / inner;
    return n * (classes - 1) * inner + sample;
  }

  /// f over the values of a sample's lanes, for all of them; every thread of the block takes part.
  template <class F>
  __device__ double over_lanes(double value, double (&shared)[kLossThreads], const F& f) const {
    if (lanes == 1) return value;
    const unsigned me = threadIdx.x, distance = inner == 1 ? 1 : together, which = lane();
    shared[me] = value;
    for (unsigned half = lanes / 2; half > 0; half /= 2) {
      __syncthreads();
      if (which < half) shared[me] = f(shared[me], shared[me + half * distance]);
    }
    __syncthreads();
    const double result = shared[me - which * distance];
    __syncthreads();
    return result;
  }
};

inline Samples make_samples(const detail::CrossEntropyShape& shape) {
  Samples samples{};
  samples.count = shape.samples();
  samples.classes = shape.classes;
  samples.inner = shape.channels_last ? 1 : shape.inner;
  samples.small = samples.count <= std::numeric_limits<std::int32_t>::max();
  if (samples.small && samples.inner > 1)
    samples.by_inner = detail::cuda::Divisor(static_cast<std::uint32_t>(samples.inner));
  // A few classes for each lane; but samples that lie side by side first fill the lines of memory.
  const bool rows = samples.inner == 1;
  const auto wanted = static_cast<std::uint64_t>((shape.classes + (rows ? 3 : 31)) / (rows ? 4 : 32));
  samples.lanes = static_cast<int>(std::min<std::uint64_t>(std::bit_ceil(wanted), rows ? kLossThreads : 8));
  samples.together = kLossThreads / samples.lanes;
  return samples;
}

}  // namespace lamella::cuda
