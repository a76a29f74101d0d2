#include "core/workspace.h"
#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/parameters.cuh"

namespace lamella::cuda {

namespace {

/// A running estimate that moves towards the batch's.
struct Running {
  explicit Running(const TensorView& view)
      : data(view.data), stride(view.data != nullptr ? view.strides[0] : 0), dtype(view.dtype) {}
  __device__ void move(std::int64_t channel, double momentum, double batch) const {
    if (data == nullptr) return;
    const double before = detail::cuda::load_number<double>(dtype, data, channel * stride);
    detail::cuda::store_number(dtype, (1 - momentum) * before + batch, data, channel * stride);
  }

  void* data;
  std::int64_t stride;
  DType dtype;
};

struct BatchStatistics {
  double* statistics;
  std::int64_t channels;
  double count, eps, momentum;
  Running mean, var;

  __device__ void operator()(std::int64_t c, Pair moments) const {
    statistics[c] = moments.x;
    statistics[channels + c] = 1 / sqrt((count > 0 ? moments.y / count : 0) + eps);
    if (count == 0) return;
    mean.move(c, momentum, momentum * moments.x);
    var.move(c, momentum, momentum * moments.y * (1 / (count - 1)));
  }
};

/// Of numbers that somebody else has added up: done(c, pair) for each channel.
template <class Done>
__global__ void for_each_channel(DType dtype, const void* pairs, std::int64_t channels, double factor,
                                 const Done done) {
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const auto number = [&](std::int64_t at) { return detail::cuda::load_number<double>(dtype, pairs, at); };
  if (c < channels) done(c, Pair{number(c), number(channels + c) * factor});
}

/// From the sums of a channel its parameters' gradients and the factors of dx.
template <class C>
struct BatchGradient {
  const double* statistics;
  ChannelNumbers weight;
  std::int64_t channels;
  double count;
  bool training;
  double* sums;
  C* factors;

