#pragma once

#include <cmath>

#include "layers/activation/functions.h"
#include "layers/norm/kernels.h"

/// The gradients of the activations that a normalisation may have behind it, as functions of the result's
/// gradient and of z = x · scale + shift.
namespace lamella::cuda {

using detail::ActivationSlope;
using detail::PendingActivation;

/// Relu, Relu6 or nothing: passes what lies between bounds. One that is NaN does not bind.
template <class C>
struct GateSlope {
  C low, high;
  explicit GateSlope(PendingActivation activation)
      : low(activation == PendingActivation::None ? static_cast<C>(NAN) : C(0)),
        high(activation == PendingActivation::Relu6 ? C(6) : static_cast<C>(NAN)) {}
  __device__ C operator()(C g, C z) const { return z <= low || z >= high ? C(0) : g; }
};
/// Of gradients that have gone back through the activation.
template <class C>
struct NoSlope {
  __device__ C operator()(C g, C /*z*/) const { return g; }
};
/// With a product in place of a quotient, which would take longer than memory.
template <class C>
struct HardswishSlope {
  __device__ C operator()(C g, C z) const {
    const C rising = z < C(3) ? g * (z * C(1.0 / 3) + C(0.5)) : g;
    return z <= C(-3) ? C(0) : rising;
  }
};
template <class C>
struct SiluSlope {
  __device__ C operator()(C g, C z) const { return detail::Silu().gradient(g, z); }
};
/// Any of them, chosen for each number.
template <class C>
struct AnySlope {
  PendingActivation activation;
  GateSlope<C> gate;
  explicit AnySlope(PendingActivation activation) : activation(activation), gate(activation) {}
  __device__ C operator()(C g, C z) const {
    if (activation == PendingActivation::Hardswish) return HardswishSlope<C>()(g, z);
    if (activation == PendingActivation::Silu) return SiluSlope<C>()(g, z);
    return gate(g, z);
  }
};

/// Calls body(slope), with kernels of their own for each where packets are moved whole.
template <class C, bool kWide, class Body>
void visit_slope(PendingActivation activation, const Body& body) {
  if constexpr (!kWide) {
    body(AnySlope<C>(activation));
  } else if (activation == PendingActivation::None) {
    body(NoSlope<C>());
  } else if (activation == PendingActivation::Hardswish) {
    body(HardswishSlope<C>());
  } else if (activation == PendingActivation::Silu) {
    body(SiluSlope<C>());
  } else {
    body(GateSlope<C>(activation));
  }
}

/// scale and shift of the channels; null: 1 and 0.
template <class C>
struct SlopeFactors {
  const C* scale;
  const C* shift;
  explicit SlopeFactors(const ActivationSlope& slope)
      : scale(static_cast<const C*>(slope.scale)), shift(static_cast<const C*>(slope.shift)) {}
  __device__ C scale_of(std::int64_t channel) const { return scale != nullptr ? scale[channel] : C(1); }
  __device__ C shift_of(std::int64_t channel) const { return shift != nullptr ? shift[channel] : C(0); }
};

}  // namespace lamella::cuda
