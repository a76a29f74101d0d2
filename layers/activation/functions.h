#pragma once

#include "tensor/functions.h"

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

/// min(max(x + 3, 0), 6), keeping NaN.
template <class C>
LAMELLA_HOST_DEVICE inline C hard_gate(C x) {
  const C gate = x + C(3);
  const C raised = gate < C(0) ? C(0) : gate;
  return raised > C(6) ? C(6) : raised;
}

template <class C>
LAMELLA_HOST_DEVICE inline C logistic(C x) {
  return C(1) / (C(1) + exponential(-x));
}

/// Its gradient and Relu6's read the input as well as the output.
struct Relu {
  static constexpr bool kFromOutput = true;
  static constexpr bool kFuses = true;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return x < C(0) ? C(0) : x;
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
    const C raised = x < C(0) ? C(0) : x;
    return raised > C(6) ? C(6) : raised;
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
    return x * hard_gate(x) / C(6);
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
    return hard_gate(x) / C(6);
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
    return x / (C(1) + exponential(-x));
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

 private:
  template <class C>
  LAMELLA_HOST_DEVICE static C normal_cdf(C x) {
    return C(0.5) * std::erfc(x * static_cast<C>(-0.707106781186547524));
  }
};
struct GeluTanh {
  static constexpr bool kFromOutput = false;
  static constexpr bool kFuses = false;
  template <class C>
  LAMELLA_HOST_DEVICE C forward(C x) const {
    return C(0.5) * x * (C(1) + hyperbolic_tangent(inner(x)));
  }
  template <class C>
  LAMELLA_HOST_DEVICE C gradient(C g, C x) const {
    const C t = hyperbolic_tangent(inner(x));
    const C slope = static_cast<C>(kScale) * (C(1) + C(3) * static_cast<C>(kCubic) * x * x);
    return g * (C(0.5) * (C(1) + t) + C(0.5) * x * (C(1) - t * t) * slope);
  }

 private:
  static constexpr double kScale = 0.797884560802865356;  // √(2/π)
  static constexpr double kCubic = 0.044715;
  template <class C>
  LAMELLA_HOST_DEVICE static C inner(C x) {
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
