#pragma once

#include <cstdint>
#include <type_traits>

#include "core/cuda/number.cuh"

namespace lamella::cuda::depthwise {

/// kCount neighbouring numbers of float or a half type, as one access of up to sixteen bytes. They stay
/// packed until they are used.
template <class T, int kCount>
struct Pack {
  static constexpr int kBytes = kCount * static_cast<int>(sizeof(T));
  static_assert(sizeof(T) <= 4 && (kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes == 16));
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;
  std::uint32_t words[kWords];

  __device__ float at(int i) const {
    if constexpr (std::is_same_v<T, float>)
      return __uint_as_float(words[i]);
    else if constexpr (std::is_same_v<T, BFloat16>)
      return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
    else
      return __half2float(__ushort_as_half(static_cast<unsigned short>(words[i / 2] >> (i % 2 * 16))));
  }
};

/// `from` is aligned to the pack, and nothing writes there while the kernel runs.
template <class T, int kCount>
__device__ inline Pack<T, kCount> load_pack(const T* from) {
  using P = Pack<T, kCount>;
  if constexpr (P::kBytes == 16) {
    const uint4 bits = __ldg(reinterpret_cast<const uint4*>(from));
    return {{bits.x, bits.y, bits.z, bits.w}};
  } else if constexpr (P::kBytes == 8) {
    const uint2 bits = __ldg(reinterpret_cast<const uint2*>(from));
    return {{bits.x, bits.y}};
  } else if constexpr (P::kBytes == 4) {
    return {{__ldg(reinterpret_cast<const unsigned*>(from))}};
  } else {
    return {{__ldg(reinterpret_cast<const unsigned short*>(from))}};
  }
}

/// Two numbers, rounded to a half type.
template <class T>
__device__ inline std::uint32_t pair_bits(float low, float high) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return static_cast<std::uint32_t>(__bfloat16_as_ushort(pair.x)) |
           static_cast<std::uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return static_cast<std::uint32_t>(__half_as_ushort(__low2half(pair))) |
           static_cast<std::uint32_t>(__half_as_ushort(__high2half(pair))) << 16;
  }
}

/// Stores kCount values, rounded to T, at an address aligned to them.
template <class T, int kCount>
__device__ inline void store_pack(T* to, const float* values) {
  constexpr int kBytes = Pack<T, kCount>::kBytes;
  if constexpr (kCount == 1) {
    *to = detail::cuda::from_compute<T>(values[0]);
  } else {
    std::uint32_t words[kBytes / 4];
#pragma unroll
    for (int i = 0; i < kBytes / 4; ++i) {
      if constexpr (std::is_same_v<T, float>)
        words[i] = __float_as_uint(values[i]);
      else
        words[i] = pair_bits<T>(values[2 * i], values[2 * i + 1]);
    }
    if constexpr (kBytes == 16)
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    else if constexpr (kBytes == 8)
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    else
      *reinterpret_cast<unsigned*>(to) = words[0];
  }
}

}  // namespace lamella::cuda::depthwise
