#pragma once

#include "core/cuda/number.cuh"
#include "layers/depthwise_conv2d/cuda/problem.h"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

/// Number `at` of memory that holds float32 or T.
template <class T>
__device__ inline detail::ComputeType<T> load_parameter(const void* data, DType dtype, std::int64_t at) {
  if constexpr (!std::is_same_v<T, float>)
    if (dtype != DType::Float32) return detail::cuda::to_compute(static_cast<const T*>(data)[at]);
  return static_cast<const float*>(data)[at];
}

/// Tap `at`, counted row by row, of a channel.
template <class T, class K>
__device__ inline float load_tap(const TapView& view, std::int64_t channel, int at) {
  return load_parameter<T>(view.taps, view.taps_type,
                           channel * view.channel + at / K::kW * view.row + at % K::kW * view.column);
}
template <class T>
__device__ inline detail::ComputeType<T> load_bias(const TapView& view, std::int64_t channel) {
  if (view.bias == nullptr) return 0;
  return load_parameter<T>(view.bias, view.bias_type, channel * view.bias_step);
}

/// Returns body(Kernel<…>{}) if this kernel is among those that have fast code, else false.
template <int kStride, class Body>
bool with_kernel(const Size2& kernel, const Body& body) {
  if (kernel == Size2(3, 3)) return body(Kernel<3, 3, kStride>{});
  if (kernel == Size2(5, 5)) return body(Kernel<5, 5, kStride>{});
  if constexpr (kStride == 1) {
    if (kernel == Size2(7, 7)) return body(Kernel<7, 7, 1>{});
    if (kernel == Size2(3, 7)) return body(Kernel<3, 7, 1>{});
    if (kernel == Size2(3, 1)) return body(Kernel<3, 1, 1>{});
    if (kernel == Size2(5, 1)) return body(Kernel<5, 1, 1>{});
    if (kernel == Size2(7, 1)) return body(Kernel<7, 1, 1>{});
  }
  return false;
}

}  // namespace lamella::cuda::depthwise
