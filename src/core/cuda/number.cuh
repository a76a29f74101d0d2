#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "tensor/dispatch.h"

/// Numbers in memory and in arithmetic, on the device.
namespace lamella::detail::cuda {

/// A stored number as one of its compute type.
template <class T>
__device__ inline T to_compute(T value) {
  return value;
}
__device__ inline float to_compute(BFloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
__device__ inline float to_compute(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }

/// from_compute<T>(x): rounded to nearest even where T is a half type.
template <class T>
struct FromCompute {
  __device__ static T convert(T value) { return value; }
};
template <>
struct FromCompute<BFloat16> {
  __device__ static BFloat16 convert(float value) {
    BFloat16 result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    return result;
  }
};
template <>
struct FromCompute<Float16> {
  __device__ static Float16 convert(float value) {
    Float16 result;
    result.bits = __half_as_ushort(__float2half_rn(value));
    return result;
  }
};
template <class T>
__device__ inline T from_compute(ComputeType<T> value) {
  return FromCompute<T>::convert(value);
}

/// to = value, or to += value, rounded once.
template <class T>
__device__ inline void write_number(T& to, ComputeType<T> value, bool accumulate) {
  to = from_compute<T>(accumulate ? value + to_compute(to) : value);
}

/// Element i of memory that holds `dtype`, as a C: by way of float32 from half types.
template <class C>
__device__ inline C load_number(DType dtype, const void* data, std::int64_t i) {
  switch (dtype) {
    case DType::Float32:
      return static_cast<C>(static_cast<const float*>(data)[i]);
    case DType::Float64:
      return static_cast<C>(static_cast<const double*>(data)[i]);
    case DType::BFloat16:
      return static_cast<C>(to_compute(static_cast<const BFloat16*>(data)[i]));
    case DType::Float16:
      return static_cast<C>(to_compute(static_cast<const Float16*>(data)[i]));
    case DType::Int64:
      return static_cast<C>(static_cast<const std::int64_t*>(data)[i]);
    case DType::Int32:
      return static_cast<C>(static_cast<const std::int32_t*>(data)[i]);
    case DType::UInt8:
      return static_cast<C>(static_cast<const std::uint8_t*>(data)[i]);
    case DType::Bool:
      return static_cast<C>(static_cast<const std::uint8_t*>(data)[i] != 0);
  }
  return C(0);
}

/// The way back: a bool is whether the number is not zero.
template <class C>
__device__ inline void store_number(DType dtype, C value, void* data, std::int64_t i) {
  switch (dtype) {
    case DType::Float32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case DType::Float64:
      static_cast<double*>(data)[i] = static_cast<double>(value);
      return;
    case DType::BFloat16:
      static_cast<BFloat16*>(data)[i] = from_compute<BFloat16>(static_cast<float>(value));
      return;
    case DType::Float16:
      static_cast<Float16*>(data)[i] = from_compute<Float16>(static_cast<float>(value));
      return;
    case DType::Int64:
      static_cast<std::int64_t*>(data)[i] = static_cast<std::int64_t>(value);
      return;
    case DType::Int32:
      static_cast<std::int32_t*>(data)[i] = static_cast<std::int32_t>(value);
      return;
    case DType::UInt8:
      static_cast<std::uint8_t*>(data)[i] = static_cast<std::uint8_t>(value);
      return;
    case DType::Bool:
      static_cast<std::uint8_t*>(data)[i] = value != C(0);
      return;
  }
}

}  // namespace lamella::detail::cuda
