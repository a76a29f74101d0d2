#pragma once

#include "core/cuda/number.cuh"
#include "layers/depthwise_conv2d/cuda/problem.h"

namespace lamella::cuda::depthwise {

/// Number `at` of memory that holds float32 or T.
template <class T>
__device__ inline detail::ComputeType<T> load_parameter(const void* data, DType dtype, std::int64_t at) {
  if constexpr (!std::is_same_v<T, float>)
    if (dtype != DType::Float32) return detail::cuda::to_compute(static_cast<const T*>(data)[at]);
  return static_cast<const float*>(data)[at];
}

/// The convolution's input, of what is given in its place.
template <class C>
__device__ inline C transformed(const lamella::depthwise::Transform& transform, std::int64_t channel, C z) {
  if (transform.scale == nullptr) return z;
  const C y = fma(static_cast<C>(transform.scale[channel]), z, static_cast<C>(transform.shift[channel]));
  const C low = static_cast<C>(transform.low), high = static_cast<C>(transform.high);
  return y < low ? low : y > high ? high : y;  // NaN stays NaN
}

template <class T>
__device__ inline detail::ComputeType<T> load_bias(const TapView& view, std::int64_t channel) {
  if (view.bias == nullptr) return 0;
  return load_parameter<T>(view.bias, view.bias_type, channel * view.bias_step);
}

}  // namespace lamella::cuda::depthwise
