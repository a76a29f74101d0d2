#pragma once

#include "boxes.cuh"
#include "hooks.cuh"
#include "passing_range.cuh"

/// Store hooks of boxes. They meet results as they are stored, in pairs, and leave adding up to the matrix
/// units: of p and q [8 channels][16 pixels], [p; ones] · q transposed has Σ p · q of each channel on the
/// diagonal of its upper half, and Σ q below.
namespace lamella::depthwise {

/// A product's results, in pairs of channels, as pairs of pixels.
template <int kEights>
__device__ __forceinline__ void transpose_pairs(const unsigned (&pairs)[kEights][2],
                                                unsigned (&transposed)[2 * kEights]) {
#pragma unroll
  for (int e = 0; e < kEights; ++e)
#pragma unroll
    for (int half = 0; half < 2; ++half) transposed[2 * e + half] = transpose_matrix(pairs[e][half]);
}

/// A product [p; ones] · q. Halves of p and q: as load_matrices_transposed() gives the pixels of each eight
/// channels.
template <class T, int kEights>
struct LaneSums {
  float sums[kEights][4];  ///< of an item: the matrix units do not round sums to nearest

  __device__ __forceinline__ void begin_item() {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[e][i] = 0;
  }
  __device__ __forceinline__ void add(const unsigned (&p)[2 * kEights], const unsigned (&q)[2 * kEights]) {
    const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
#pragma unroll
    for (int e = 0; e < kEights; ++e)
      multiply_add(sums[e], p[2 * e], ones, p[2 * e + 1], ones, q[2 * e], q[2 * e + 1], T{});
  }
  /// Whether the lane has sums: those of channel lane / 4 of each eight.
  __device__ __forceinline__ static bool has() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return lane / 8 == lane % 4;
  }
  __device__ __forceinline__ float sum(int e) const { return is_odd() ? sums[e][3] : sums[e][2]; }
  __device__ __forceinline__ float product(int e) const { return is_odd() ? sums[e][1] : sums[e][0]; }

 private:
  __device__ __forceinline__ static bool is_odd() { return threadIdx.x / 4 % 2 == 1; }
};

/// The moments of results, by their differences from one of them.
template <class T, bool kStatistics, int kEights>
struct LaneMoments {};
template <class T, int kEights>
struct LaneMoments<T, true, kEights> {
  LaneSums<T, kEights> item;
  T pivot[kEights];
  float count = 0, sums[kEights], squares[kEights];

  /// Of results that exist. `pixel`: where the first of them lies, the warp's channels from there on.
  __device__ __forceinline__ void begin(const void* pixel) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      pivot[e] = static_cast<const T*>(pixel)[e * 8 + lane / 4];
      sums[e] = squares[e] = 0;
    }
  }
  /// A product's results. exist[m] has all bits of those of pixels 8 · m + lane % 4 * 2 and the next that do.
  __device__ __forceinline__ void add(const unsigned (&y)[kEights][2], const unsigned (&exist)[2]) {
    unsigned apart[2 * kEights];
    transpose_pairs(y, apart);
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int m = 0; m < 2; ++m)
        apart[2 * e + m] = subtract_pair(apart[2 * e + m], pivot[e].bits * 0x10001u, T{}) & exist[m];
    item.add(apart, apart);
  }
  /// `results`: of how many pixels.
  __device__ __forceinline__ void end_item(int results) {
    count += static_cast<float>(results);
#pragma unroll
    for (int e = 0; e < kEights; ++e) sums[e] += item.sum(e), squares[e] += item.product(e);
  }
  __device__ __forceinline__ Moments of(int e) const {
    if (count == 0) return {0, 0, 0};
    const float mean = sums[e] / count;
    return {count, widen(pivot[e]) + mean, max(squares[e] - sums[e] * mean, 0.0f)};
  }
};

/// Sums Σ g and Σ g · (z - center) of what has z before a norm and its activation.
template <class T, int kEights>
struct LaneTotals {
  LaneSums<T, kEights> item;
  float center[kEights], sums[kEights], products[kEights];

  __device__ __forceinline__ void begin(const StoreHook& hook, int channel, int channels) {
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      const int mine = channel + e * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
      center[e] = hook.center[min(mine, channels - 1)];
      sums[e] = products[e] = 0;
    }
  }
  __device__ __forceinline__ void end_item() {
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      sums[e] += item.sum(e);
      products[e] += item.product(e) - center[e] * item.sum(e);
    }
  }
  __device__ __forceinline__ NormSums of(int e) const { return {sums[e], products[e]}; }
};

/// Takes gradients g back through the activation, and adds them up.
template <class T, int kNormSums, int kEights>
struct LaneNormSums {};
template <class T, int kEights>
struct LaneNormSums<T, kClamp, kEights> : LaneTotals<T, kEights> {
  unsigned least[kEights], most[kEights];  ///< of the two channels that the lane masks

