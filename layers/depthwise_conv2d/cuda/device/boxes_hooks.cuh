#pragma once

#include "boxes.cuh"
#include "hooks.cuh"

/// Store hooks for sums as the matrix units leave them: of sixteen pixels of a product a lane has two, lane /
/// 4 and the eighth behind it, and of each eight channels lane % 4 * 2 and the next.
namespace lamella::depthwise {

/// Which of a lane's two pixels exist. Neighbours are in a row, or, of kColumns == 8, one below the other.
struct LanePixels {
  bool first, second;
};

template <bool kStatistics, int kEights>
struct LaneMoments {
  __device__ __forceinline__ void first(const float (&)[kEights][4]) {}
  __device__ __forceinline__ void add(const float (&)[kEights][4], LanePixels) {}
};
template <int kEights>
struct LaneMoments<true, kEights> {
  ThreadMoments<true, 2 * kEights> moments;

  /// Of a step's first product, which has results if any of the lane's has.
  __device__ __forceinline__ void first(const float (&sums)[kEights][4]) {
    float y[2 * kEights];
    take(sums, 0, y);
    moments.first(y);
  }
  __device__ __forceinline__ void add(const float (&sums)[kEights][4], LanePixels exist) {
    float y[2 * kEights];
    take(sums, 0, y);
    if (exist.first) moments.add(y);
    take(sums, 1, y);
    if (exist.second) moments.add(y);
  }
  __device__ __forceinline__ Moments of(int e, int i) const { return moments.of(2 * e + i); }

 private:
  __device__ __forceinline__ static void take(const float (&sums)[kEights][4], int half,
                                              float (&y)[2 * kEights]) {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i) y[2 * e + i] = sums[e][2 * half + i];
  }
};

/// What of a batch norm is in shared memory: [scale, shift, center][channel of the block].
template <class Tile, int kThreads>
__device__ __forceinline__ void fill_norm_table(float* table, const Transform& transform,
                                                const StoreHook& hook, int first_channel, int channels) {
  for (int c = static_cast<int>(threadIdx.x); c < Tile::kChannels; c += kThreads) {
    const bool exists = first_channel + c < channels;
    table[c] = exists ? transform.scale[first_channel + c] : 0.0f;
    table[Tile::kChannels + c] = exists ? transform.shift[first_channel + c] : 0.0f;
    table[2 * Tile::kChannels + c] = exists ? hook.center[first_channel + c] : 0.0f;
  }
}

template <bool kNormSums, int kEights>
struct LaneNormSums {};
template <int kEights>
struct LaneNormSums<true, kEights> {
  float sums[kEights][2], products[kEights][2];

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i) sums[e][i] = products[e][i] = 0;
  }
  /// Masks the gradients g of a product, of what has z as load_matrices() gives it; `table` begins at the
  /// lane's channels.
  template <class T, class Tile>
  __device__ __forceinline__ void pass(float (&g)[kEights][4], const unsigned (&z)[2 * kEights],
                                       const float* table, float low, float high, LanePixels exist) {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float before[2];
        widen_pair(z[2 * e + half], T{}, before[0], before[1]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float y = fmaf(table[e * 8 + i], before[i], table[Tile::kChannels + e * 8 + i]);
          const bool counts = (half == 0 ? exist.first : exist.second) && y > low && y < high;
          float& mine = g[e][2 * half + i];
          mine = counts ? mine : 0.0f;
          sums[e][i] += mine;
          products[e][i] += counts ? mine * (before[i] - table[2 * Tile::kChannels + e * 8 + i]) : 0.0f;
        }
      }
  }
  __device__ __forceinline__ NormSums of(int e, int i) const { return {sums[e][i], products[e][i]}; }
};

/// A lane's share of the input as load_matrices_transposed() gives it, a channel of each eight, through a
/// transform: the page itself stays raw.
template <class T, bool kTransforms, int kEights>
struct LaneTransform {
  __device__ __forceinline__ void begin(const float*, int, const Transform&) {}
  __device__ __forceinline__ void apply(unsigned (&)[2 * kEights], unsigned) const {}
};
template <class T, int kEights>
struct LaneTransform<T, true, kEights> {
  float scale[kEights], shift[kEights], low, high;

  __device__ __forceinline__ void begin(const float* table, int to_shift, const Transform& transform) {
    low = transform.low, high = transform.high;
#pragma unroll
    for (int e = 0; e < kEights; ++e) scale[e] = table[e * 8], shift[e] = table[to_shift + e * 8];
  }
  /// Bit 2 · m + i: pixel 8 · m + lane % 4 * 2 + i exists; others are padding.
  __device__ __forceinline__ void apply(unsigned (&x)[2 * kEights], unsigned exist) const {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        float pair[2];
        widen_pair(x[2 * e + m], T{}, pair[0], pair[1]);
#pragma unroll
        for (int i = 0; i < 2; ++i)
          pair[i] = exist >> (2 * m + i) & 1 ? clamp(fmaf(scale[e], pair[i], shift[e]), low, high) : 0.0f;
        x[2 * e + m] = narrow_pair(pair[0], pair[1], T{});
      }
  }
};

/// Merges what the lanes of a block have of its channels, and leaves it in `to`. `list` has place for
/// Tile::kBlocks * 8 for each channel.
template <class Tile, class Sum, class Lane, class Synchronize>
__device__ __forceinline__ void leave_part(const Lane& lanes, Sum* list, bool has, int block, int channel,
                                           Sum* to, int channels, int threads,
                                           const Synchronize& synchronize) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  synchronize();
  if (has) {
#pragma unroll
    for (int e = 0; e < Tile::kEights; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        list[(block * 8 + lane / 4) * Tile::kChannels + channel + e * 8 + lane % 4 * 2 + i] = lanes.of(e, i);
  }
  merge_all(list, Tile::kBlocks * 8, Tile::kChannels, Tile::kChannels, 1, thread, threads, synchronize);
  for (int i = thread; i < channels; i += threads) to[i] = list[i];
}

}  // namespace lamella::depthwise
