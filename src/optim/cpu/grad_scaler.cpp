#include <atomic>
#include <cmath>

#include "optim/adapt.h"
#include "optim/cpu/walk.h"
#include "optim/kernels.h"

namespace lamella::cpu {

void unscale_gradients(const std::vector<detail::TensorView>& gradients, const float* scale,
                       std::int32_t* found) {
  const double inverse = 1.0 / static_cast<double>(*scale);
  WalkList list(gradients.size());
  for (const detail::TensorView& gradient : gradients) list.add({gradient}, 1);
  std::atomic<bool> any = false;
  walk(list, [&]<class T>(std::size_t, const std::array<T*, kOperands>& at, std::int64_t n, std::int64_t) {
    T* const x = at[0];
    const T factor = static_cast<T>(inverse);
    bool bad = false;
    for (std::int64_t i = 0; i < n; ++i) {
      x[i] *= factor;
      bad |= !std::isfinite(x[i]);
    }
    if (bad) any.store(true, std::memory_order_relaxed);
  });
  if (any) *found = 1;
}

void update_scale(const detail::ScalerState& state, const detail::ScalerSettings& settings) {
  detail::adapt(state, settings);
}

}  // namespace lamella::cpu
