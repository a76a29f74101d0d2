#pragma once

#include "layers/norm/cuda/packets.cuh"
#include "layers/norm/cuda/tally.cuh"

namespace lamella::cuda {

/// Parts of a statistic: `length` units each, of `total`; a plane of `inner` numbers is `per_plane` units of
/// `size` numbers, the last one maybe shorter.
struct PartCounts {
  std::int64_t parts = 0, length = 1, total = 0;
  std::int64_t inner = 1, per_plane = 1;
  int size = 1;

  /// Numbers in the first `units`.
  __host__ __device__ std::int64_t before(std::int64_t units) const {
    if (per_plane * size == inner) return units * size;
    const std::int64_t planes = units / per_plane, rest = (units - planes * per_plane) * size;
    return planes * inner + (rest < inner ? rest : inner);
  }
  __device__ double of(std::int64_t part) const {
    const std::int64_t begin = part * length;
    return static_cast<double>(before(min(total, begin + length)) - before(begin));
  }
};

inline constexpr unsigned kFinishThreads = 1024;

/// Parts that lie pairs[part · statistics + s].
struct PairParts {
  const Pair* pairs;
  PartCounts counts;
  std::int64_t statistics;

  __host__ __device__ std::int64_t parts() const { return counts.parts; }
  __device__ double count(std::int64_t part, std::int64_t /*s*/) const { return counts.of(part); }
  __device__ Pair pair(std::int64_t part, std::int64_t s) const { return pairs[part * statistics + s]; }
};

/// done(s, Pair) for every statistic s. Threads of a block: x over statistics, y over parts.
template <class Tally, class Parts, class Done>
__global__ void __launch_bounds__(kFinishThreads)
    finish(const Parts parts, std::int64_t statistics, const Done done) {
  detail::cuda::wait_for_stream();
  __shared__ Tally shared[kFinishThreads];
  const std::int64_t s = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const unsigned at = threadIdx.y * blockDim.x + threadIdx.x;
  Tally tally = Tally::around(s < statistics && parts.parts() > 0 ? parts.pair(0, s).x : 0);
  if (s < statistics) {
#pragma unroll 4
    for (std::int64_t part = threadIdx.y; part < parts.parts(); part += blockDim.y)
      tally.add(parts.count(part, s), parts.pair(part, s));
  }
  shared[at] = tally;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) shared[at].merge(shared[at + half * blockDim.x]);
  }
  if (threadIdx.y == 0 && s < statistics) done(s, shared[at].result());
}

/// No parts: statistics of no values, two zeros.
template <class Tally, class Parts, class Done>
void finish_parts(const char* what, Device device, const Parts& parts, std::int64_t statistics,
                  const Done& done) {
  // Few parts to a thread: each is a wait for memory.
  unsigned down = 1;
  while (down < 256 && std::int64_t{4} * down < parts.parts()) down *= 2;
  while (down < kFinishThreads && std::int64_t{32} * down < parts.parts()) down *= 2;
  const unsigned across = std::min(std::max(4u, 64 / down), kFinishThreads / down);
  detail::cuda::launch_early(what, device, grid_of((statistics + across - 1) / across), dim3(across, down), 0,
                             finish<Tally, Parts, Done>, parts, statistics, done);
}
template <class Tally, class Done>
void finish_parts(const char* what, Device device, const Pair* pairs, const PartCounts& counts,
                  std::int64_t statistics, const Done& done) {
  finish_parts<Tally>(what, device, PairParts{pairs, counts, statistics}, statistics, done);
}

/// Keeps the pairs.
struct StorePairs {
  Pair* to;
  __device__ void operator()(std::int64_t s, Pair pair) const { to[s] = pair; }
};
/// All first numbers, then all second ones.
struct StoreRows {
  double* to;
  std::int64_t statistics;
  __device__ void operator()(std::int64_t s, Pair pair) const {
    to[s] = pair.x;
    to[statistics + s] = pair.y;
  }
};

}  // namespace lamella::cuda
