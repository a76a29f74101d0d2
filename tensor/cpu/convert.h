#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "tensor/dispatch.h"

/// Element types into one another, one number or a row of them.
namespace lamella::cpu {

/// By way of float32 for half types; true for what is not zero.
template <class To, class From>
inline To convert(From value) {
  if constexpr (std::is_same_v<To, bool>)
    return static_cast<detail::ComputeType<From>>(value) != detail::ComputeType<From>(0);
  else
    return static_cast<To>(
        static_cast<detail::ComputeType<To>>(static_cast<detail::ComputeType<From>>(value)));
}

/// n numbers, from_step and to_step elements apart. `from` and `to` do not overlap.
template <class From, class To>
inline void convert_row(const From* from, std::int64_t from_step, To* to, std::int64_t to_step,
                        std::int64_t n) {
  if (from_step == 1 && to_step == 1) {
    if constexpr (std::is_same_v<From, To>) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(To));
      return;
    }
    std::int64_t i = 0;
#ifdef __F16C__
    if constexpr (std::is_same_v<From, Float16> && std::is_same_v<To, float>)
      for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i,
                         _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    if constexpr (std::is_same_v<From, float> && std::is_same_v<To, Float16>)
      for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; ++i) to[i] = convert<To>(from[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i * to_step] = convert<To>(from[i * from_step]);
  }
}

}  // namespace lamella::cpu
