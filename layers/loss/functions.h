#pragma once

#include <cmath>

#include "layers/loss/kernels.h"
#include "tensor/functions.h"

/// The formulas of pointwise losses, as in tensor/functions.h: the loss of a number x and its target t, with
/// factors w and, for positive targets, `positive`; its gradients by x and by t.
namespace lamella::detail {

struct SquaredLoss {
  template <class C>
  LAMELLA_HOST_DEVICE static C value(C x, C t, C, C) {
    return (x - t) * (x - t);
  }
  template <class C>
  LAMELLA_HOST_DEVICE static C gradient(C x, C t, C, C) {
    return C(2) * (x - t);
  }
  template <class C>
  LAMELLA_HOST_DEVICE static C target_gradient(C x, C t, C, C) {
    return C(2) * (t - x);
  }
};

struct BinaryCrossEntropyLoss {
  /// log(1 + e^−x) without overflow.
  template <class C>
  LAMELLA_HOST_DEVICE static C softplus_of_minus(C x) {
    return std::log1p(exponential(-std::abs(x))) + (x < C(0) ? -x : C(0));
  }
  template <class C>
  LAMELLA_HOST_DEVICE static C value(C x, C t, C w, C positive) {
    return w * ((C(1) - t) * x + (C(1) + (positive - C(1)) * t) * softplus_of_minus(x));
  }
  template <class C>
  LAMELLA_HOST_DEVICE static C gradient(C x, C t, C w, C positive) {
    // σ(−x), from the side on which e^… is small.
    const C small = exponential(-std::abs(x));
    const C sigmoid_of_minus = (x < C(0) ? C(1) : small) / (C(1) + small);
    return w * ((C(1) - t) - (C(1) + (positive - C(1)) * t) * sigmoid_of_minus);
  }
  template <class C>
  LAMELLA_HOST_DEVICE static C target_gradient(C x, C, C w, C positive) {
    return w * ((positive - C(1)) * softplus_of_minus(x) - x);
  }
};

/// Calls body(formulas) with those of `kind`.
template <class Body>
void with_loss(PointwiseLoss kind, const Body& body) {
  if (kind == PointwiseLoss::Squared)
    body(SquaredLoss{});
  else
    body(BinaryCrossEntropyLoss{});
}

}  // namespace lamella::detail
