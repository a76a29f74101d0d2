#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/philox.h"

/// The formulas of the elementwise operators and of their gradients, as plain functions of numbers of the
/// compute type, for kernels of any device. Those that integers share are written for std::int64_t, too;
/// their sums and products wrap around.
namespace lamella::detail {

// ---- Two operands ----

enum class BinaryOp : std::uint8_t { Add, Sub, Mul, Div, Maximum, Minimum, Pow };

/// Integer arithmetic modulo 2^64, where signed overflow would be undefined.
template <class C>
using Wrapping = std::conditional_t<std::is_integral_v<C>, std::uint64_t, C>;

struct Add {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    return static_cast<C>(static_cast<Wrapping<C>>(a) + static_cast<Wrapping<C>>(b));
  }
};
struct Sub {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    return static_cast<C>(static_cast<Wrapping<C>>(a) - static_cast<Wrapping<C>>(b));
  }
};
struct Mul {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    return static_cast<C>(static_cast<Wrapping<C>>(a) * static_cast<Wrapping<C>>(b));
  }
};
struct Div {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    return a / b;
  }
};
struct Maximum {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    const C larger = a > b ? a : b;  // b if either is NaN
    return a != a ? a : larger;
  }
};
struct Minimum {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    const C smaller = a < b ? a : b;
    return a != a ? a : smaller;
  }
};
struct Pow {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C a, C b) const {
    return std::pow(a, b);
  }
};

// Gradients that are not another operator themselves: of (gradient g of the result, a, b).

enum class TernaryOp : std::uint8_t {
  DivisorGradient,
  MaximumGradient,
  MinimumGradient,
  BaseGradient,
  ExponentGradient
};

/// With respect to the divisor of a / b.
struct DivisorGradient {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C a, C b) const {
    return -g * ((a / b) / b);
  }
};
/// With respect to `a` of maximum(a, b).
struct MaximumGradient {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C a, C b) const {
    const C shared = a == b ? g / C(2) : g;
    return a < b ? C(0) : shared;
  }
};
/// With respect to `a` of minimum(a, b).
struct MinimumGradient {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C a, C b) const {
    const C shared = a == b ? g / C(2) : g;
    return a > b ? C(0) : shared;
  }
};
/// With respect to the base of a^b.
struct BaseGradient {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C a, C b) const {
    return b == C(0) ? C(0) : g * (b * std::pow(a, b - C(1)));
  }
};
/// With respect to the exponent of a^b.
struct ExponentGradient {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C a, C b) const {
    return a == C(0) && b >= C(0) ? C(0) : g * (std::pow(a, b) * std::log(a));
  }
};

/// With respect to the base of a².
struct SquareGradient {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C a) const {
    return g * (a + a);
  }
};

// ---- Choices ----

struct Choose {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C condition, C a, C b) const {
    return condition != C(0) ? a : b;
  }
};
struct ChooseGradient {
  bool side;
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C condition, C g) const {
    return (condition != C(0)) == side ? g : C(0);
  }
};

// ---- Pending operands ----

struct AddPending {
  static constexpr bool kByRows = true;  ///< most of its operands repeat a row
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C stored, C scale, C shift, C other) const {
    return stored * scale + shift + other;
  }
};

// ---- Tests ----

enum class CompareOp : std::uint8_t { Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual, And, Or };

struct Equal {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return a == b;
  }
};
struct NotEqual {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return a != b;
  }
};
struct Less {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return a < b;
  }
};
struct LessEqual {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return a <= b;
  }
};
struct Greater {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return a > b;
  }
};
struct GreaterEqual {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return a >= b;
  }
};
struct And {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return (a != C(0)) & (b != C(0));
  }
};
struct Or {
  template <class C>
  LAMELLA_HOST_DEVICE bool operator()(C a, C b) const {
    return (a != C(0)) | (b != C(0));
  }
};

// ---- One operand ----

/// f.forward, and f.gradient, as functions to call; the last with s = stored · scale + shift.
template <class F>
struct Forward {
  F f;
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C x) const {
    return f.forward(x);
  }
};
template <class F>
struct Backward {
  F f;
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C s) const {
    return f.gradient(g, s);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C g, C stored, C scale, C shift) const {
    return f.gradient(g, stored * scale + shift);
  }
};

