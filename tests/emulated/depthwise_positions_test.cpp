#include "depthwise_positions_case.h"
#include "layers/depthwise_conv2d/cuda/device/positions_correlate.cuh"
#include "layers/depthwise_conv2d/cuda/device/positions_weigh.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 6;

/// All images begin with sixteen bytes.
template <class K, class Map, class Tile>
Geometry draw_images(Draw& draw) {
  Geometry g{draw(1, 40),
             draw(1, std::max(20, 2 * Tile::kPlanes)),
             1,
             K::kH,
             K::kW,
             Map::kInH,
             Map::kInW,
             Map::kOutH,
             Map::kOutW,
             K::kStrideH,
             K::kStrideW,
             Map::kPaddingH,
             Map::kPaddingW,
             Map::kSpreadH,
             Map::kSpreadW};
  while (g.channels * Map::kIn % 8 != 0 || g.channels * Map::kOut % 8 != 0) ++g.channels;
  return g;
}

template <class Tile>
constexpr PositionTileSizes kTileSizes{Tile::kUnits, Tile::kImageSteps, Tile::kPages};

template <class T, class K, class Map, class Tile, bool kTransposed = false>
void correlate() {
  for_seeds(kSeeds, [](Draw& draw) {
    using Plan = PositionPlan<K, Map, Tile, kTransposed, 8, 2>;
    constexpr int kPositionThreads = 32 * (Plan::kWarps + 1);
    const Geometry g = draw_images<K, Map, Tile>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, 8, 8});
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    const Launch launch = cut_correlate_positions(work, g.batch, g.channels, Plan::kSizes, Plan::kLayout,
                                                  kTileSizes<Tile>, draw(1, 20));
    const ImageRuns runs = image_runs(Plan::kSizes, kTileSizes<Tile>, Plan::kLayout.source_pitch);
    ImageMaps maps;
    maps.describe(work, kTransposed ? ImageRuns{} : runs, Map::kIn, kTransposed ? runs : ImageRuns{},
                  Map::kOut);
    if constexpr (kTransposed)
      problem.backward(work, launch, {true, false, false}, false, false,
                       [&] { backward_positions<T, K, Map, Tile, kPositionThreads, 1>(work); });
    else
      problem.forward(work, launch, false,
                      [&] { forward_positions<T, K, Map, Tile, kPositionThreads, 1>(work); });
    return true;
  });
}

template <class T, class K, class Map, class Tile, bool kBias, int kTransforms = kPlain>
void weigh() {
  for_seeds(kSeeds, [](Draw& draw) {
    using Plan = PositionPlan<K, Map, Tile, false, 16, 1>;
    constexpr int kPositionThreads = 32 * (Plan::kWarps + 1);
    const Geometry g = draw_images<K, Map, Tile>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, 8, 8}, kTransforms);
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    const Launch launch = cut_weigh_positions(work, g.batch, g.channels, Plan::kSizes, Plan::kLayout,
                                              kTileSizes<Tile>, kBias, draw(1, 20));
    ImageMaps maps;
    maps.describe(work, image_runs(Plan::kSizes, kTileSizes<Tile>, Plan::kLayout.source_pitch), Map::kIn,
                  image_runs(Plan::kSizes, kTileSizes<Tile>, Plan::kLayout.result_pitch), Map::kOut);
    problem.backward(work, launch, {false, true, kBias}, false, false, [&] {
      weigh_positions<T, K, Map, Tile, kBias, kTransforms, kPositionThreads, 1>(work);
    });
    return true;
  });
}

using K3 = Kernel<3, 3, 1, 1>;
using K5 = Kernel<5, 5, 1, 1>;
using K3s2 = Kernel<3, 3, 2, 2>;
using K5s2 = Kernel<5, 5, 2, 2>;
using Map7 = PositionMap<7, 7, 7, 7, 1, 1, 1, 1>;
using Map7k5 = PositionMap<7, 7, 7, 7, 2, 2, 1, 1>;
using Map14s2 = PositionMap<14, 14, 7, 7, 1, 1, 1, 1>;
using Map14k5s2 = PositionMap<14, 14, 7, 7, 2, 2, 1, 1>;

// PositionTile: planes, units of a warp, steps of images, pages.
TEST(Positions, forward_7x7) { correlate<BFloat16, K3, Map7, PositionTile<8, 7, 1, 2>>(); }
TEST(Positions, forward_7x7_of_few_planes) { correlate<Float16, K3, Map7, PositionTile<3, 4, 2, 3>>(); }
// A block has more planes than consumers have threads.
TEST(Positions, single_pixels) {
  using Map1 = PositionMap<1, 1, 1, 1, 1, 1, 1, 1>;
  correlate<BFloat16, K3, Map1, PositionTile<64, 8, 1, 2>>();
  correlate<Float16, K3, Map1, PositionTile<64, 8, 1, 2>, true>();
}
TEST(Positions, forward_7x7_k5) { correlate<BFloat16, K5, Map7k5, PositionTile<4, 5, 1, 2>>(); }
TEST(Positions, forward_14s2) { correlate<BFloat16, K3s2, Map14s2, PositionTile<2, 3, 1, 2>>(); }
TEST(Positions, forward_14k5s2) { correlate<Float16, K5s2, Map14k5s2, PositionTile<1, 2, 1, 2>>(); }
TEST(Positions, forward_14) {
  correlate<BFloat16, K3, PositionMap<14, 14, 14, 14, 1, 1, 1, 1>, PositionTile<1, 5, 1, 2>>();
}
TEST(Positions, forward_dilation_and_odd_sizes) {
  correlate<BFloat16, Kernel<3, 2, 1, 1>, PositionMap<9, 6, 8, 8, 2, 3, 2, 3>, PositionTile<2, 3, 1, 2>>();
  correlate<Float16, Kernel<4, 3, 3, 2>, PositionMap<11, 8, 5, 3, 2, 0, 1, 1>, PositionTile<3, 2, 2, 2>>();
}
TEST(Positions, input_gradient_14s2) { correlate<BFloat16, K3s2, Map14s2, PositionTile<2, 7, 1, 2>, true>(); }
TEST(Positions, input_gradient_14k5s2) {
  correlate<Float16, K5s2, Map14k5s2, PositionTile<1, 4, 2, 2>, true>();
}
TEST(Positions, input_gradient_odd_sizes) {
  correlate<Float16, Kernel<4, 3, 3, 2>, PositionMap<11, 8, 5, 3, 2, 0, 1, 1>, PositionTile<3, 2, 1, 2>,
            true>();
  correlate<BFloat16, Kernel<2, 3, 2, 3>, PositionMap<8, 12, 5, 5, 1, 2, 3, 2>, PositionTile<2, 3, 1, 2>,
            true>();
}

