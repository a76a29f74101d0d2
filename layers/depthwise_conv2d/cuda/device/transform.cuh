#pragma once

#include "primitives.cuh"
#include "work.cuh"

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

}  // namespace lamella::depthwise
