#include "core/workspace.h"
#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/left_parts.cuh"
#include "layers/norm/cuda/parameters.cuh"

namespace lamella::cuda {

using detail::BatchNormForward;

namespace {

/// A running estimate that moves towards the batch's.
struct Running {
  explicit Running(const TensorView& view)
      : data(view.data), stride(view.data != nullptr ? view.strides[0] : 0), dtype(view.dtype) {}
  __device__ BegunNumber load(std::int64_t channel) const {
    return data != nullptr ? BegunNumber::load(dtype, data, channel * stride) : BegunNumber::of(0);
  }
  __device__ void move(std::int64_t channel, BegunNumber before, double momentum, double batch) const {
    if (data == nullptr) return;
    detail::cuda::store_number(dtype, (1 - momentum) * before.value() + batch, data, channel * stride);
  }

  void* data;
  std::int64_t stride;
  DType dtype;
};

/// What batch norm makes of a channel's mean and 1 / σ. C: what the arithmetic rounds to.
template <class C>
struct BatchAffine {
  BatchAffine(const BatchNormForward& norm)
      : statistics(norm.statistics.as<double>()),
        channels(norm.statistics.shape[1]),
        weight(norm.weight, 1),
        bias(norm.bias, 0),
        scale(norm.scale.as<C>()),
        shift(norm.shift.as<C>()),
        center(norm.center.as<C>()) {}

  struct Parameters {
    BegunNumber weight, bias;
  };
  __device__ Parameters load(std::int64_t c) const { return {weight.load(c), bias.load(c)}; }
  __device__ void operator()(std::int64_t c, const Parameters& of, double mean, double inverse) const {
    statistics[c] = mean;
    statistics[channels + c] = inverse;
    const C rounded = static_cast<C>(of.weight.value() * inverse);
    scale[c] = rounded;
    shift[c] = static_cast<C>(of.bias.value() - mean * static_cast<double>(rounded));
    if (center != nullptr) center[c] = static_cast<C>(mean);
  }

  double* statistics;
  std::int64_t channels;
  ChannelNumbers weight, bias;
  C *scale, *shift, *center;
};

/// Everything that a batch's moments change.
template <class C>
struct BatchStatistics {
  BatchStatistics(const BatchNormForward& norm, std::int64_t numbers)
      : affine(norm),
        count(static_cast<double>(numbers)),
        share(numbers > 0 ? 1 / count : 0),
        unbiased(1 / (count - 1)),
        eps(norm.eps),
        momentum(norm.momentum),
        mean(norm.running_mean),
        var(norm.running_var),
        tracked(norm.tracked.as<std::int64_t>()) {}

  struct Before {
    typename BatchAffine<C>::Parameters parameters;
    BegunNumber mean, var;
    std::int64_t tracked;
  };
  __device__ Before load(std::int64_t c) const {
    return {affine.load(c), mean.load(c), var.load(c), c == 0 && tracked != nullptr ? *tracked : 0};
  }
  __device__ void operator()(std::int64_t c, const Before& before, Pair moments) const {
    if (c == 0 && tracked != nullptr) *tracked = before.tracked + 1;
    affine(c, before.parameters, moments.x, rsqrt(moments.y * share + eps));
    if (count == 0) return;
    mean.move(c, before.mean, momentum, momentum * moments.x);
    var.move(c, before.var, momentum, momentum * moments.y * unbiased);
  }

  BatchAffine<C> affine;
  double count, share, unbiased;  ///< the latter two are quotients that a kernel would wait for
  double eps, momentum;
  Running mean, var;
  std::int64_t* tracked;
};

template <class C>
__global__ void running_statistics(const ChannelNumbers mean, const ChannelNumbers var, double eps,
                                   const BatchAffine<C> affine) {
  detail::cuda::wait_for_stream();
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c < affine.channels) affine(c, affine.load(c), mean.at(c), 1 / sqrt(var.at(c) + eps));
}

}  // namespace

void batch_norm_statistics(const ConstTensorView& x, const ChannelLayout& layout,
                           const BatchNormForward& norm) {
  const ChannelCut cut(layout, x.dtype);
  const detail::Workspace pairs(x.device, cut.pair_bytes());
  channel_moments(x, cut, pairs.as<Pair>());
  detail::dispatch_compute_floating(norm.scale.dtype, [&](auto tag) {
    finish_parts<MomentsTally>("batch_norm_statistics", x.device, pairs.as<Pair>(), cut.counts(),
                               layout.channels,
                               BatchStatistics<typename decltype(tag)::type>(norm, layout.count()));
  });
}

void batch_norm_statistics_of(const ConstTensorView& parts, std::int64_t of_part, std::int64_t count,
                              const BatchNormForward& norm) {
  detail::dispatch_compute_floating(norm.scale.dtype, [&](auto tag) {
    finish_left<MomentsTally>("batch_norm_statistics", parts, of_part, count,
                              BatchStatistics<typename decltype(tag)::type>(norm, count));
  });
}

void batch_norm_running_statistics(const ConstTensorView& running_mean, const ConstTensorView& running_var,
                                   const BatchNormForward& norm) {
  constexpr int kThreads = 128;
  const std::int64_t channels = norm.statistics.shape[1];
  detail::dispatch_compute_floating(norm.scale.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    detail::cuda::launch_early("batch_norm_running_statistics", norm.statistics.device,
                               grid_of((channels + kThreads - 1) / kThreads), kThreads, 0,
                               running_statistics<C>, ChannelNumbers(running_mean, 0),
                               ChannelNumbers(running_var, 1), norm.eps, BatchAffine<C>(norm));
  });
}

}  // namespace lamella::cuda