TEST(Positions, weigh_7x7) { weigh<BFloat16, K3, Map7, PositionTile<8, 4, 1, 2>, false>(); }
TEST(Positions, weigh_7x7_of_few_planes) { weigh<Float16, K3, Map7, PositionTile<3, 2, 2, 3>, true>(); }
TEST(Positions, weigh_7x7_k5) { weigh<BFloat16, K5, Map7k5, PositionTile<2, 3, 1, 2>, true>(); }
TEST(Positions, weigh_14s2) { weigh<BFloat16, K3s2, Map14s2, PositionTile<2, 1, 1, 2>, true>(); }
TEST(Positions, weigh_14k5s2) { weigh<Float16, K5s2, Map14k5s2, PositionTile<1, 1, 1, 2>, false>(); }
TEST(Positions, weigh_14) {
  weigh<BFloat16, K3, PositionMap<14, 14, 14, 14, 1, 1, 1, 1>, PositionTile<1, 2, 1, 2>, true>();
}
TEST(Positions, weigh_dilation_and_odd_sizes) {
  weigh<BFloat16, Kernel<3, 2, 1, 1>, PositionMap<9, 6, 8, 8, 2, 3, 2, 3>, PositionTile<2, 2, 1, 2>, true>();
  weigh<Float16, Kernel<4, 3, 3, 2>, PositionMap<11, 8, 5, 3, 2, 0, 1, 1>, PositionTile<3, 1, 2, 2>, false>();
}
TEST(Positions, runs_longer_than_a_box_has) {
  static_assert(!PositionLayout::moves_at_once(false, 129) && PositionLayout::moves_at_once(false, 128));
  correlate<BFloat16, K3, PositionMap<14, 14, 14, 14, 1, 1, 1, 1>, PositionTile<6, 6, 1, 2>>();
}
TEST(Positions, input_gradient_of_runs_longer_than_a_box_has) {
  correlate<BFloat16, Kernel<3, 3, 2, 1>, PositionMap<20, 14, 10, 14, 1, 1, 1, 1>, PositionTile<8, 10, 1, 2>,
            true>();
}
TEST(Positions, weigh_runs_longer_than_a_box_has) {
  weigh<Float16, Kernel<1, 1, 1, 1>, PositionMap<14, 14, 14, 14, 0, 0, 1, 1>, PositionTile<6, 4, 1, 2>,
        true>();
  weigh<BFloat16, Kernel<1, 2, 2, 2>, PositionMap<14, 14, 7, 7, 0, 0, 1, 1>, PositionTile<6, 3, 1, 2>,
        false>();
}
TEST(Positions, weigh_periods) {
  weigh<BFloat16, K3s2, PositionMap<12, 16, 6, 8, 1, 1, 1, 1>, PositionTile<1, 1, 1, 2, true>, true>();
  weigh<Float16, K5s2, PositionMap<20, 12, 10, 6, 2, 2, 1, 1>, PositionTile<1, 1, 1, 2, true>, false>();
  weigh<BFloat16, K3, PositionMap<10, 12, 10, 12, 1, 1, 1, 1>, PositionTile<1, 2, 2, 2, true>, true>();
  weigh<Float16, Kernel<3, 2, 1, 1>, PositionMap<9, 8, 7, 5, 1, 0, 2, 3>, PositionTile<1, 1, 1, 2, true>,
        true>();
}
TEST(Positions, weigh_28k5s2) {
  weigh<BFloat16, K5s2, PositionMap<28, 28, 14, 14, 2, 2, 1, 1>, PositionTile<1, 1, 1, 2, true>, true>();
}
// The matrix units do not round sums to nearest.
TEST(Positions, weigh_ends_long_sums) {
  for (const bool periodic : {false, true})
    for (const int size : {14, 16, 28, 32})
      for (const int image_steps : {1, 2}) {
        PositionSizes sizes;
        sizes.h = sizes.w = {size, size, 3, 1, 1, 1};
        sizes.periodic = periodic;
        const PositionLayout layout = layout_of(sizes, 16, 1, 1);
        PlaneWork work;
        cut_weigh_positions(work, 4096, 8, sizes, layout, {1, image_steps, 2}, false, 1);
        const int chain = work.items_per_part * image_steps * layout.periods;
        EXPECT_TRUE(chain <= 32 || work.items_per_part == 1) << size << ": " << chain;
      }
}
TEST(Positions, weigh_transform) {
  weigh<BFloat16, K3, Map7, PositionTile<3, 2, 1, 2>, true, kClamp>();
  weigh<Float16, K3s2, Map14s2, PositionTile<1, 1, 1, 2>, false, kHardSwish>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
