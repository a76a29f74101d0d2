#include <cmath>

#include "optim/cpu/update_list.h"

namespace lamella::cpu {

namespace {

/// What is the same for all elements of a parameter.
template <class T>
struct Constants {
  T shrink;  ///< what decoupled decay leaves of the parameter
  T decay;   ///< what goes into the gradient
  T keep1, take1, keep2, take2;
  T rate;        ///< lr / (1 − β1^t)
  T root_scale;  ///< 1 / √(1 − β2^t)
  T eps;
};

template <class T>
Constants<T> constants(const AdamSettings& settings, double lr, std::int64_t step) {
  const double t = static_cast<double>(step);
  return {.shrink = static_cast<T>(settings.decoupled ? 1 - lr * settings.weight_decay : 1),
          .decay = static_cast<T>(settings.decoupled ? 0 : settings.weight_decay),
          .keep1 = static_cast<T>(settings.beta1),
          .take1 = static_cast<T>(1 - settings.beta1),
          .keep2 = static_cast<T>(settings.beta2),
          .take2 = static_cast<T>(1 - settings.beta2),
          .rate = static_cast<T>(lr / (1 - std::pow(settings.beta1, t))),
          .root_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(settings.beta2, t))),
          .eps = static_cast<T>(settings.eps)};
}

template <bool Amsgrad, class T>
void adam(T* __restrict p, T* __restrict m, T* __restrict v, T* __restrict largest, const T* __restrict g,
          std::int64_t n, const Constants<T> c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T param = p[i] * c.shrink;
    const T grad = c.decay != 0 ? g[i] + c.decay * param : g[i];
    const T mean = c.keep1 * m[i] + c.take1 * grad;
    T square = c.keep2 * v[i] + c.take2 * grad * grad;
    m[i] = mean;
    v[i] = square;
    if constexpr (Amsgrad) {
      // A NaN stays one.
      square = largest[i] > square ? largest[i] : square;
      largest[i] = square;
    }
    p[i] = param - c.rate * (mean / (std::sqrt(square) * c.root_scale + c.eps));
  }
}

}  // namespace

void adam_step(const ParamUpdates& updates, const double* lr, const std::int32_t* skip,
               const AdamSettings& settings) {
  if (is_set(skip)) return;
  const double rate = *lr;
  walk(walk_list(updates),
       [&]<class T>(std::size_t item, const std::array<T*, kOperands>& at, std::int64_t n, std::int64_t) {
         const Constants<T> c = constants<T>(settings, rate, *updates[item].step);
         if (settings.amsgrad)
           adam<true>(at[kParam], at[kState], at[kState + 1], at[kState + 2], at[kGrad], n, c);
         else
           adam<false, T>(at[kParam], at[kState], at[kState + 1], nullptr, at[kGrad], n, c);
       });
}

}  // namespace lamella::cpu
