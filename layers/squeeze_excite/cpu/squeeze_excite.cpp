#include <algorithm>

#include "core/parallel.h"
#include "layers/activation/functions.h"
#include "layers/squeeze_excite/kernels.h"
#include "tensor/dispatch.h"

// Plane by plane, for any strides: a CPU gains nothing by this operator, which is here to say what it
// computes.
namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::Gate;
using detail::GradientWrite;
using detail::PendingActivation;
using detail::PendingView;
using detail::TensorView;

namespace {

/// The activation that x owes, and its slope times g.
template <class C>
struct Owed {
  PendingActivation activation;

  C value(C z) const {
    switch (activation) {
      case PendingActivation::Relu:
        return detail::relu_value(z);
      case PendingActivation::Relu6:
        return detail::relu6_value(z);
      case PendingActivation::Hardswish:
        return detail::hardswish_value(z);
      case PendingActivation::Silu:
        return detail::silu_value(z);
      case PendingActivation::None:
        break;
    }
    return z;
  }
  C slope(C g, C z) const {
    switch (activation) {
      case PendingActivation::Relu:
        return detail::Relu().gradient(g, detail::relu_value(z));
      case PendingActivation::Relu6:
        return detail::Relu6().gradient(g, detail::relu6_value(z));
      case PendingActivation::Hardswish:
        return detail::Hardswish().gradient(g, z);
      case PendingActivation::Silu:
        return detail::Silu().gradient(g, z);
      case PendingActivation::None:
        break;
    }
    return g;
  }
};

template <class View>
std::int64_t offset(const View& view, std::int64_t n, std::int64_t c, std::int64_t pixel) {
  const std::int64_t width = view.shape[3];
  return n * view.strides[0] + c * view.strides[1] + pixel / width * view.strides[2] +
         pixel % width * view.strides[3];
}

/// One plane of x.
template <class T>
struct Plane {
  using C = ComputeType<T>;
  Plane(const PendingView& x, std::int64_t n, std::int64_t c)
      : x(x.stored),
        n(n),
        c(c),
        scale(x.scale != nullptr ? static_cast<const C*>(x.scale)[c] : C(1)),
        shift(x.shift != nullptr ? static_cast<const C*>(x.shift)[c] : C(0)),
        owed{x.activation} {}

  C stored(std::int64_t pixel) const { return static_cast<C>(x.as<T>()[offset(x, n, c, pixel)]); }
  C before(std::int64_t pixel) const { return stored(pixel) * scale + shift; }
  C value(std::int64_t pixel) const { return owed.value(before(pixel)); }

  const ConstTensorView& x;
  std::int64_t n, c;
  C scale, shift;
  Owed<C> owed;
};

/// body(tag, n, c) for every plane of x.
template <class Body>
void each_plane(const ConstTensorView& x, const Body& body) {
  const std::int64_t channels = x.shape[1];
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    detail::parallel_for(channels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = begin; c < end; ++c)
        for (std::int64_t n = 0; n < x.shape[0]; ++n) body(tag, n, c);
    });
  });
}

template <class T, class C>
void put(T& to, C value, GradientWrite write) {
  to = static_cast<T>(write == GradientWrite::Accumulate ? value + static_cast<C>(to) : value);
}

}  // namespace

void squeeze_forward(const PendingView& x, const TensorView& means) {
  const std::int64_t pixels = x.stored.shape[2] * x.stored.shape[3];
  each_plane(x.stored, [&](auto tag, std::int64_t n, std::int64_t c) {
    using T = typename decltype(tag)::type;
    const Plane<T> plane(x, n, c);
    double sum = 0;
    for (std::int64_t i = 0; i < pixels; ++i) sum += static_cast<double>(plane.value(i));
    put(means.as<T>()[n * x.stored.shape[1] + c],
        static_cast<ComputeType<T>>(sum / static_cast<double>(pixels)), GradientWrite::Overwrite);
  });
}

void excite_forward(const PendingView& x, const ConstTensorView& gate, Gate f, const TensorView& y) {
  const std::int64_t pixels = x.stored.shape[2] * x.stored.shape[3];
  each_plane(x.stored, [&](auto tag, std::int64_t n, std::int64_t c) {
    using T = typename decltype(tag)::type;
    const Plane<T> plane(x, n, c);
    const auto factor =
        detail::gate_value(f, static_cast<ComputeType<T>>(gate.as<T>()[n * x.stored.shape[1] + c]));
    for (std::int64_t i = 0; i < pixels; ++i)
      put(y.as<T>()[offset(y, n, c, i)], plane.value(i) * factor, GradientWrite::Overwrite);
  });
}

void excite_backward(const ConstTensorView& grad, const PendingView& x, const ConstTensorView& gate, Gate f,
                     const TensorView& grad_gate, GradientWrite write) {
  const std::int64_t pixels = x.stored.shape[2] * x.stored.shape[3];
  each_plane(x.stored, [&](auto tag, std::int64_t n, std::int64_t c) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Plane<T> plane(x, n, c);
    double sum = 0;
    for (std::int64_t i = 0; i < pixels; ++i)
      sum += static_cast<double>(static_cast<C>(grad.as<T>()[offset(grad, n, c, i)]) * plane.value(i));
    const std::int64_t at = n * x.stored.shape[1] + c;
    put(grad_gate.as<T>()[at],
        detail::gate_gradient(f, static_cast<C>(sum), static_cast<C>(gate.as<T>()[at])), write);
  });
}

void squeeze_backward(const ConstTensorView& grad, const ConstTensorView& gate, Gate f,
                      const ConstTensorView& grad_means, const PendingView& x, const TensorView& dx,
                      GradientWrite write, detail::LeftParts* sums) {
  const std::int64_t images = x.stored.shape[0], channels = x.stored.shape[1],
                     pixels = x.stored.shape[2] * x.stored.shape[3];
  const DType compute = x.stored.dtype == DType::Float64 ? DType::Float64 : DType::Float32;
  void* const left = sums != nullptr ? sums->take(compute, images, 2) : nullptr;
  each_plane(x.stored, [&](auto tag, std::int64_t n, std::int64_t c) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Plane<T> plane(x, n, c);
    const auto number = [&](const ConstTensorView& view) {
      return view.data != nullptr ? static_cast<C>(view.as<T>()[n * channels + c]) : C(0);
    };
    const C factor = detail::gate_value(f, number(gate)),
            constant = number(grad_means) / static_cast<C>(pixels);
    const C center = x.center != nullptr ? static_cast<const C*>(x.center)[c] : C(0);
    double sum = 0, product = 0;
    for (std::int64_t i = 0; i < pixels; ++i) {
      const C given = grad.data != nullptr ? static_cast<C>(grad.as<T>()[offset(grad, n, c, i)]) : C(0);
      C g = given * factor + constant;
      if (left != nullptr) {
        g = plane.owed.slope(g, plane.before(i));
        sum += static_cast<double>(g);
        product += static_cast<double>(g * (plane.stored(i) - center));
      }
      put(dx.as<T>()[offset(dx, n, c, i)], g, write);
    }
    if (left == nullptr) return;
    C* const to = static_cast<C*>(left) + n * 2 * channels + c;
    to[0] = static_cast<C>(sum);
    to[channels] = static_cast<C>(product);
  });
}

}  // namespace lamella::cpu
