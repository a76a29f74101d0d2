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

/// The total over threadIdx.y, for the threads with threadIdx.y = 0. The block is of whole warps, both of its
/// extents are powers of two. For all of its threads to call, once a kernel.
template <class Tally>
__device__ Tally over_rows(Tally tally, double pivot) {
  constexpr unsigned kWarp = 32;
  __shared__ Tally shared[kFinishThreads / 2];
  const unsigned across = blockDim.x, at = threadIdx.y * across + threadIdx.x;
  if (across >= kWarp) {
    if (blockDim.y == 1) return tally;
    shared[at] = tally;
    __syncthreads();
    for (unsigned y = 1; threadIdx.y == 0 && y < blockDim.y; ++y)
      tally.merge(shared[y * across + threadIdx.x]);
    return tally;
  }
  const auto over_warp = [&] {
    for (unsigned distance = kWarp / 2; distance >= across; distance /= 2)
      tally.merge(tally.of_lane(static_cast<int>(distance)));
  };
  over_warp();
  const unsigned warps = blockDim.y * across / kWarp;
  if (warps == 1) return tally;
  if (at % kWarp < across) shared[at / kWarp * across + threadIdx.x] = tally;
  __syncthreads();
  if (at >= kWarp) return tally;
  tally = Tally::around(pivot);
  for (unsigned warp = threadIdx.y; warp < warps; warp += kWarp / across)
    tally.merge(shared[warp * across + threadIdx.x]);
  over_warp();
  return tally;
}

/// done(s, done.load(s), Pair) for every statistic s; what load() begins to read comes while parts are added
/// up. Threads of a block: x over statistics, y over parts.
template <class Tally, class Parts, class Done>
__global__ void __launch_bounds__(kFinishThreads)
    finish(const Parts parts, std::int64_t statistics, const Done done) {
  detail::cuda::wait_for_stream();
  const std::int64_t s = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  decltype(done.load(s)) before = {};
  if (threadIdx.y == 0 && s < statistics) before = done.load(s);
  const double pivot = s < statistics && parts.parts() > 0 ? parts.pair(0, s).x : 0;
  Tally tally = Tally::around(pivot);
  if (s < statistics) {
#pragma unroll 4
    for (std::int64_t part = threadIdx.y; part < parts.parts(); part += blockDim.y)
      tally.add(parts.count(part, s), parts.pair(part, s));
  }
  tally = over_rows(tally, pivot);
  if (threadIdx.y == 0 && s < statistics) done(s, before, tally.result());
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

/// Of what needs to read nothing.
struct Nothing {};

/// Keeps the pairs.
struct StorePairs {
  Pair* to;
  __device__ Nothing load(std::int64_t /*s*/) const { return {}; }
  __device__ void operator()(std::int64_t s, Nothing /*before*/, Pair pair) const { to[s] = pair; }
};
/// All first numbers, then all second ones.
struct StoreRows {
  double* to;
  std::int64_t statistics;
  __device__ Nothing load(std::int64_t /*s*/) const { return {}; }
  __device__ void operator()(std::int64_t s, Nothing /*before*/, Pair pair) const {
    to[s] = pair.x;
    to[statistics + s] = pair.y;
  }
};

}  // namespace lamella::cuda
