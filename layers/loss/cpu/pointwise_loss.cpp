#include <vector>

#include "core/parallel.h"
#include "layers/loss/functions.h"
#include "layers/loss/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PointwiseLoss;
using detail::PointwiseOperands;
using detail::TensorView;

namespace {

constexpr std::int64_t kLanes = 8;  // sums side by side, so that they need not wait for each other

template <class T>
struct Elements {
  using C = ComputeType<T>;
  explicit Elements(const PointwiseOperands& from)
      : x(from.x.as<T>()),
        target(from.target.as<T>()),
        weight(from.weight.as<C>()),
        positive(from.pos_weight.as<C>()) {}
  /// f(x, target, weight, pos_weight) of element i.
  template <class F>
  C apply(const F& f, std::int64_t i) const {
    return f(static_cast<C>(x[i]), static_cast<C>(target[i]), weight ? weight[i] : C(1),
             positive ? positive[i] : C(1));
  }
  const T* x;
  const T* target;
  const C* weight;
  const C* positive;
};

}  // namespace

void pointwise_loss_forward(PointwiseLoss kind, const PointwiseOperands& operands, Reduction reduction,
                            const TensorView& loss) {
  const std::int64_t n = operands.x.numel();
  std::vector<double> partial(static_cast<std::size_t>((n + kElementGrain - 1) / kElementGrain));
  detail::dispatch_floating(operands.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Elements<T> elements(operands);
    detail::with_loss(kind, [&](auto formula) {
      const auto value = [](C x, C t, C w, C p) { return decltype(formula)::value(x, t, w, p); };
      detail::parallel_for(n, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        if (reduction == Reduction::None) {
          for (std::int64_t i = begin; i < end; ++i)
            loss.as<T>()[i] = static_cast<T>(elements.apply(value, i));
          return;
        }
        double lanes[kLanes] = {};
        std::int64_t i = begin;
        for (; i + kLanes <= end; i += kLanes)
          for (std::int64_t l = 0; l < kLanes; ++l)
            lanes[l] += static_cast<double>(elements.apply(value, i + l));
        for (std::int64_t l = 0; i < end; ++i, ++l) lanes[l] += static_cast<double>(elements.apply(value, i));
        double total = 0;
        for (const double lane : lanes) total += lane;
        partial[static_cast<std::size_t>(begin / kElementGrain)] = total;
      });
    });
    if (reduction == Reduction::None) return;
    double total = 0;
    for (const double part : partial) total += part;
    if (reduction == Reduction::Mean) total /= static_cast<double>(n);
    *loss.as<T>() = static_cast<T>(static_cast<C>(total));
  });
}

void pointwise_loss_backward(PointwiseLoss kind, const PointwiseOperands& operands, Reduction reduction,
                             const ConstTensorView& grad, bool of_target, const TensorView& to,
                             GradientWrite write) {
  const std::int64_t n = operands.x.numel();
  detail::dispatch_floating(operands.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    const Elements<T> elements(operands);
    detail::with_loss(kind, [&](auto formula) {
      using Formula = decltype(formula);
      const auto derivative = [of_target](C x, C t, C w, C p) {
        return of_target ? Formula::target_gradient(x, t, w, p) : Formula::gradient(x, t, w, p);
      };
      detail::parallel_for(n, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        const bool each = reduction == Reduction::None;
        const C divisor = reduction == Reduction::Mean ? static_cast<C>(n) : C(1);
        for (std::int64_t i = begin; i < end; ++i) {
          const C g = static_cast<C>(grad.as<T>()[each ? i : 0]) / divisor;
          const C value = g * elements.apply(derivative, i);
          T& at = to.as<T>()[i];
          at = static_cast<T>(write == GradientWrite::Accumulate ? value + static_cast<C>(at) : value);
        }
      });
    });
  });
}

}  // namespace lamella::cpu
