#include "core/workspace.h"
#include "layers/norm/cuda/channels.cuh"
#include "layers/norm/cuda/parameters.cuh"

namespace lamella::cuda {

namespace {

constexpr int kWarp = 32;

/// The groups of all segments; a warp takes one. Group k's statistics are [k · together, (k + 1) · together).
struct Groups {
  std::int64_t count, together;
  std::int64_t channels, inner;

  __device__ std::int64_t mine() const {
    return (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  }
  __device__ double values() const { return static_cast<double>(together * inner); }
};

/// Statistics of the groups from their channels' moments, and the factors of y.
template <class C>
__global__ void group_statistics(const Pair* moments, const Groups groups, double eps,
                                 const ChannelNumbers weight, const ChannelNumbers bias, double* statistics,
                                 C* factors) {
  detail::cuda::wait_for_stream();
  const std::int64_t k = groups.mine(), all = groups.count * groups.together;
  if (k >= groups.count) return;  // a whole warp
  const std::int64_t first = k * groups.together, last = first + groups.together;
  MomentsTally tally = MomentsTally::around(moments[first].x);
  for (std::int64_t s = first + threadIdx.x % kWarp; s < last; s += kWarp)
    tally.add(static_cast<double>(groups.inner), moments[s]);
  tally = over_lanes(tally, kWarp);
  const double mean = tally.result().x, inverse = 1 / sqrt(tally.result().y / tally.count + eps);
  if (threadIdx.x % kWarp == 0) {
    statistics[k] = mean;
    statistics[groups.count + k] = inverse;
  }
  const C center = static_cast<C>(mean);
  for (std::int64_t s = first + threadIdx.x % kWarp; s < last; s += kWarp) {
    const std::int64_t c = s % groups.channels;
    const double scale = weight.at(c) * inverse;
    factors[s] = center;
    factors[all + s] = static_cast<C>(scale);
    factors[2 * all + s] = static_cast<C>(bias.at(c) + (static_cast<double>(center) - mean) * scale);
  }
}

/// Brings the sums around the rounded mean, pairs[s], to Σ g and Σ g · x̂, and computes the factors of dx.
template <class C>
__global__ void group_gradient(Pair* pairs, const Groups groups, const double* statistics,
                               const ChannelNumbers weight, C* factors) {
  detail::cuda::wait_for_stream();
  const std::int64_t k = groups.mine(), all = groups.count * groups.together;
  if (k >= groups.count) return;  // a whole warp
  const std::int64_t first = k * groups.together, last = first + groups.together;
  const double mean = statistics[k], inverse = statistics[groups.count + k];
  const double center = static_cast<C>(mean);
  SumsTally tally = SumsTally::around(0);
  for (std::int64_t s = first + threadIdx.x % kWarp; s < last; s += kWarp) {
    const Pair pair = pairs[s];
    const Pair exact{pair.x, (pair.y + (center - mean) * pair.x) * inverse};
    pairs[s] = exact;
    const double w = weight.at(s % groups.channels);
    tally.add(0, {w * exact.x, w * exact.y});
  }
  tally = over_lanes(tally, kWarp);
  const double count = groups.values();
  const double p = -inverse * inverse * tally.second / count, q = -inverse * tally.first / count;
  for (std::int64_t s = first + threadIdx.x % kWarp; s < last; s += kWarp) {
    factors[s] = static_cast<C>(weight.at(s % groups.channels) * inverse);
    factors[all + s] = static_cast<C>(p);
    factors[2 * all + s] = static_cast<C>(q + p * (center - mean));
    factors[3 * all + s] = static_cast<C>(center);
  }
}

Groups groups_of(const ChannelLayout& layout, std::int64_t groups) {
  return {layout.segments * groups, layout.channels / groups, layout.channels, layout.inner};
}
unsigned group_blocks(const Groups& groups) {
  constexpr std::int64_t kGroups = kNormThreads / kWarp;
  return grid_of((groups.count + kGroups - 1) / kGroups);
}

}  // namespace

void group_norm_forward(const ConstTensorView& x, const ChannelLayout& layout, std::int64_t groups,
                        const ConstTensorView& weight, const ConstTensorView& bias, double eps,
                        const TensorView& y, const TensorView& statistics) {
  const ChannelCut cut(layout, x.dtype);
  const std::int64_t all = layout.statistics();
  const detail::Workspace pairs(x.device, cut.pair_bytes());
  const detail::Workspace moments(x.device, all * static_cast<std::int64_t>(sizeof(Pair)));
  channel_moments(x, cut, pairs.as<Pair>());
  finish_parts<MomentsTally>("group_norm_forward", x.device, pairs.as<Pair>(), cut.counts(), all,
                             StorePairs{moments.as<Pair>()});
  detail::dispatch_compute_floating(x.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const detail::Workspace factors(x.device, 3 * all * static_cast<std::int64_t>(sizeof(C)));
    const Groups of = groups_of(layout, groups);
    detail::cuda::launch_early("group_norm_forward", x.device, group_blocks(of), kNormThreads, 0,
                               group_statistics<C>, moments.as<Pair>(), of, eps, ChannelNumbers(weight, 1),
                               ChannelNumbers(bias, 0), statistics.as<double>(), factors.as<C>());
    channel_apply(x, cut, factors.as<C>(), y);
  });
}

void group_norm_backward(const ConstTensorView& grad, const ConstTensorView& x, const ChannelLayout& layout,
                         std::int64_t groups, const ConstTensorView& weight,
                         const ConstTensorView& statistics, const TensorView& sums, const TensorView& dx,
                         GradientWrite write) {
  const ChannelCut cut(layout, x.dtype);
  const std::int64_t all = layout.statistics();
  const detail::Workspace pairs(x.device, cut.pair_bytes());
  const detail::Workspace products(x.device, all * static_cast<std::int64_t>(sizeof(Pair)));
  const Groups of = groups_of(layout, groups);
  channel_products(grad, x, cut, Means{statistics.as<double>(), of.together}, {}, pairs.as<Pair>());
  finish_parts<SumsTally>("group_norm_backward", x.device, pairs.as<Pair>(), cut.counts(), all,
                          StorePairs{products.as<Pair>()});
  detail::dispatch_compute_floating(x.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    const detail::Workspace factors(x.device, 4 * all * static_cast<std::int64_t>(sizeof(C)));
    detail::cuda::launch_early("group_norm_backward", x.device, group_blocks(of), kNormThreads, 0,
                               group_gradient<C>, products.as<Pair>(), of, statistics.as<double>(),
                               ChannelNumbers(weight, 1), factors.as<C>());
    if (dx.data != nullptr) channel_gradient(grad, x, cut, factors.as<C>(), {}, dx, write);
  });
  // One part for each image.
  PartCounts images;
  images.parts = images.total = layout.segments;
  finish_parts<SumsTally>("group_norm_backward", x.device, products.as<Pair>(), images, layout.channels,
                          StoreRows{sums.as<double>(), layout.channels});
}

}  // namespace lamella::cuda
