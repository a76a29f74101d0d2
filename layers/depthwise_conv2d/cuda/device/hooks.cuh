#pragma once

#include "primitives.cuh"
#include "work.cuh"

/// What happens to results between arithmetic and memory, and what a kernel leaves beside them: per channel,
/// the moments of what is stored, or what a batch norm's gradient needs. Results are met as float32, before
/// they are rounded. Every block leaves its part; others add them up, in their order.
namespace lamella::depthwise {

/// Of some results of a channel: their number, mean, and squared differences from the mean.
struct Moments {
  float count, mean, squares;

  /// T. F. Chan, G. H. Golub, R. J. LeVeque: Updating formulae and a pairwise algorithm, 1979.
  __device__ __forceinline__ void merge(const Moments& other) {
    if (other.count == 0) return;
    const float both = count + other.count, share = other.count / both, apart = other.mean - mean;
    mean += apart * share;
    squares += other.squares + apart * apart * (count * share);
    count = both;
  }
};

/// The moments of a thread's results, kCount channels side by side, by their differences from the first: that
/// is one of them, so that sums of squares do not cancel, however large the mean is.
template <bool kStatistics, int kCount>
struct ThreadMoments {
  __device__ __forceinline__ void first(const float (&)[kCount]) {}
  __device__ __forceinline__ void add(const float (&)[kCount]) {}
};
template <int kCount>
struct ThreadMoments<true, kCount> {
  float pivot[kCount], sums[kCount], squares[kCount];
  int count = 0;

  /// Before add(), of a result that it will get: every so often is enough, if the first time is among them.
  __device__ __forceinline__ void first(const float (&y)[kCount]) {
    if (count > 0) return;
#pragma unroll
    for (int c = 0; c < kCount; ++c) pivot[c] = y[c], sums[c] = squares[c] = 0;
  }
  __device__ __forceinline__ void add(const float (&y)[kCount]) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const float apart = y[c] - pivot[c];
      sums[c] += apart;
      squares[c] = fmaf(apart, apart, squares[c]);
    }
    ++count;
  }
  __device__ __forceinline__ Moments of(int c) const {
    if (count == 0) return {0, 0, 0};
    const float number = static_cast<float>(count), mean = sums[c] / number;
    return {number, pivot[c] + mean, max(squares[c] - sums[c] * mean, 0.0f)};
  }
};

/// Of some gradients g of a channel's inputs, which are act(scale · z + shift): Σ g and Σ g · (z - center).
struct NormSums {
  float sum, product;
  __device__ __forceinline__ void merge(const NormSums& other) {
    sum += other.sum;
    product += other.product;
  }
};

/// g times hardswish's derivative at v.
__device__ __forceinline__ float hardswish_slope(float g, float v) {
  return v <= -3.0f ? 0.0f : v < 3.0f ? g * fmaf(v, 1.0f / 3.0f, 0.5f) : g;
}

/// Multiplies a thread's gradients of kLanes channels side by side by the activation's derivative, and adds
/// them up.
template <int kNormSums, int kLanes>
struct ThreadNormSums {
  float scale[kLanes], shift[kLanes], center[kLanes], low, high;
  float sums[kLanes], products[kLanes];

  __device__ __forceinline__ void begin(const Transform& transform, const StoreHook& hook, Int64 channel) {
    low = transform.low, high = transform.high;
#pragma unroll
    for (int l = 0; l < kLanes; ++l) {
      scale[l] = transform.scale[channel + l], shift[l] = transform.shift[channel + l];
      center[l] = hook.center[channel + l];
      sums[l] = products[l] = 0;
    }
  }
  /// Of a z that is no number, kClamp's g is zero.
  __device__ __forceinline__ void pass(float (&g)[kLanes], const float (&z)[kLanes]) {
#pragma unroll
    for (int l = 0; l < kLanes; ++l) {
      const float y = fmaf(scale[l], z[l], shift[l]);
      if constexpr (kNormSums == kHardSwish) {
        g[l] = hardswish_slope(g[l], y);
        products[l] += g[l] * (z[l] - center[l]);
      } else {
        g[l] = y > low && y < high ? g[l] : 0.0f;
        products[l] += y > low && y < high ? g[l] * (z[l] - center[l]) : 0.0f;
      }
      sums[l] += g[l];
    }
  }
  __device__ __forceinline__ NormSums of(int l) const { return {sums[l], products[l]}; }
};
template <int kLanes>
struct ThreadNormSums<kPlain, kLanes> {
  __device__ __forceinline__ void begin(const Transform&, const StoreHook&, Int64) {}
  __device__ __forceinline__ void pass(float (&)[kLanes], const float (&)[kLanes]) {}
};

/// Merges `members` sums of each of `sets` into the first, in pairs, which lie `member_step` and `set_step`
/// apart. By all threads that synchronize() waits for, of which this is number `thread` of `threads`; it has
/// been called when this returns.
template <class Sum, class Synchronize>
__device__ __forceinline__ void merge_all(Sum* list, int members, int member_step, int sets, int set_step,
                                          int thread, int threads, const Synchronize& synchronize) {
  synchronize();
  for (int apart = 1; apart < members; apart *= 2) {
    const int pairs = (members - apart + 2 * apart - 1) / (2 * apart);
    for (int i = thread; i < pairs * sets; i += threads) {
      const int pair = i / sets, set = i - pair * sets;
      Sum* const to = list + pair * 2 * apart * member_step + set * set_step;
      to->merge(to[apart * member_step]);
    }
    synchronize();
  }
}

}  // namespace lamella::depthwise
