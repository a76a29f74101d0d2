#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

#include "lamella/core/export.h"

namespace lamella {

/// Element types. Arithmetic on the two 16-bit floats is done in float32 and rounded once (to nearest even).
enum class DType : std::uint8_t { Float32, Float64, BFloat16, Float16, Int64, Int32, UInt8, Bool };

inline constexpr DType float32 = DType::Float32;    ///< IEEE binary32
inline constexpr DType float64 = DType::Float64;    ///< IEEE binary64
inline constexpr DType bfloat16 = DType::BFloat16;  ///< 8 exponent bits, 7 fraction bits
inline constexpr DType float16 = DType::Float16;    ///< IEEE binary16
inline constexpr DType int64 = DType::Int64;        ///< class indices, argmax, counters
inline constexpr DType int32 = DType::Int32;        ///< whole numbers of 32 bits
inline constexpr DType uint8 = DType::UInt8;        ///< image bytes
inline constexpr DType boolean = DType::Bool;       ///< one byte, 0 or 1

/// Bytes of one element.
LAMELLA_API std::size_t size_of(DType dtype);
/// "float32", "bfloat16", "bool", …
LAMELLA_API const char* name(DType dtype);
/// Parses what name() prints; throws DTypeError otherwise.
LAMELLA_API DType parse_dtype(const std::string& text);
/// True for the four floating types.
LAMELLA_API bool is_floating(DType dtype);
/// The type of `a op b` as in PyTorch for two tensors: bool < uint8 < int32 < int64 < {float16, bfloat16} <
/// float32 < float64; float16 with bfloat16 gives float32.
LAMELLA_API DType promote(DType a, DType b);

/// bfloat16 storage: the upper half of a float32. Rounds to nearest even; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits = 0;  ///< sign, 8 exponent and 7 fraction bits
  BFloat16() = default;
  /// Rounds to nearest even; overflows to infinity.
  explicit BFloat16(float value) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    bits = (u & 0x7fffffffu) > 0x7f800000u
               ? static_cast<std::uint16_t>((u >> 16) | 0x40u)
               : static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  /// The same number, exactly.
  operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE binary16 storage. Rounds to nearest even; overflows to infinity.
struct Float16 {
  std::uint16_t bits = 0;  ///< sign, 5 exponent and 10 fraction bits
  Float16() = default;
  /// Rounds to nearest even; overflows to infinity.
  explicit Float16(float value) : bits(from_float(value)) {}
  /// The same number, exactly.
  operator float() const { return to_float(bits); }

 private:
  LAMELLA_API static std::uint16_t from_float(float value);
  LAMELLA_API static float to_float(std::uint16_t bits);
};

/// DTypeOf<T>::value is the DType whose elements are T in memory (`bool` is one byte).
template <class T>
struct DTypeOf;
/// @cond
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::Float32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::Float64;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::BFloat16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::Float16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::Int64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::Int32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::UInt8;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::Bool;
};
/// @endcond
/// Shorthand for DTypeOf<T>::value.
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

}  // namespace lamella
