#include "layers/norm/cpu/slope.h"

#include <algorithm>

#include "core/check.h"

namespace lamella::cpu {

using detail::ActivationKind;
using detail::ActivationOp;
using detail::PendingActivation;

namespace {

ActivationOp op_of(PendingActivation activation) {
  switch (activation) {
    case PendingActivation::Relu:
      return {ActivationKind::Relu};
    case PendingActivation::Relu6:
      return {ActivationKind::Relu6};
    case PendingActivation::Hardswish:
      return {ActivationKind::Hardswish};
    case PendingActivation::Silu:
      return {ActivationKind::Silu};
    case PendingActivation::None:
      break;
  }
  throw Error("batch_norm: there is no activation to go back through");
}

/// body(function) for the activations that may be left pending.
template <class Body>
void visit(const ActivationOp& op, const Body& body) {
  detail::visit_activation(op, [&](auto f) {
    if constexpr (decltype(f)::kFuses) body(f);
  });
}

}  // namespace

template <class T>
Slope<T>::Slope(const detail::ActivationSlope& slope, std::int64_t channels, std::int64_t side)
    : op_(op_of(slope.activation)) {
  const C* const scale = static_cast<const C*>(slope.scale);
  const C* const shift = static_cast<const C*>(slope.shift);
  for (std::int64_t pixel = 0; pixel < side; ++pixel) {
    scale_.insert(scale_.end(), scale, scale + channels);
    shift_.insert(shift_.end(), shift, shift + channels);
  }
}

template <class T>
void Slope<T>::pixels(const T* g, const T* x, T* out, std::int64_t n) const {
  const auto lanes = static_cast<std::int64_t>(scale_.size());
  visit(op_, [&](auto f) {
    const C* const scale = scale_.data();
    const C* const shift = shift_.data();
    for (std::int64_t at = 0; at < n; at += lanes) {
      const std::int64_t width = std::min(lanes, n - at);
      const T* const from = g + at;
      const T* const values = x + at;
      T* __restrict const to = out + at;
      for (std::int64_t l = 0; l < width; ++l)
        to[l] = static_cast<T>(
            f.gradient(static_cast<C>(from[l]), static_cast<C>(values[l]) * scale[l] + shift[l]));
    }
  });
}

template <class T>
void Slope<T>::plane(const T* g, const T* x, T* __restrict out, std::int64_t n, std::int64_t channel) const {
  const C scale = scale_[static_cast<std::size_t>(channel)],
          shift = shift_[static_cast<std::size_t>(channel)];
  visit(op_, [&](auto f) {
    for (std::int64_t i = 0; i < n; ++i)
      out[i] = static_cast<T>(f.gradient(static_cast<C>(g[i]), static_cast<C>(x[i]) * scale + shift));
  });
}

template class Slope<float>;
template class Slope<double>;
template class Slope<BFloat16>;
template class Slope<Float16>;

}  // namespace lamella::cpu
