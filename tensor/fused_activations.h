#pragma once

#include "tensor/functions.h"

/// The activations that a pending tensor may owe (PendingActivation): one formula, whether the activation's
/// own operator computes it or whoever reads the tensor.
namespace lamella::detail {

/// NaN stays NaN, here and below.
template <class C>
LAMELLA_HOST_DEVICE inline C relu_value(C x) {
  return x < C(0) ? C(0) : x;
}

template <class C>
LAMELLA_HOST_DEVICE inline C relu6_value(C x) {
  const C raised = relu_value(x);
  return raised > C(6) ? C(6) : raised;
}

template <class C>
LAMELLA_HOST_DEVICE inline C hardswish_value(C x) {
  return x * relu6_value(x + C(3)) / C(6);
}

template <class C>
LAMELLA_HOST_DEVICE inline C silu_value(C x) {
  return x / (C(1) + exponential(-x));
}

}  // namespace lamella::detail
