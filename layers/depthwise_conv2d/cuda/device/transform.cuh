#pragma once

#include "vector.cuh"

/// What happens to the input between memory and arithmetic.
namespace lamella::depthwise {

/// f of a Transform.
template <int kTransforms>
__device__ __forceinline__ float activate(float v, float low, float high) {
  if constexpr (kTransforms == kHardSwish)
    return v * clamp(v + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f);
  else
    return clamp(v, low, high);
}

template <int kTransforms, int kLanes>
struct Lanes {
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
        const float y = activate<kTransforms>(fmaf(scale[l], x[i][l], shift[l]), low, high);
        x[i][l] = inside >> i & 1 ? y : 0.0f;
      }
  }
};
template <int kLanes>
struct Lanes<kPlain, kLanes> {
  __device__ __forceinline__ void begin(const Transform&, Int64) {}
  template <int kCount>
  __device__ __forceinline__ void apply(float (&)[kCount][kLanes], unsigned) const {}
};

/// The same for numbers of one channel; padding is the caller's business.
template <int kTransforms>
struct Lane {
  float scale, shift, low, high;

  __device__ __forceinline__ void begin(const Transform& transform, Int64 channel) {
    scale = transform.scale[channel], shift = transform.shift[channel], low = transform.low,
    high = transform.high;
  }
  template <int kCount>
  __device__ __forceinline__ void apply(float (&x)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] = activate<kTransforms>(fmaf(scale, x[i], shift), low, high);
  }
};
template <>
struct Lane<kPlain> {
  __device__ __forceinline__ void begin(const Transform&, Int64) {}
  template <int kCount>
  __device__ __forceinline__ void apply(float (&)[kCount]) const {}
};

/// Sixteen-bit numbers, two at a time: both of one channel, or of two.
template <class T, int kTransforms>
struct PairTransform {
  unsigned low, high;
  __device__ __forceinline__ void begin(const Transform& transform) {
    low = narrow_pair(transform.low, transform.low, T{}),
    high = narrow_pair(transform.high, transform.high, T{});
  }
  /// Rounding before bounds changes nothing, as they are rounded, too.
  __device__ __forceinline__ unsigned apply(unsigned pair, float scale0, float scale1, float shift0,
                                            float shift1) const {
    float first, second;
    widen_pair(pair, T{}, first, second);
    first = fmaf(scale0, first, shift0), second = fmaf(scale1, second, shift1);
    if constexpr (kTransforms == kHardSwish)
      return narrow_pair(hardswish(first), hardswish(second), T{});
    else
      return clamp_pair(narrow_pair(first, second, T{}), low, high, T{});
  }
};

/// A vector of neighbouring channels where it lies, in shared memory, and rounded to T there.
template <class T, int kCount, int kTransforms>
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
      const PairTransform<T, kTransforms> pairs{least, most};
#pragma unroll
      for (int i = 0; i < kCount; i += 2)
        x.word[i / 2] = pairs.apply(x.word[i / 2], scale[i], scale[i + 1], shift[i], shift[i + 1]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        x.word[i] = __float_as_uint(
            activate<kTransforms>(fmaf(scale[i], __uint_as_float(x.word[i]), shift[i]), low, high));
    }
    return x;
  }
  __device__ __forceinline__ void apply(T* at) const {
    if constexpr (kBytes < 4)
      *at = narrow<T>(activate<kTransforms>(fmaf(scale[0], widen(*at), shift[0]), low, high));
    else
      keep_words(at, apply(load_words<kBytes>(at)));
  }
};

}  // namespace lamella::depthwise
