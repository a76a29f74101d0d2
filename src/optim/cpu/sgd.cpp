#include "optim/cpu/update_list.h"

namespace lamella::cpu {

namespace {

template <class T>
void sgd(T* __restrict p, const T* __restrict g, std::int64_t n, T lr, T decay) {
  if (decay != 0)
    for (std::int64_t i = 0; i < n; ++i) p[i] -= lr * (g[i] + decay * p[i]);
  else
    for (std::int64_t i = 0; i < n; ++i) p[i] -= lr * g[i];
}

/// `keep` and `take` are what v keeps of itself and takes of the gradient.
template <class T>
void sgd_momentum(T* __restrict p, T* __restrict v, const T* __restrict g, std::int64_t n, T lr, T decay,
                  T keep, T take, bool first, bool nesterov) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T grad = decay != 0 ? g[i] + decay * p[i] : g[i];
    const T velocity = first ? grad : keep * v[i] + take * grad;
    v[i] = velocity;
    p[i] -= lr * (nesterov ? grad + keep * velocity : velocity);
  }
}

}  // namespace

void advance_steps(const std::vector<std::int64_t*>& steps, const std::int32_t* skip) {
  if (is_set(skip)) return;
  for (std::int64_t* const step : steps) ++*step;
}

void sgd_step(const ParamUpdates& updates, const double* lr, const std::int32_t* skip,
              const SgdSettings& settings) {
  if (is_set(skip)) return;
  const double rate = *lr;
  walk(walk_list(updates),
       [&]<class T>(std::size_t item, const std::array<T*, kOperands>& at, std::int64_t n, std::int64_t) {
         const T decay = static_cast<T>(settings.weight_decay);
         if (at[kState] == nullptr)
           sgd(at[kParam], at[kGrad], n, static_cast<T>(rate), decay);
         else
           sgd_momentum(at[kParam], at[kState], at[kGrad], n, static_cast<T>(rate), decay,
                        static_cast<T>(settings.momentum), static_cast<T>(1 - settings.dampening),
                        *updates[item].step == 1, settings.nesterov);
       });
}

}  // namespace lamella::cpu
