#include "layers/activation/cpu/activation.h"

#include "core/check.h"
#include "tensor/cpu/map.h"
#include "tensor/cpu/pending_map.h"

namespace lamella::cpu {

using detail::ActivationOp;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PendingView;
using detail::TensorView;

void activation_forward(const ActivationOp& op, const ConstTensorView& x, const TensorView& y) {
  visit_activation(op, [&](auto f) {
    const auto forward = [f](auto value) { return f.forward(value); };
    dispatch_compute_floating(y.dtype, [&](auto tag) {
      map_each<typename decltype(tag)::type>(y, GradientWrite::Overwrite, forward, x);
    });
  });
}

void activation_backward(const ActivationOp& op, const ConstTensorView& g, const PendingView& saved,
                         const TensorView& dx, GradientWrite write) {
  if (saved.scale == nullptr && saved.shift == nullptr) {
    visit_activation(op, [&](auto f) {
      const auto gradient = [f](auto a, auto s) { return f.gradient(a, s); };
      dispatch_compute_floating(dx.dtype, [&](auto tag) {
        map_each<typename decltype(tag)::type>(dx, write, gradient, g, saved.stored);
      });
    });
    return;
  }
  const PendingFactors factors = factors_of(saved);
  visit_activation(op, [&](auto f) {
    if constexpr (decltype(f)::kFuses) {
      const auto gradient = [f](auto a, auto s, auto by, auto plus) { return f.gradient(a, s * by + plus); };
      dispatch_compute_floating(dx.dtype, [&](auto tag) {
        map_each<typename decltype(tag)::type>(dx, write, gradient, g, saved.stored, factors.scale,
                                               factors.shift);
      });
    } else {
      throw Error("activation_backward: a pending tensor for an activation that cannot be left pending");
    }
  });
}

}  // namespace lamella::cpu
