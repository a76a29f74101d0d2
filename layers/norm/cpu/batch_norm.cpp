#include <algorithm>
#include <cmath>
#include <vector>

#include "layers/norm/cpu/channel_sums.h"
#include "layers/norm/cpu/parameters.h"
#include "layers/norm/kernels.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::BatchNormForward;
using detail::ChannelLayout;
using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::NormParameterGradients;
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

/// What is left once statistics hold mean and variance.
void finish(const BatchNormForward& norm) {
  const std::int64_t channels = norm.statistics.shape[1];
  const std::vector<double> w = load_parameter(norm.weight, channels, 1),
                            b = load_parameter(norm.bias, channels, 0);
  const double* const mean = norm.statistics.as<double>();
  double* const spread = norm.statistics.as<double>() + channels;
  if (norm.tracked.data != nullptr) ++*norm.tracked.as<std::int64_t>();
  detail::dispatch_floating(norm.scale.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    for (std::int64_t c = 0; c < channels; ++c) {
      const auto i = static_cast<std::size_t>(c);
      spread[c] = 1 / std::sqrt(spread[c] + norm.eps);
      const auto rounded = static_cast<C>(w[i] * spread[c]);
      norm.scale.as<T>()[c] = static_cast<T>(rounded);
      norm.shift.as<T>()[c] = static_cast<T>(static_cast<C>(b[i] - mean[c] * static_cast<double>(rounded)));
      if (norm.center.data != nullptr) norm.center.as<T>()[c] = static_cast<T>(static_cast<C>(mean[c]));
    }
  });
}

/// The same once they hold mean and M2.
void finish_moments(const BatchNormForward& norm, std::int64_t numbers) {
  double* const mean = norm.statistics.as<double>();
  const std::int64_t channels = norm.statistics.shape[1];
  double* const spread = mean + channels;
  const auto count = static_cast<double>(numbers);
  if (numbers > 0) {
    move_running(norm.running_mean, norm.momentum, mean, 1);
    move_running(norm.running_var, norm.momentum, spread, 1 / (count - 1));
  }
  for (std::int64_t c = 0; c < channels; ++c) spread[c] = numbers > 0 ? spread[c] / count : 0;
  finish(norm);
}

}  // namespace

void batch_norm_statistics(const ConstTensorView& x, const ChannelLayout& layout,
                           const BatchNormForward& norm) {
  double* const mean = norm.statistics.as<double>();
  channel_moments(x, layout, mean, mean + layout.channels);
  finish_moments(norm, layout.count());
}

void batch_norm_statistics_of(const ConstTensorView& parts, std::int64_t of_part, std::int64_t count,
                              const BatchNormForward& norm) {
  const std::int64_t channels = norm.statistics.shape[1], numbers = parts.shape[1];
  const ConstTensorView row{
      parts.data, {parts.numel()}, {1}, parts.dtype, parts.device};  // without gaps, in some order
  const std::vector<double> all = load_parameter(row, parts.numel(), 0);
  double* const mean = norm.statistics.as<double>();
  double* const m2 = mean + channels;
  for (std::int64_t c = 0; c < channels; ++c) {
    const auto number = [&](std::int64_t part, std::int64_t i) {
      return all[static_cast<std::size_t>(part * parts.strides[0] + (numbers - 2 + i) * parts.strides[1] +
                                          c * parts.strides[2])];
    };
    double before = 0;
    mean[c] = m2[c] = 0;
    for (std::int64_t part = 0; part < parts.shape[0]; ++part) {
      const double n =
          numbers == 3 ? number(part, -1) : static_cast<double>(std::min(of_part, count - part * of_part));
      if (n == 0) continue;
      const double both = before + n, apart = number(part, 0) - mean[c];
      mean[c] += apart * n / both;
      m2[c] += number(part, 1) + apart * apart * before * n / both;
      before = both;
    }
  }
  finish_moments(norm, count);
}

void batch_norm_running_statistics(const ConstTensorView& running_mean, const ConstTensorView& running_var,
                                   const BatchNormForward& norm) {
  const std::int64_t channels = norm.statistics.shape[1];
  const std::vector<double> mean = load_parameter(running_mean, channels, 0);
  const std::vector<double> var = load_parameter(running_var, channels, 1);
  std::copy(mean.begin(), mean.end(), norm.statistics.as<double>());
  std::copy(var.begin(), var.end(), norm.statistics.as<double>() + channels);
  finish(norm);
}

void batch_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         const ConstTensorView& statistics, const ConstTensorView& weight, bool training,
                         const ConstTensorView& /*known*/, const NormParameterGradients& parameters,
                         const TensorView& dx, GradientWrite write, const detail::ActivationSlope& slope) {
  const std::int64_t channels = layout.channels;
  const auto n = static_cast<std::size_t>(channels);
  const std::vector<double> w = load_parameter(weight, channels, 1);
  const double* const mean = statistics.as<double>();
  const double* const inverse = mean + channels;
  std::vector<double> sum(n), product(n), a(n), p(n), q(n);
  const auto count = static_cast<double>(layout.count());
  ChannelGradient gradient{mean, sum.data(), product.data(), a.data(), p.data(), q.data(), {}, slope};
  gradient.coefficients = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t c = first; c < last; ++c) {
      const auto i = static_cast<std::size_t>(c);
      product[i] *= inverse[c];  // Σ g · x̂
      a[i] = w[i] * inverse[c];
      if (!training) continue;
      p[i] = -a[i] * product[i] * inverse[c] / count;
      q[i] = -a[i] * sum[i] / count;
    }
  };
  channel_gradient(grad, x, layout, gradient, dx, write);
  const auto keep = [&](const std::vector<double>& sums, const TensorView& target, GradientWrite how) {
    if (target.data == nullptr) return;
    write_parameter_gradient({sums.data(), {channels}, {1}, DType::Float64, target.device}, target, how);
  };
  keep(product, parameters.weight, parameters.weight_write);
  keep(sum, parameters.bias, parameters.bias_write);
}

}  // namespace lamella::cpu
