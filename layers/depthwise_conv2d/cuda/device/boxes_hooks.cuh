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

template <class T>
inline constexpr int kInfinity = 0x7f80;
template <>
inline constexpr int kInfinity<Float16> = 0x7c00;

/// The sixteen-bit numbers z for which low < scale · z + shift < high, as transforms round it: [least, most],
/// which is empty if there are none. Sums of rising numbers rise or fall, so that a search finds both ends.
template <class T>
__device__ __forceinline__ void find_range(const Transform& transform, float scale, float shift, T& least,
                                           T& most) {
  // Numbers in their order: place 0x8000 is zero.
  const auto number = [](int place) {
    return T{static_cast<unsigned short>(place >= 0x8000 ? place ^ 0x8000 : ~place)};
  };
  const int infinity = kInfinity<T> | 0x8000;
  const bool rises = scale >= 0;
  int begin[2] = {0x10000 - infinity, 0x10000 - infinity}, end[2] = {infinity, infinity};
#pragma unroll 1
  for (int i = 0; i < 16; ++i)
#pragma unroll
    for (int bound = 0; bound < 2; ++bound) {
      const int middle = (begin[bound] + end[bound]) / 2;
      const float y = fmaf(scale, widen(number(middle)), shift);
      // Of the first: behind the numbers that are too small. Of the second: behind those that are not too
      // large.
      const bool above = rises ? y > transform.low : y < transform.high,
                 within = rises ? y < transform.high : y > transform.low;
      const bool behind = begin[bound] < end[bound] && (bound == 0 ? !above : within);
      if (behind)
        begin[bound] = middle + 1;
      else if (begin[bound] < end[bound])
        end[bound] = middle;
    }
  const bool empty = begin[0] >= begin[1];
  least = empty ? number(infinity) : number(begin[0]);
  most = empty ? number(0xffff - infinity) : number(begin[1] - 1);
}

/// The sums of a norm by the matrix units, of gradients as they are stored: with z and ones as the two halves
/// of the first factor, [8 channels of z; ones][16 pixels] · g [16 pixels][8 channels] has Σ g · z on the
/// diagonal of its upper half and Σ g below.
template <class T, bool kNormSums, int kEights>
struct LaneNormSums {};
template <class T, int kEights>
struct LaneNormSums<T, true, kEights> {
  unsigned least[kEights], most[kEights];  ///< of the two channels that the lane has of a product
  float center[kEights];                   ///< of the one whose sums it keeps
  float sums[kEights][4], total[kEights][2];

  __device__ __forceinline__ static bool keeps() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return lane / 8 == lane % 4;
  }
  /// Of the eight or sixteen channels from `channel` on.
  __device__ __forceinline__ void begin(const Transform& transform, const StoreHook& hook, int channel,
                                        int channels) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      least[e] = most[e] = 0;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int mine = min(channel + e * 8 + lane % 4 * 2 + i, channels - 1);
        T range[2];
        find_range(transform, transform.scale[mine], transform.shift[mine], range[0], range[1]);
        least[e] |= static_cast<unsigned>(range[0].bits) << 16 * i;
        most[e] |= static_cast<unsigned>(range[1].bits) << 16 * i;
      }
      const int mine = channel + e * 8 + lane / 4;
      center[e] = mine < channels ? hook.center[mine] : 0.0f;
      total[e][0] = total[e][1] = 0;
    }
  }
  __device__ __forceinline__ void begin_item() {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[e][i] = 0;
  }
  /// Masks the gradients g of a product, narrowed in pairs: of what has z as load_matrices() gives it, and z
  /// transposed; `exist` is all ones for a half of the pixels that exists.
  __device__ __forceinline__ void pass(unsigned (&g)[kEights][2], const unsigned (&z)[2 * kEights],
                                       const unsigned (&transposed)[2 * kEights],
                                       const unsigned (&exist)[2]) {
    const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        g[e][half] &= within_pair(z[2 * e + half], least[e], most[e], T{}) & exist[half];
      multiply_add(sums[e], transposed[2 * e], ones, transposed[2 * e + 1], ones, transpose_matrix(g[e][0]),
                   transpose_matrix(g[e][1]), T{});
    }
  }
  /// The matrix units do not round sums to nearest: long sums are kept elsewhere.
  __device__ __forceinline__ void end_item() {
    const int odd = static_cast<int>(threadIdx.x) / 4 % 2;
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      const float sum = odd == 0 ? sums[e][2] : sums[e][3];
      total[e][0] += sum;
      total[e][1] += (odd == 0 ? sums[e][0] : sums[e][1]) - center[e] * sum;
    }
  }
};

/// A lane's share of the input as load_matrices_transposed() gives it, a channel of each eight, through a
/// transform: the page itself stays raw.
template <class T, bool kTransforms, int kEights>
struct LaneTransform {
  __device__ __forceinline__ void begin(const Transform&, int, int) {}
  __device__ __forceinline__ void apply(unsigned (&)[2 * kEights], const unsigned (&)[2]) const {}
};
template <class T, int kEights>
struct LaneTransform<T, true, kEights> {
  PairTransform<T> pairs;
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
        x[2 * e + m] = pairs.apply(x[2 * e + m], scale[e], scale[e], shift[e], shift[e], exist[m]);
  }
};

/// Merges what warps of a block have of its channels, and leaves it in `to`. `list` has place for `members`
/// of each channel.
template <class Tile, class Sum, class Synchronize>
__device__ __forceinline__ void leave_list(Sum* list, int members, Sum* to, int channels, int threads,
                                           const Synchronize& synchronize) {
  const int thread = static_cast<int>(threadIdx.x);
  merge_all(list, members, Tile::kChannels, Tile::kChannels, 1, thread, threads, synchronize);
  for (int i = thread; i < channels; i += threads) to[i] = list[i];
}

/// Every eighth lane has moments of the same two channels.
template <class Tile, class Synchronize>
__device__ __forceinline__ void leave_part(const LaneMoments<true, Tile::kEights>& lanes, Moments* list,
                                           int block, int channel, Moments* to, int channels, int threads,
                                           const Synchronize& synchronize) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  synchronize();
#pragma unroll
  for (int e = 0; e < Tile::kEights; ++e)
#pragma unroll
    for (int i = 0; i < 2; ++i)
      list[(block * 8 + lane / 4) * Tile::kChannels + channel + e * 8 + lane % 4 * 2 + i] = lanes.of(e, i);
  leave_list<Tile>(list, Tile::kBlocks * 8, to, channels, threads, synchronize);
}

/// A channel's sums are one lane's. has: the warp has any.
template <class T, class Tile, class Synchronize>
__device__ __forceinline__ void leave_part(const LaneNormSums<T, true, Tile::kEights>& lanes, NormSums* list,
                                           bool has, int block, int channel, NormSums* to, int channels,
                                           int threads, const Synchronize& synchronize) {
  synchronize();
  if (has && lanes.keeps()) {
    const int mine = channel + static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
    for (int e = 0; e < Tile::kEights; ++e)
      list[block * Tile::kChannels + mine + e * 8] = {lanes.total[e][0], lanes.total[e][1]};
  }
  leave_list<Tile>(list, Tile::kBlocks, to, channels, threads, synchronize);
}

}  // namespace lamella::depthwise
