// The activations' kernels of every backend: see tensor/elementwise-inl.h.
#include "core/check.h"
#include "layers/activation/kernels.h"
#include "tensor/pending_factors-inl.h"

namespace lamella::LAMELLA_BACKEND {

using detail::ActivationOp;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PendingView;
using detail::TensorView;

void activation_forward(const ActivationOp& op, const ConstTensorView& x, const TensorView& y) {
  visit_activation(op, [&](auto f) {
    using F = std::remove_cvref_t<decltype(f)>;
    dispatch_compute_floating(y.dtype, [&](auto tag) {
      map_each<typename decltype(tag)::type>(y, GradientWrite::Overwrite, detail::Forward<F>{f}, x);
    });
  });
}

void activation_backward(const ActivationOp& op, const ConstTensorView& g, const PendingView& saved,
                         const TensorView& dx, GradientWrite write) {
  if (saved.scale == nullptr && saved.shift == nullptr) {
    visit_activation(op, [&](auto f) {
      using F = std::remove_cvref_t<decltype(f)>;
      dispatch_compute_floating(dx.dtype, [&](auto tag) {
        map_each<typename decltype(tag)::type>(dx, write, detail::Backward<F>{f}, g, saved.stored);
      });
    });
    return;
  }
  const PendingFactors factors = factors_of(saved);
  visit_activation(op, [&](auto f) {
    using F = std::remove_cvref_t<decltype(f)>;
    if constexpr (F::kFuses) {
      dispatch_compute_floating(dx.dtype, [&](auto tag) {
        map_each<typename decltype(tag)::type>(dx, write, detail::Backward<F>{f}, g, saved.stored,
                                               factors.scale, factors.shift);
      });
    } else {
      throw Error("activation_backward: a pending tensor for an activation that cannot be left pending");
    }
  });
}

}  // namespace lamella::LAMELLA_BACKEND