  __device__ void operator()(std::int64_t c, Pair pair) const {
    const double mean = statistics[c], inverse = statistics[channels + c];
    const double center = static_cast<C>(mean), sum = pair.x;
    const double product = count > 0 ? (pair.y + (center - mean) * sum) * inverse : 0;  // Σ g · x̂
    sums[c] = sum;
    sums[channels + c] = product;
    if (count == 0) return;
    const double a = weight.at(c) * inverse;
    const double p = training ? -a * product * inverse / count : 0, q = training ? -a * sum / count : 0;
    factors[c] = static_cast<C>(a);
    factors[channels + c] = static_cast<C>(p);
    factors[2 * channels + c] = static_cast<C>(q + p * (center - mean));
    factors[3 * channels + c] = static_cast<C>(center);
  }
};

__global__ void running_statistics(const ChannelNumbers mean, const ChannelNumbers var, double eps,
                                   std::int64_t channels, double* statistics) {
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  statistics[c] = mean.at(c);
  statistics[channels + c] = 1 / sqrt(var.at(c) + eps);
}

/// C: what the arithmetic rounds to.
template <class C>
__global__ void affine(const double* statistics, const ChannelNumbers weight, const ChannelNumbers bias,
                       std::int64_t channels, DType dtype, void* scale, void* shift, void* center) {
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const double rounded = static_cast<C>(weight.at(c) * statistics[channels + c]);
  detail::cuda::store_number(dtype, rounded, scale, c);
  detail::cuda::store_number(dtype, bias.at(c) - statistics[c] * rounded, shift, c);
  if (center != nullptr) detail::cuda::store_number(dtype, statistics[c], center, c);
}

constexpr int kChannelThreads = 128;
unsigned channel_blocks(std::int64_t channels) {
  return grid_of((channels + kChannelThreads - 1) / kChannelThreads);
}

}  // namespace

void batch_norm_statistics(const ConstTensorView& x, const ChannelLayout& layout, double eps, double momentum,
                           const TensorView& statistics, const TensorView& running_mean,
                           const TensorView& running_var) {
  const ChannelCut cut(layout, x.dtype);
  const detail::Workspace pairs(x.device, cut.pair_bytes());
  channel_moments(x, cut, pairs.as<Pair>());
  const BatchStatistics done{
      statistics.as<double>(), layout.channels,     static_cast<double>(layout.count()), eps, momentum,
      Running(running_mean),   Running(running_var)};
  finish_parts<MomentsTally>("batch_norm_statistics", x.device, pairs.as<Pair>(), cut.counts(),
                             layout.channels, done);
}

void batch_norm_statistics_of(const ConstTensorView& moments, std::int64_t count, double eps, double momentum,
                              const TensorView& statistics, const TensorView& running_mean,
                              const TensorView& running_var) {
  const std::int64_t channels = statistics.shape[1];
  const auto n = static_cast<double>(count);
  const BatchStatistics done{statistics.as<double>(), channels, n, eps, momentum, Running(running_mean),
                             Running(running_var)};
  detail::cuda::launch("batch_norm_statistics", statistics.device, channel_blocks(channels), kChannelThreads,
                       0, for_each_channel<BatchStatistics>, moments.dtype, moments.data, channels, n, done);
}

void batch_norm_running_statistics(const ConstTensorView& running_mean, const ConstTensorView& running_var,
                                   double eps, const TensorView& statistics) {
  const std::int64_t channels = statistics.shape[1];
  detail::cuda::launch("batch_norm_running_statistics", statistics.device, channel_blocks(channels),
                       kChannelThreads, 0, running_statistics, ChannelNumbers(running_mean, 0),
                       ChannelNumbers(running_var, 1), eps, channels, statistics.as<double>());
}

void batch_norm_affine(const ConstTensorView& statistics, const ConstTensorView& weight,
                       const ConstTensorView& bias, const TensorView& scale, const TensorView& shift,
                       const TensorView& center) {
  const std::int64_t channels = statistics.shape[1];
  detail::dispatch_compute_floating(scale.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    detail::cuda::launch("batch_norm_affine", scale.device, channel_blocks(channels), kChannelThreads, 0,
                         affine<C>, statistics.as<double>(), ChannelNumbers(weight, 1),
                         ChannelNumbers(bias, 0), channels, scale.dtype, scale.data, shift.data, center.data);
  });
}

void batch_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         const ConstTensorView& statistics, const ConstTensorView& weight, bool training,
                         const ConstTensorView& known, const TensorView& sums, const TensorView& dx,
                         GradientWrite write, const ActivationSlope& slope) {
  const ChannelCut cut(layout, x.dtype);
  const detail::Workspace pairs(x.device, known.data == nullptr ? cut.pair_bytes() : 0);
  // Both passes go back through the activation themselves, so that nothing has to lie in slope.passed.
  if (known.data == nullptr)
    channel_products(grad, x, cut, Means{statistics.as<double>()}, slope, pairs.as<Pair>());
  detail::dispatch_compute_floating(x.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const detail::Workspace factors(x.device, 4 * layout.channels * static_cast<std::int64_t>(sizeof(C)));
    const BatchGradient<C> done{statistics.as<double>(),
                                ChannelNumbers(weight, 1),
                                layout.channels,
                                static_cast<double>(layout.count()),
                                training,
                                sums.as<double>(),
                                factors.as<C>()};
    if (known.data != nullptr)
      detail::cuda::launch("batch_norm_backward", x.device, channel_blocks(layout.channels), kChannelThreads,
                           0, for_each_channel<BatchGradient<C>>, known.dtype, known.data, layout.channels,
                           1.0, done);
    else
      finish_parts<SumsTally>("batch_norm_backward", x.device, pairs.as<Pair>(), cut.counts(),
                              layout.channels, done);
    if (dx.data != nullptr) channel_gradient(grad, x, cut, factors.as<C>(), slope, dx, write);
  });
}

}  // namespace lamella::cuda
