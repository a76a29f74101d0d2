#include <cmath>

#include "core/parallel.h"
#include "layers/norm/cpu/channel_cut.h"
#include "layers/norm/cpu/channel_sums.h"
#include "layers/norm/cpu/moments.h"
#include "layers/norm/cpu/parameters.h"
#include "layers/norm/kernels.h"

namespace lamella::cpu {

using detail::ChannelLayout;
using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

/// y = (x − center) · scale + shift with three numbers per image and channel.
template <class T>
void apply(const T* x, const ChannelLayout& layout, const std::vector<ComputeType<T>>& factors, T* y) {
  using C = ComputeType<T>;
  const std::int64_t channels = layout.channels, inner = layout.inner, statistics = layout.statistics();
  const C* const center = factors.data();
  const C* const scale = center + statistics;
  const C* const shift = scale + statistics;
  if (layout.channels_last) {
    const std::int64_t rows = layout.segments * inner;
    detail::parallel_for(
        rows, std::max<std::int64_t>(1, kItemElements / (2 * channels)),
        [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t r = begin; r < end; ++r) {
            const std::int64_t at = r / inner * channels;
            for (std::int64_t c = 0; c < channels; ++c)
              y[r * channels + c] = static_cast<T>(
                  (static_cast<C>(x[r * channels + c]) - center[at + c]) * scale[at + c] + shift[at + c]);
          }
        });
    return;
  }
  detail::parallel_for(statistics, std::max<std::int64_t>(1, kItemElements / (2 * inner)),
                       [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t s = begin; s < end; ++s)
                           for (std::int64_t i = s * inner; i < (s + 1) * inner; ++i)
                             y[i] = static_cast<T>((static_cast<C>(x[i]) - center[s]) * scale[s] + shift[s]);
                       });
}

}  // namespace

void group_norm_forward(const ConstTensorView& x, const ChannelLayout& layout, std::int64_t groups,
                        const ConstTensorView& weight, const ConstTensorView& bias, double eps,
                        const TensorView& y, const TensorView& statistics) {
  const std::int64_t channels = layout.channels, together = channels / groups,
                     all_groups = layout.segments * groups;
  const auto n = static_cast<std::size_t>(layout.statistics());
  std::vector<double> mean(n), m2(n);
  channel_moments(x, layout, mean.data(), m2.data());
  double* const group_mean = statistics.as<double>();
  double* const group_inverse = group_mean + all_groups;
  const auto inner = static_cast<double>(layout.inner);
  for (std::int64_t k = 0; k < all_groups; ++k) {
    Moments moments;
    for (std::int64_t s = k * together; s < (k + 1) * together; ++s)
      moments.merge({inner, mean[static_cast<std::size_t>(s)], m2[static_cast<std::size_t>(s)]});
    group_mean[k] = moments.mean;
    group_inverse[k] = 1 / std::sqrt((moments.count > 0 ? moments.m2 / moments.count : 0) + eps);
  }
  const std::vector<double> w = load_parameter(weight, channels, 1), b = load_parameter(bias, channels, 0);
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    std::vector<C> factors(3 * n);
    for (std::size_t s = 0; s < n; ++s) {
      const auto k = static_cast<std::int64_t>(s) / together;
      const auto c = static_cast<std::size_t>(static_cast<std::int64_t>(s) % channels);
      const C center = static_cast<C>(group_mean[k]);
      const double scale = w[c] * group_inverse[k];
      factors[s] = center;
      factors[n + s] = static_cast<C>(scale);
      factors[2 * n + s] = static_cast<C>(b[c] + (static_cast<double>(center) - group_mean[k]) * scale);
    }
    apply(x.as<T>(), layout, factors, y.as<T>());
  });
}

void group_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         std::int64_t groups, const ConstTensorView& weight,
                         const ConstTensorView& statistics, const TensorView& sums, const TensorView& dx,
                         GradientWrite write) {
  const std::int64_t channels = layout.channels, together = channels / groups,
                     all_groups = layout.segments * groups;
  const auto n = static_cast<std::size_t>(layout.statistics());
  const double* const group_mean = statistics.as<double>();
  const double* const group_inverse = group_mean + all_groups;
  const std::vector<double> w = load_parameter(weight, channels, 1);
  std::vector<double> mean(n), sum(n), product(n), a(n), p(n), q(n);
  for (std::size_t s = 0; s < n; ++s) mean[s] = group_mean[static_cast<std::int64_t>(s) / together];
  ChannelGradient gradient{mean.data(), sum.data(), product.data(), a.data(), p.data(), q.data(),
                           {},          {},         false};
  gradient.coefficients = [&](std::int64_t first, std::int64_t last) {
    const double count = static_cast<double>(together * layout.inner);
    for (std::int64_t k = first / together; k < last / together; ++k) {
      double group_sum = 0, group_product = 0;
      const std::int64_t from = k * together;
      for (std::int64_t s = from; s < from + together; ++s) {
        const auto i = static_cast<std::size_t>(s), c = static_cast<std::size_t>(s % channels);
        product[i] *= group_inverse[k];
        group_sum += w[c] * sum[i];
        group_product += w[c] * product[i];
      }
      for (std::int64_t s = from; s < from + together; ++s) {
        const auto i = static_cast<std::size_t>(s), c = static_cast<std::size_t>(s % channels);
        a[i] = w[c] * group_inverse[k];
        p[i] = -group_inverse[k] * group_inverse[k] * group_product / count;
        q[i] = -group_inverse[k] * group_sum / count;
      }
    }
  };
  channel_gradient(grad, x, layout, gradient, dx, write);
  double* const total = sums.as<double>();
  std::fill_n(total, 2 * channels, 0.0);
  for (std::size_t s = 0; s < n; ++s) {
    const auto c = static_cast<std::int64_t>(s) % channels;
    total[c] += sum[s];
    total[channels + c] += product[s];
  }
}

}  // namespace lamella::cpu
