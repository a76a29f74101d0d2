#include <cmath>

#include "optim/adam_constants.h"
#include "optim/cpu/update_list.h"

namespace lamella::cpu {

using detail::AdamConstants;

namespace {

template <bool Amsgrad, class T>
void adam(T* __restrict p, T* __restrict m, T* __restrict v, T* __restrict largest, const T* __restrict g,
          std::int64_t n, const AdamConstants<T> c) {
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
         const AdamConstants<T> c = detail::adam_constants<T>(settings, rate, *updates[item].step);
         if (settings.amsgrad)
           adam<true>(at[kParam], at[kState], at[kState + 1], at[kState + 2], at[kGrad], n, c);
         else
           adam<false, T>(at[kParam], at[kState], at[kState + 1], nullptr, at[kGrad], n, c);
       });
}

}  // namespace lamella::cpu
