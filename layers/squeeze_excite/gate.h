#pragma once

#include <cstdint>

#include "lamella/core/export.h"
#include "tensor/fused_activations.h"

namespace lamella::detail {

/// What becomes of the numbers that make a gate.
enum class Gate : std::uint8_t { Plain, Hardsigmoid };

template <class C>
LAMELLA_HOST_DEVICE inline C gate_value(Gate f, C x) {
  return f == Gate::Hardsigmoid ? relu6_value(x + C(3)) / C(6) : x;
}
/// g times the slope at x.
template <class C>
LAMELLA_HOST_DEVICE inline C gate_gradient(Gate f, C g, C x) {
  if (f != Gate::Hardsigmoid) return g;
  return x > C(-3) && x < C(3) ? g / C(6) : C(0);
}

}  // namespace lamella::detail
