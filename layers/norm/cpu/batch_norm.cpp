#include <cmath>
#include <vector>

#include "layers/norm/cpu/channel_sums.h"
#include "layers/norm/cpu/parameters.h"
#include "layers/norm/kernels.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ChannelLayout;
using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

void move_running(const TensorView& running, double momentum, const double* batch, double factor) {
  if (running.data == nullptr) return;
  detail::dispatch_floating(running.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    for (std::int64_t c = 0; c < running.shape[0]; ++c) {
      T& at = running.as<T>()[c * running.strides[0]];
      at = static_cast<T>(static_cast<C>((1 - momentum) * static_cast<double>(static_cast<C>(at)) +
                                         momentum * batch[c] * factor));
    }
  });
}

}  // namespace

void batch_norm_statistics(const ConstTensorView& x, const ChannelLayout& layout, double eps, double momentum,
                           const TensorView& statistics, const TensorView& running_mean,
                           const TensorView& running_var) {
  double* const mean = statistics.as<double>();
  double* const spread = mean + layout.channels;
  channel_moments(x, layout, mean, spread);
  const auto count = static_cast<double>(layout.count());
  if (count > 0) {
    move_running(running_mean, momentum, mean, 1);
    move_running(running_var, momentum, spread, 1 / (count - 1));
  }
  for (std::int64_t c = 0; c < layout.channels; ++c)
    spread[c] = 1 / std::sqrt((count > 0 ? spread[c] / count : 0) + eps);
}

void batch_norm_statistics_of(const ConstTensorView& moments, std::int64_t count, double eps, double momentum,
                              const TensorView& statistics, const TensorView& running_mean,
                              const TensorView& running_var) {
  const std::int64_t channels = statistics.shape[1];
  const ConstTensorView row{moments.data, {2 * channels}, {1}, moments.dtype, moments.device};
  const std::vector<double> both = load_parameter(row, 2 * channels, 0);
  const double* const mean = both.data();
  const double* const variance = mean + channels;
  const auto n = static_cast<double>(count);
  move_running(running_mean, momentum, mean, 1);
  move_running(running_var, momentum, variance, n / (n - 1));
  for (std::int64_t c = 0; c < channels; ++c) {
    statistics.as<double>()[c] = mean[c];
    statistics.as<double>()[channels + c] = 1 / std::sqrt(variance[c] + eps);
  }
}

void batch_norm_running_statistics(const ConstTensorView& running_mean, const ConstTensorView& running_var,
                                   double eps, const TensorView& statistics) {
  const std::int64_t channels = statistics.shape[1];
  const std::vector<double> mean = load_parameter(running_mean, channels, 0);
  const std::vector<double> var = load_parameter(running_var, channels, 1);
  for (std::int64_t c = 0; c < channels; ++c) {
    statistics.as<double>()[c] = mean[static_cast<std::size_t>(c)];
    statistics.as<double>()[channels + c] = 1 / std::sqrt(var[static_cast<std::size_t>(c)] + eps);
  }
}

void batch_norm_affine(const ConstTensorView& statistics, const ConstTensorView& weight,
                       const ConstTensorView& bias, const TensorView& scale, const TensorView& shift,
                       const TensorView& center) {
  const std::int64_t channels = statistics.shape[1];
  const std::vector<double> w = load_parameter(weight, channels, 1), b = load_parameter(bias, channels, 0);
  const double* const mean = statistics.as<double>();
  detail::dispatch_floating(scale.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const auto rounded = static_cast<C>(w[i] * mean[channels + c]);
      scale.as<T>()[c] = static_cast<T>(rounded);
      shift.as<T>()[c] = static_cast<T>(static_cast<C>(b[i] - mean[c] * static_cast<double>(rounded)));
      if (center.data != nullptr) center.as<T>()[c] = static_cast<T>(static_cast<C>(mean[c]));
    }
  });
}

void batch_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         const ConstTensorView& statistics, const ConstTensorView& weight, bool training,
                         const ConstTensorView& /*known*/, const TensorView& sums, const TensorView& dx,
                         GradientWrite write, const detail::ActivationSlope& slope) {
  const std::int64_t channels = layout.channels;
  const auto n = static_cast<std::size_t>(channels);
  const std::vector<double> w = load_parameter(weight, channels, 1);
  const double* const mean = statistics.as<double>();
  const double* const inverse = mean + channels;
  double* const sum = sums.as<double>();
  double* const product = sum + channels;
  std::vector<double> a(n), p(n), q(n);
  const auto count = static_cast<double>(layout.count());
  ChannelGradient gradient{mean, sum, product, a.data(), p.data(), q.data(), {}, slope};
  gradient.coefficients = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c) {
      const auto i = static_cast<std::size_t>(c);
      product[c] *= inverse[c];  // Σ g · x̂
      a[i] = w[i] * inverse[c];
      if (!training) continue;
      p[i] = -a[i] * product[c] * inverse[c] / count;
      q[i] = -a[i] * sum[c] / count;
    }
  };
  channel_gradient(grad, x, layout, gradient, dx, write);
}

}  // namespace lamella::cpu
