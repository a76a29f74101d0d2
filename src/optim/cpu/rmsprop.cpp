#include <cmath>

#include "optim/cpu/update_list.h"

namespace lamella::cpu {

namespace {

template <class T>
struct Constants {
  T lr, keep, take, eps, decay, momentum;
};

template <bool Momentum, bool Centered, bool Inside, class T>
void rmsprop(T* __restrict p, T* __restrict s, T* __restrict b, T* __restrict a, const T* __restrict g,
             std::int64_t n, const Constants<T> c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T grad = c.decay != 0 ? g[i] + c.decay * p[i] : g[i];
    const T square = c.keep * s[i] + c.take * grad * grad;
    s[i] = square;
    T spread = square;
    if constexpr (Centered) {
      const T mean = c.keep * a[i] + c.take * grad;
      a[i] = mean;
      spread -= mean * mean;
      spread = spread < 0 ? T(0) : spread;
    }
    T change = grad / (Inside ? std::sqrt(spread + c.eps) : std::sqrt(spread) + c.eps);
    if constexpr (Momentum) {
      change += c.momentum * b[i];
      b[i] = change;
    }
    p[i] -= c.lr * change;
  }
}

template <bool Momentum, bool Centered>
void run(const ParamUpdates& updates, double lr, const RmspropSettings& settings) {
  walk(walk_list(updates),
       [&]<class T>(std::size_t, const std::array<T*, kOperands>& at, std::int64_t n, std::int64_t) {
         const Constants<T> c{.lr = static_cast<T>(lr),
                              .keep = static_cast<T>(settings.alpha),
                              .take = static_cast<T>(1 - settings.alpha),
                              .eps = static_cast<T>(settings.eps),
                              .decay = static_cast<T>(settings.weight_decay),
                              .momentum = static_cast<T>(settings.momentum)};
         T *const b = at[kState + 1], *const a = at[kState + (Momentum ? 2 : 1)];
         if (settings.eps_inside_sqrt)
           rmsprop<Momentum, Centered, true>(at[kParam], at[kState], b, a, at[kGrad], n, c);
         else
           rmsprop<Momentum, Centered, false>(at[kParam], at[kState], b, a, at[kGrad], n, c);
       });
}

}  // namespace

void rmsprop_step(const ParamUpdates& updates, const double* lr, const std::int32_t* skip,
                  const RmspropSettings& settings) {
  if (is_set(skip)) return;
  if (settings.momentum > 0)
    settings.centered ? run<true, true>(updates, *lr, settings) : run<true, false>(updates, *lr, settings);
  else
    settings.centered ? run<false, true>(updates, *lr, settings) : run<false, false>(updates, *lr, settings);
}

}  // namespace lamella::cpu
