#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_rolling.h"
#include "layers/depthwise_conv2d/cuda/device/rolling_correlate.cuh"
#include "layers/depthwise_conv2d/cuda/device/rolling_weigh.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 40;

template <class K>
constexpr int kMostTaps = (K::kW + K::kStrideW - 1) / K::kStrideW;
template <class K>
constexpr bool kIsRagged = K::kW > K::kStrideW&& K::kW % K::kStrideW != 0;

/// A geometry; kChannels: of x, whose columns are where kernels are compiled for, or 0.
template <class K, int kChannels>
Geometry draw_columns(Draw& draw, const KernelSizes& kernel) {
  Wanted wanted{kernel};
  if (kChannels > 0) wanted.spread_h = wanted.spread_w = 1;
  Geometry g = draw_geometry(draw, wanted);
  if (kChannels > 0) g.channels = kChannels;
  return g;
}

template <class T, class K, int kRows, int kColumns, bool kScatters, int kChannels = 0>
void correlate() {
  using Tile = RollingTile<kMostTaps<K>, kRows, kColumns, kIsRagged<K>>;
  constexpr int kSources = phase_channels(kScatters, K::kRepeat), kOfPixel = kChannels * kSources,
                kApart = kOfPixel * (kScatters ? 1 : K::kStrideW);
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = draw_columns<K, kChannels>(draw, Case<T, K>::kSizes);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {true, 1, 1});
    PhaseWork work;
    problem.describe(work, kScatters);
    if (kChannels > 0 && work.source.column != kOfPixel) return false;
    const int targets = g.channels * phase_channels(!kScatters, K::kRepeat);
    RollingSizes sizes;
    sizes.threads = kThreads, sizes.rows = kRows, sizes.columns = kColumns;
    sizes.channels = draw(1, targets);
    const Launch launch = cut_correlate_rolling(work, g.batch, targets, kSources, sizes, draw(1, 6));
    if (launch.blocks == 0) return false;
    const auto kernel = [&] { correlate_rolling<T, Tile, K::kRepeat, kScatters, kApart, kThreads, 1>(work); };
    if (kScatters)
      problem.backward(work, launch, {true, false, false}, true, false, kernel);
    else
      problem.forward(work, launch, false, kernel);
    return true;
  });
}

template <class T, class K, int kColumns, int kTapRows, bool kBias, int kChannels = 0>
void weigh() {
  using Tile = RollingTapTile<kMostTaps<K>, kColumns, kTapRows, kIsRagged<K>>;
  constexpr int kOfGradient = kChannels * K::kRepeat, kApart = kChannels * K::kStrideW;
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = draw_columns<K, kChannels>(draw, Case<T, K>::kSizes);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {true, 1, 1});
    PhaseWork work;
    problem.describe(work, false);
    if (kChannels > 0 && (work.source.column != kChannels || work.target.column != kOfGradient)) return false;
    RollingSizes sizes;
    sizes.threads = kThreads, sizes.rows = kTapRows, sizes.columns = kColumns;
    sizes.channels = draw(1, g.channels * K::kRepeat);
    sizes.strip_rows = draw(1, work.h.targets + 1);
    const Launch launch = cut_weigh_rolling(work, g.batch, g.channels * K::kRepeat, kBias, sizes, draw(1, 6));
    if (launch.blocks == 0) return false;
    problem.backward(work, launch, {false, true, kBias}, false, false, [&] {
      weigh_rolling<T, Tile, K::kRepeat, kBias, kApart, kOfGradient, kThreads, 1>(work);
    });
    return true;
  });
}

TEST(Rolling, forward) { correlate<float, Kernel<5, 5, 1, 1>, 3, 4, false>(); }
TEST(Rolling, forward_strides) { correlate<BFloat16, Kernel<4, 7, 2, 3>, 2, 6, false>(); }
TEST(Rolling, forward_multiplier) { correlate<Float16, Kernel<7, 2, 3, 1, 2>, 4, 3, false>(); }
TEST(Rolling, forward_rows_alone) { correlate<float, Kernel<6, 1, 1, 2>, 1, 5, false>(); }
TEST(Rolling, forward_strides_above_the_kernel) { correlate<float, Kernel<1, 2, 2, 3>, 2, 4, false>(); }
TEST(Rolling, forward_one_tap) { correlate<Float16, Kernel<1, 1, 3, 2, 2>, 2, 5, false>(); }
TEST(Rolling, forward_known_columns) { correlate<BFloat16, Kernel<5, 6, 1, 2>, 3, 4, false, 7>(); }
TEST(Rolling, input_gradient) { correlate<float, Kernel<5, 4, 1, 1>, 3, 4, true>(); }
TEST(Rolling, input_gradient_strides) { correlate<BFloat16, Kernel<4, 7, 2, 3>, 2, 6, true>(); }
TEST(Rolling, input_gradient_multiplier) { correlate<Float16, Kernel<7, 2, 3, 1, 2>, 4, 3, true>(); }
TEST(Rolling, input_gradient_strides_above_the_kernel) { correlate<float, Kernel<1, 2, 2, 3>, 2, 4, true>(); }
TEST(Rolling, input_gradient_one_tap) { correlate<BFloat16, Kernel<1, 1, 2, 3>, 3, 4, true>(); }
TEST(Rolling, input_gradient_known_columns) { correlate<float, Kernel<5, 4, 1, 1, 2>, 2, 6, true, 7>(); }
TEST(Rolling, weigh) { weigh<float, Kernel<5, 5, 1, 1>, 4, 3, true>(); }
TEST(Rolling, weigh_strides) { weigh<BFloat16, Kernel<4, 7, 2, 3>, 6, 2, true>(); }
TEST(Rolling, weigh_other_strides) { weigh<Float16, Kernel<7, 4, 3, 2>, 3, 2, false>(); }
TEST(Rolling, weigh_multiplier) { weigh<BFloat16, Kernel<7, 2, 3, 1, 2>, 5, 4, true>(); }
TEST(Rolling, weigh_rows_alone) { weigh<float, Kernel<6, 1, 1, 2>, 4, 1, false>(); }
TEST(Rolling, weigh_known_columns) { weigh<Float16, Kernel<5, 6, 1, 2, 2>, 4, 3, true, 5>(); }
TEST(Rolling, weigh_one_tap) { weigh<BFloat16, Kernel<1, 1, 3, 2, 2>, 4, 1, true>(); }
TEST(Rolling, weigh_strides_above_the_kernel) { weigh<float, Kernel<1, 2, 2, 3>, 4, 1, true>(); }

}  // namespace
}  // namespace lamella::depthwise::checks