/// A function of one number with up to two parameters, by name: what kernels are called with.
enum class UnaryKind : std::uint8_t { Neg, Abs, Exp, Log, Sqrt, Clamp };
struct UnaryOp {
  UnaryKind kind;
  double low = 0;  ///< Clamp's bounds; NaN: none
  double high = 0;
};

/// eˣ = (1 + fraction) · first · second, in float32.
struct ExponentialParts {
  float fraction, first, second;
};
/// For x in [-105, 89]; NaN gives a fraction of NaN. Without a branch, so that loops over it become vector
/// code.
inline ExponentialParts exponential_parts(float x) {
  const float magic = 12582912.0f;  // 1.5 · 2^23: what is added to it loses its fraction
  const float shifted = x * 1.44269504f + magic;
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, of which n times the first is exact.
  const float n = shifted - magic;
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  // The Taylor series of e^r - 1 to r^7 is closer than float32 can show.
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = (p * r) * r + r;
  // 2^n in two factors, since it may lie outside the range of exponents.
  const auto power = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) - 0x4b400000u);
  const std::int32_t half = power >> 1;
  return {p, std::bit_cast<float>((half + 127) << 23), std::bit_cast<float>((power - half + 127) << 23)};
}

/// eˣ. In float32 within 1.5 ulp.
template <class C>
LAMELLA_HOST_DEVICE inline C exponential(C x) {
#ifndef __CUDA_ARCH__
  if constexpr (std::is_same_v<C, float>) {
    float bounded = x < -105.0f ? -105.0f : x;  // beyond the bounds the result is 0 or infinite
    bounded = bounded > 89.0f ? 89.0f : bounded;
    const ExponentialParts parts = exponential_parts(bounded);
    return (1.0f + parts.fraction) * parts.first * parts.second;
  }
#endif
  return std::exp(x);
}

/// tanh(x). In float32 within 3 ulp, by e^2|x| - 1.
template <class C>
LAMELLA_HOST_DEVICE inline C hyperbolic_tangent(C x) {
#ifndef __CUDA_ARCH__
  if constexpr (std::is_same_v<C, float>) {
    const float doubled = std::abs(x) * 2.0f;
    const float bounded = doubled > 20.0f ? 20.0f : doubled;  // 1 from there on
    const ExponentialParts parts = exponential_parts(bounded);
    const float power = parts.first * parts.second;
    const float e = parts.fraction * power + (power - 1.0f);
    return std::copysign(e / (e + 2.0f), x);
  }
#endif
  return std::tanh(x);
}

struct Neg {
  static constexpr bool kIntegers = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    if constexpr (std::is_integral_v<C>)
      return Sub()(C(0), x);
    else
      return -x;
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C) const {
    return -g;
  }
};
struct Abs {
  static constexpr bool kIntegers = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    if constexpr (std::is_integral_v<C>)
      return x < 0 ? Neg().forward(x) : x;
    else
      return std::abs(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C falling = x < C(0) ? -g : C(0);
    return x > C(0) ? g : falling;
  }
};
struct Exp {
  static constexpr bool kIntegers = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return exponential(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    return g * y;
  }
};
struct Log {
  static constexpr bool kIntegers = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return std::log(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    return g / x;
  }
};
struct Sqrt {
  static constexpr bool kIntegers = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return std::sqrt(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    return g / (C(2) * y);
  }
};
/// A bound that is NaN does not bind: no comparison with it holds.
struct Clamp {
  static constexpr bool kIntegers = false;
  double low, high;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    const C raised = x < static_cast<C>(low) ? static_cast<C>(low) : x;
    return raised > static_cast<C>(high) ? static_cast<C>(high) : raised;
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C below = x < static_cast<C>(low) ? C(0) : g;
    const C inside = x > static_cast<C>(high) ? C(0) : below;
    return x != x ? C(0) : inside;
  }
};

}  // namespace lamella::detail
