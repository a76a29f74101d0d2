#include <cmath>

#include "optim/cpu/walk.h"
#include "optim/kernels.h"

namespace lamella::cpu {

namespace {

template <class T>
double sum_of_squares(const T* x, std::int64_t n) {
  // Several sums side by side, which makes vector code, added in a fixed order.
  constexpr std::int64_t kSums = 16;
  double sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (std::int64_t k = 0; k < kSums; ++k) {
      const double value = static_cast<double>(x[i + k]);
      sums[k] += value * value;
    }
  for (; i < n; ++i) sums[i % kSums] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

template <class Change>
void change(const std::vector<detail::TensorView>& gradients, const Change& change) {
  WalkList list(gradients.size());
  for (const detail::TensorView& gradient : gradients) list.add({gradient}, 1);
  walk(list, [&]<class T>(std::size_t, const std::array<T*, kOperands>& at, std::int64_t n, std::int64_t) {
    change(at[0], n);
  });
}

}  // namespace

void gradient_norm(const std::vector<detail::ConstTensorView>& gradients, const detail::TensorView& norm) {
  WalkList list(gradients.size());
  for (const detail::ConstTensorView& gradient : gradients) list.add({unwritten(gradient)}, 0);
  std::vector<double> partial(static_cast<std::size_t>(list.chunks()));
  walk(list,
       [&]<class T>(std::size_t, const std::array<T*, kOperands>& at, std::int64_t n, std::int64_t chunk) {
         partial[static_cast<std::size_t>(chunk)] += sum_of_squares(at[0], n);
       });
  double total = 0;
  for (const double part : partial) total += part;
  *norm.as<double>() = std::sqrt(total);
}

void scale_gradients(const std::vector<detail::TensorView>& gradients, const double* norm, double max_norm) {
  const double scale = max_norm / (*norm + 1e-6);
  if (scale >= 1) return;  // not so if it is NaN
  change(gradients, [scale]<class T>(T* x, std::int64_t n) {
    const T factor = static_cast<T>(scale);
    for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
  });
}

void limit_gradients(const std::vector<detail::TensorView>& gradients, double limit) {
  change(gradients, [limit]<class T>(T* x, std::int64_t n) {
    const T high = static_cast<T>(limit), low = -high;
    for (std::int64_t i = 0; i < n; ++i) {
      const T value = x[i] < low ? low : x[i];
      x[i] = value > high ? high : value;
    }
  });
}

}  // namespace lamella::cpu
