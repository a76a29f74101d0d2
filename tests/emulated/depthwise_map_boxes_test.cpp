#include "depthwise_boxes_case.h"
#include "layers/depthwise_conv2d/cuda/cut_map_boxes.h"
#include "layers/depthwise_conv2d/cuda/device/map_boxes.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 6;

/// A problem of maps of so many columns; rows are the tile's.
template <class K, class Tile>
Geometry draw_maps(Draw& draw, const KernelSizes& kernel, int columns, int out_columns, int padding_w) {
  Wanted wanted = want_boxes(kernel, Tile::kImages);
  wanted.spread_h = wanted.spread_w = 1, wanted.may_reach_beyond = false;
  wanted.padding_h = Tile::kLead, wanted.padding_w = padding_w;
  Geometry g = draw_geometry(draw, wanted);
  g.h = Tile::kInRows, g.out_h = Tile::kOutRows, g.w = columns, g.out_w = out_columns;
  return g;
}

template <class T, class K, class Tile>
void forward(int columns, int out_columns, int padding_w) {
  for_seeds(kSeeds, [=](Draw& draw) {
    const Geometry g = draw_maps<K, Tile>(draw, Case<T, K>::kSizes, columns, out_columns, padding_w);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, kBoxLayout);
    problem.never_add();
    BoxWork boxes;
    PixelWork& work = boxes.work;
    problem.describe(work);
    constexpr MapTileSizes kSizes{Tile::kWidth,  Tile::kInRows,   Tile::kOutRows,      Tile::kLead,
                                  Tile::kBands,  Tile::kChannels, Tile::kWarpChannels, Tile::kTurns,
                                  Tile::kGroups, Tile::kPages};
    const BoxPlan plan = cut_map_boxes(work, g.batch, g.channels, problem.kSizes, kSizes, draw(1, 40));
    if (plan.launch.blocks == 0) return false;
    using Sizes = MapBoxes<K, Tile>;
    EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
    EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
    EXPECT_EQ(kSizes.lowest(), Sizes::kLowest);
    EXPECT_EQ(kSizes.highest(problem.kSizes), Sizes::kHighest);
    EXPECT_EQ(kSizes.sources(problem.kSizes), Sizes::kSources);
    EXPECT_EQ(kSizes.results(), Sizes::kResults);
    BoxTensors tensors;
    tensors.tell(boxes, g, plan);
    problem.forward(work, plan.launch, false, [&] { forward_map_boxes<T, K, Tile, 1>(boxes); });
    return true;
  });
}
/// With as much padding as keeps the map's size.
template <class T, class K, class Tile>
void keep_size(int columns) {
  forward<T, K, Tile>(columns, columns, K::kW / 2);
}

using Three = Kernel<3, 3, 1, 1>;
using Five = Kernel<5, 5, 1, 1>;
using Seven = Kernel<7, 7, 1, 1>;

TEST(MapBoxes, two_rows_at_once) {
  keep_size<BFloat16, Five, MapTile<8, 7, 7, 2, 1, 32, 4, 1, 1, 3>>(7);
  keep_size<Float16, Three, MapTile<8, 7, 7, 1, 1, 32, 8, 1, 1, 2>>(7);
  keep_size<BFloat16, Seven, MapTile<8, 8, 8, 3, 1, 64, 4, 2, 1, 2>>(8);
  keep_size<BFloat16, Seven, MapTile<8, 4, 4, 3, 1, 16, 2, 4, 1, 4>>(5);
}
TEST(MapBoxes, a_row_at_once) {
  keep_size<BFloat16, Five, MapTile<16, 10, 10, 2, 1, 16, 4, 1, 1, 2>>(14);
  keep_size<Float16, Three, MapTile<16, 12, 12, 1, 1, 32, 2, 1, 1, 2>>(12);
}
TEST(MapBoxes, bands) {
  keep_size<BFloat16, Seven, MapTile<16, 14, 14, 3, 2, 32, 2, 2, 1, 2>>(14);
  keep_size<Float16, Five, MapTile<16, 13, 13, 2, 2, 32, 4, 1, 1, 2>>(13);
  keep_size<BFloat16, Three, MapTile<16, 14, 14, 1, 2, 16, 4, 2, 1, 3>>(16);
}
TEST(MapBoxes, groups_of_warps) {
  keep_size<BFloat16, Five, MapTile<8, 7, 7, 2, 1, 16, 4, 1, 2, 3>>(7);
  keep_size<BFloat16, Three, MapTile<16, 9, 9, 1, 2, 16, 8, 1, 2, 2>>(9);
}
TEST(MapBoxes, any_padding) {
  forward<BFloat16, Five, MapTile<8, 7, 3, 0, 1, 32, 4, 1, 1, 3>>(8, 4, 0);
  forward<Float16, Five, MapTile<8, 4, 8, 4, 1, 32, 4, 1, 1, 3>>(4, 8, 4);
  forward<BFloat16, Seven, MapTile<16, 10, 12, 4, 2, 16, 2, 4, 1, 2>>(12, 10, 2);
  forward<BFloat16, Three, MapTile<16, 14, 12, 0, 2, 16, 4, 1, 1, 2>>(14, 12, 0);
}
TEST(MapBoxes, other_kernels) {
  keep_size<BFloat16, Kernel<3, 7, 1, 1>, MapTile<8, 7, 7, 1, 1, 32, 4, 1, 1, 2>>(7);
  keep_size<Float16, Kernel<1, 5, 1, 1>, MapTile<16, 9, 9, 0, 1, 16, 4, 1, 1, 2>>(11);
  keep_size<BFloat16, Kernel<9, 1, 1, 1>, MapTile<8, 8, 8, 4, 1, 16, 4, 1, 1, 2>>(6);
  keep_size<BFloat16, Kernel<11, 11, 1, 1>, MapTile<8, 7, 7, 5, 1, 16, 2, 1, 1, 2>>(7);
  keep_size<BFloat16, Kernel<15, 15, 1, 1>, MapTile<16, 14, 14, 7, 2, 16, 2, 1, 1, 2>>(14);
}

}  // namespace
}  // namespace lamella::depthwise::checks