  /// Of the eight or sixteen channels from `channel` on.
  __device__ __forceinline__ void begin(const Transform& transform, const StoreHook& hook, int channel,
                                        int channels) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    LaneTotals<T, kEights>::begin(hook, channel, channels);
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      least[e] = most[e] = 0;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int mine = min(channel + e * 8 + lane % 4 * 2 + i, channels - 1);
        const auto range =
            find_range<T>(transform.scale[mine], transform.shift[mine], transform.low, transform.high);
        least[e] |= static_cast<unsigned>(range.least.bits) << 16 * i;
        most[e] |= static_cast<unsigned>(range.most.bits) << 16 * i;
      }
    }
  }
  /// The gradients of a product, narrowed in pairs, and z as load_matrices() gives it; `exist` is all ones
  /// for a half of the pixels that exists.
  __device__ __forceinline__ void mask(unsigned (&g)[kEights][2], const unsigned (&z)[2 * kEights],
                                       const unsigned (&exist)[2]) const {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        g[e][half] &= within_pair(z[2 * e + half], least[e], most[e], T{}) & exist[half];
  }
};
template <class T, int kEights>
struct LaneNormSums<T, kHardSwish, kEights> : LaneTotals<T, kEights> {
  float scale[kEights][2], shift[kEights][2];  ///< of the two channels whose gradients the lane has

  /// As above.
  __device__ __forceinline__ void begin(const Transform& transform, const StoreHook& hook, int channel,
                                        int channels) {
    LaneTotals<T, kEights>::begin(hook, channel, channels);
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int mine = min(channel + e * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i, channels - 1);
        scale[e][i] = transform.scale[mine], shift[e][i] = transform.shift[mine];
      }
  }
  /// The gradients of a product, which are narrowed only then; z and `exist` as above.
  __device__ __forceinline__ void multiply(const float (&g)[kEights][4], const unsigned (&z)[2 * kEights],
                                           const unsigned (&exist)[2], unsigned (&pairs)[kEights][2]) const {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float first, second;
        widen_pair(z[2 * e + half], T{}, first, second);
        pairs[e][half] =
            narrow_pair(hardswish_slope(g[e][2 * half], fmaf(scale[e][0], first, shift[e][0])),
                        hardswish_slope(g[e][2 * half + 1], fmaf(scale[e][1], second, shift[e][1])), T{}) &
            exist[half];
      }
  }
};

/// A lane's share of the input as load_matrices_transposed() gives it, a channel of each eight, through a
/// transform: the page itself stays raw.
template <class T, int kTransforms, int kEights>
struct LaneTransform {
  PairTransform<T, kTransforms> pairs;
  float scale[kEights], shift[kEights];

  __device__ __forceinline__ void begin(const Transform& transform, int channel, int channels) {
    pairs.begin(transform);
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      const int mine = channel + e * 8 + static_cast<int>(threadIdx.x) % 32 / 4;
      scale[e] = mine < channels ? transform.scale[mine] : 0.0f;
      shift[e] = mine < channels ? transform.shift[mine] : 0.0f;
    }
  }
  /// exist[m] has all bits of those of pixels 8 · m + lane % 4 * 2 and the next that exist.
  __device__ __forceinline__ void apply(unsigned (&x)[2 * kEights], const unsigned (&exist)[2]) const {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int m = 0; m < 2; ++m)
        x[2 * e + m] = pairs.apply(x[2 * e + m], scale[e], scale[e], shift[e], shift[e]) & exist[m];
  }
};

template <class T, int kEights>
struct LaneTransform<T, kPlain, kEights> {
  __device__ __forceinline__ void begin(const Transform&, int, int) {}
  __device__ __forceinline__ void apply(unsigned (&)[2 * kEights], const unsigned (&)[2]) const {}
};

/// Merges what warps of a block have of its channels, and leaves it in `to`. has: this warp has any. `list`
/// has place for Tile::kBlocks of each channel.
template <class Tile, class Sum, class Lane, class Synchronize>
__device__ __forceinline__ void leave_part(const Lane& lanes, Sum* list, bool has, int block, int channel,
                                           Sum* to, int channels, int threads,
                                           const Synchronize& synchronize) {
  const int thread = static_cast<int>(threadIdx.x);
  synchronize();
  if (has && lanes.item.has()) {
#pragma unroll
    for (int e = 0; e < Tile::kEights; ++e)
      list[block * Tile::kChannels + channel + e * 8 + thread % 32 / 4] = lanes.of(e);
  }
  merge_all(list, Tile::kBlocks, Tile::kChannels, Tile::kChannels, 1, thread, threads, synchronize);
  for (int i = thread; i < channels; i += threads) to[i] = list[i];
}

}  // namespace lamella::depthwise
