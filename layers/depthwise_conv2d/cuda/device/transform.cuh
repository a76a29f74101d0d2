#pragma once

#include "vector.cuh"

/// What happens to the input between memory and arithmetic.
namespace lamella::depthwise {

template <bool kTransforms, int kLanes>
struct Lanes;

template <int kLanes>
struct Lanes<false, kLanes> {
  __device__ __forceinline__ void begin(const Transform&, Int64) {}
  template <int kCount>
  __device__ __forceinline__ void apply(float (&)[kCount][kLanes], unsigned) const {}
};

template <int kLanes>
struct Lanes<true, kLanes> {
  float scale[kLanes], shift[kLanes], low, high;

  __device__ __forceinline__ void begin(const Transform& transform, Int64 channel) {
    low = transform.low, high = transform.high;
#pragma unroll
    for (int l = 0; l < kLanes; ++l)
      scale[l] = transform.scale[channel + l], shift[l] = transform.shift[channel + l];
  }
  /// Numbers whose bit in `inside` is not set are padding.
  template <int kCount>
  __device__ __forceinline__ void apply(float (&x)[kCount][kLanes], unsigned inside) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
#pragma unroll
      for (int l = 0; l < kLanes; ++l) {
        const float y = clamp(fmaf(scale[l], x[i][l], shift[l]), low, high);
        x[i][l] = inside >> i & 1 ? y : 0.0f;
      }
  }
};

/// The same for numbers of one channel; padding is the caller's business.
template <bool kTransforms>
struct Lane {
  __device__ __forceinline__ void begin(const Transform&, Int64) {}
  template <int kCount>
  __device__ __forceinline__ void apply(float (&)[kCount]) const {}
};

template <>
struct Lane<true> {
  float scale, shift, low, high;

  __device__ __forceinline__ void begin(const Transform& transform, Int64 channel) {
    scale = transform.scale[channel], shift = transform.shift[channel], low = transform.low,
    high = transform.high;
  }
  template <int kCount>
  __device__ __forceinline__ void apply(float (&x)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = clamp(fmaf(scale, x[i], shift), low, high);
  }
};

/// Sixteen-bit numbers, two at a time: both of one channel, or of two.
template <class T>
struct PairTransform {
  unsigned low, high;
  __device__ __forceinline__ void begin(const Transform& transform) {
    low = narrow_pair(transform.low, transform.low, T{}),
    high = narrow_pair(transform.high, transform.high, T{});
  }
  /// Rounding before the bounds changes nothing, as they are rounded, too.
  __device__ __forceinline__ unsigned apply(unsigned pair, float scale0, float scale1, float shift0,
                                            float shift1) const {
    float first, second;
    widen_pair(pair, T{}, first, second);
    return clamp_pair(narrow_pair(fmaf(scale0, first, shift0), fmaf(scale1, second, shift1), T{}), low, high,
                      T{});
  }
};

/// A vector of neighbouring channels where it lies, in shared memory, and rounded to T there.
template <class T, int kCount>
struct VectorTransform {
  static constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  float scale[kCount], shift[kCount], low, high;

  /// Channels from `channels` on do not exist.
  __device__ __forceinline__ void begin(const Transform& transform, int channel, int channels) {
    low = transform.low, high = transform.high;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      scale[i] = channel + i < channels ? transform.scale[channel + i] : 0.0f;
      shift[i] = channel + i < channels ? transform.shift[channel + i] : 0.0f;
    }
  }
  __device__ __forceinline__ Words<kBytes> apply(Words<kBytes> x) const {
    if constexpr (sizeof(T) == 2) {
      const unsigned least = narrow_pair(low, low, T{}), most = narrow_pair(high, high, T{});
      const PairTransform<T> pairs{least, most};
#pragma unroll
      for (int i = 0; i < kCount; i += 2)
        x.word[i / 2] = pairs.apply(x.word[i / 2], scale[i], scale[i + 1], shift[i], shift[i + 1]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        x.word[i] = __float_as_uint(clamp(fmaf(scale[i], __uint_as_float(x.word[i]), shift[i]), low, high));
    }
    return x;
  }
  __device__ __forceinline__ void apply(T* at) const {
    if constexpr (kBytes < 4)
      *at = narrow<T>(clamp(fmaf(scale[0], widen(*at), shift[0]), low, high));
    else
      keep_words(at, apply(load_words<kBytes>(at)));
  }
};

}  // namespace lamella::depthwise
