#pragma once

#include "tensor/fused_activations.h"

/// The formulas of the activations and of their gradients, as in tensor/functions.h. gradient(g, s) is the
/// input's gradient from the output's: s is the output where kFromOutput says so, else the input.
/// kFuses: may be left to the consumers of a pending tensor (PendingActivation).
namespace lamella::detail {

enum class ActivationKind : std::uint8_t {
  Relu,
  Relu6,
  LeakyRelu,
  Hardswish,
  Hardsigmoid,
  Sigmoid,
  Silu,
  Gelu,
  GeluTanh,
  Tanh
};

struct ActivationOp {
  ActivationKind kind;
  double slope = 0;  ///< LeakyRelu's
};

template <class C>
LAMELLA_HOST_DEVICE inline C logistic(C x) {
  return C(1) / (C(1) + exponential(-x));
}

/// The normal distribution function. In float32 within 7 ulp, tails included.
template <class C>
LAMELLA_HOST_DEVICE inline C normal_cdf(C x) {
#ifndef __CUDA_ARCH__
  if constexpr (std::is_same_v<C, float>) {
    const float magnitude = std::abs(x);
    const float size = magnitude > 14.48f ? 14.48f : magnitude;  // 0 or 1 from there on
    // erfc(z) exp(z²) / t for t = 1 / (1 + 0.35 z) and z = |x| / √2: interpolated at Chebyshev points, to
    // 1e-8.
    const float t = 1.0f / (1.0f + size * 0.247487373f);
    float p = 0.0371641657f;
    p = p * t - 0.15241948f;
    p = p * t + 0.166692122f;
    p = p * t - 0.00878984168f;
    p = p * t + 0.0719912978f;
    p = p * t + 0.153699423f;
    p = p * t + 0.14869079f;
    p = p * t + 0.188402575f;
    p = p * t + 0.197082536f;
    p = p * t + 0.197486416f;
    // The rounding error of the exponent counts in the tails: it comes in as a factor.
    const float half = 0.5f * size;
    const float exponent = half * size;
    const float missing = std::fma(half, size, -exponent);
    const float tail = (0.5f * t) * p * (exponential(-exponent) * (1.0f - missing));
    const float outside = x > 0.0f ? 1.0f - tail : tail;
    // Near 0, where the tail's last digits are lost: the Taylor series around it.
    const float s = x * x;
    float c = -4.12266741e-08f;
    c = c * s + 6.65969352e-07f;
    c = c * s - 9.44465626e-06f;
    c = c * s + 0.000115434688f;
    c = c * s - 0.00118732822f;
    c = c * s + 0.00997355701f;
    c = c * s - 0.0664903801f;
    c = c * s + 0.39894228f;
    return magnitude < 1.0f ? 0.5f + x * c : outside;
  }
#endif
  return C(0.5) * std::erfc(x * static_cast<C>(-0.707106781186547524));
}

/// Its gradient and Relu6's read the input as well as the output.
struct Relu {
  static constexpr bool kFromOutput = true;
  static constexpr bool kFuses = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return relu_value(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    return y <= C(0) ? C(0) : g;
  }
};
struct Relu6 {
  static constexpr bool kFromOutput = true;
  static constexpr bool kFuses = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return relu6_value(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    const C above = y <= C(0) ? C(0) : g;
    return y >= C(6) ? C(0) : above;
  }
};
struct LeakyRelu {
  static constexpr bool kFromOutput = false;
  static constexpr bool kFuses = false;
  double slope;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return x > C(0) ? x : x * static_cast<C>(slope);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    return x > C(0) ? g : g * static_cast<C>(slope);
  }
};
struct Hardswish {
  static constexpr bool kFromOutput = false;
  static constexpr bool kFuses = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return hardswish_value(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C rising = g * (x / C(3) + C(0.5));
    const C upper = x < C(3) ? rising : g;
    return x <= C(-3) ? C(0) : upper;
  }
};
struct Hardsigmoid {
  static constexpr bool kFromOutput = true;
  static constexpr bool kFuses = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return relu6_value(x + C(3)) / C(6);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    const C below = y < C(1) ? g / C(6) : C(0);
    return y > C(0) ? below : C(0);
  }
};
struct Sigmoid {
  static constexpr bool kFromOutput = true;
  static constexpr bool kFuses = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return logistic(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    return g * (y * (C(1) - y));
  }
};
struct Silu {
  static constexpr bool kFromOutput = false;
  static constexpr bool kFuses = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return silu_value(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C s = logistic(x);
    return g * (s * (C(1) + x * (C(1) - s)));
  }
};
struct Gelu {
  static constexpr bool kFromOutput = false;
  static constexpr bool kFuses = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return x * normal_cdf(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C density = static_cast<C>(0.398942280401432678) * exponential(C(-0.5) * x * x);
    return g * (normal_cdf(x) + x * density);
  }
};
/// Since (1 + tanh(u)) / 2 is the logistic function of 2u, which keeps its digits where the tangent nears -1.
struct GeluTanh {
  static constexpr bool kFromOutput = false;
  static constexpr bool kFuses = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return x * logistic(doubled(x));
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C s = logistic(doubled(x));
    const C slope = static_cast<C>(kScale) * (C(1) + static_cast<C>(3 * kCubic) * x * x);
    return g * (s + x * (s * (C(1) - s)) * slope);
  }

 private:
  static constexpr double kScale = 1.595769121605730711;  // 2√(2/π)
  static constexpr double kCubic = 0.044715;
  template <class C>
  LAMELLA_HOST_DEVICE static C doubled(C x) {
    return static_cast<C>(kScale) * (x + static_cast<C>(kCubic) * x * x * x);
  }
};
struct Tanh {
  static constexpr bool kFromOutput = true;
  static constexpr bool kFuses = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return hyperbolic_tangent(x);
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C y) const {
    return g * (C(1) - y * y);
  }
};

/// Calls body(function) with the function that `op` names.
template <class Body>
void visit_activation(const ActivationOp& op, Body&& body) {
  switch (op.kind) {
    case ActivationKind::Relu:
      return body(Relu());
    case ActivationKind::Relu6:
      return body(Relu6());
    case ActivationKind::LeakyRelu:
      return body(LeakyRelu{op.slope});
    case ActivationKind::Hardswish:
      return body(Hardswish());
    case ActivationKind::Hardsigmoid:
      return body(Hardsigmoid());
    case ActivationKind::Sigmoid:
      return body(Sigmoid());
    case ActivationKind::Silu:
      return body(Silu());
    case ActivationKind::Gelu:
      return body(Gelu());
    case ActivationKind::GeluTanh:
      return body(GeluTanh());
    case ActivationKind::Tanh:
      return body(Tanh());
  }
}

}  // namespace lamella::detail
