#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_diagonals.h"
#include "layers/depthwise_conv2d/cuda/device/diagonals_backward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 30;
constexpr int kDiagonalThreads = kThreads + 32;  // and the warp that asks for runs

std::int64_t some_bytes(Draw& draw) { return draw(1, 6) * std::int64_t{3000}; }

template <class T, class K, class S, class Sizes, class Tile, int kPaddingH, int kPaddingW, bool kBias,
          int kTransforms>
bool weigh_one(Draw& draw, const Geometry& g, int row_groups, std::int64_t most_bytes) {
  SCOPED_TRACE(to_string(g));
  Case<T, K> problem(draw, g, {false, Tile::kVector, Tile::kVectorG}, kTransforms);
  problem.never_add();
  PlaneWork work;
  problem.describe(work, false);
  const DiagonalTileSizes tile{Tile::kColumns, Tile::kPlanes,  Tile::kGroups, Tile::kVector,
                               Tile::kPages,   Tile::kVectorG, Sizes::kKnown, row_groups};
  const Launch launch = cut_diagonals(work, g.batch, g.channels, problem.kSizes, S::kHeight, S::kWidth, tile,
                                      kDiagonalThreads, most_bytes, kBias, draw(1, 20));
  if (launch.blocks == 0) return false;
  work.cut.chain = draw(1, 3);
  problem.backward(work, launch, {false, true, kBias}, false, false, [&] {
    backward_diagonals<T, K, S, Sizes, Tile, kPaddingH, kPaddingW, kBias, kTransforms, kDiagonalThreads, 1>(
        work);
  });
  return true;
}

/// Planes of any size, or bands of them.
template <class T, class K, class Tile, int kPaddingH, int kPaddingW, bool kBias, class S = Spread<1, 1>,
          int kTransforms = kPlain>
void weigh(int row_groups = 1) {
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = Tile::kVector, wanted.out_width = Tile::kVectorG;
    wanted.padding_h = kPaddingH, wanted.padding_w = kPaddingW;
    wanted.spread_h = S::kHeight, wanted.spread_w = S::kWidth;
    return weigh_one<T, K, S, PlaneSizes<0, 0, 0, 0>, Tile, kPaddingH, kPaddingW, kBias, kTransforms>(
        draw, draw_geometry(draw, wanted), row_groups, some_bytes(draw));
  });
}

/// Whether there is a launch for planes of so many rows and columns, which then must be right.
template <class K, class Tile, int kPaddingH, int kPaddingW>
bool fits(int height, int width, std::int64_t bytes) {
  const Geometry g{3,
                   2,
                   1,
                   K::kH,
                   K::kW,
                   height,
                   width,
                   (height + 2 * kPaddingH - K::kH) / K::kStrideH + 1,
                   (width + 2 * kPaddingW - K::kW) / K::kStrideW + 1,
                   K::kStrideH,
                   K::kStrideW,
                   kPaddingH,
                   kPaddingW,
                   1,
                   1};
  Draw draw(1);
  return weigh_one<BFloat16, K, Spread<1, 1>, PlaneSizes<0, 0, 0, 0>, Tile, kPaddingH, kPaddingW, false,
                   kPlain>(draw, g, 1, bytes);
}

/// Planes of known sizes; some outputs more or fewer than the padding makes.
template <class T, class K, int kH, int kW, class Tile, int kPaddingH, int kPaddingW, bool kBias,
          class S = Spread<1, 1>, int kMoreH = 0, int kMoreW = 0, int kTransforms = kPlain>
void weigh_known() {
  constexpr int kOutH = (kH + 2 * kPaddingH - (K::kH - 1) * S::kHeight - 1) / K::kStrideH + 1 + kMoreH,
                kOutW = (kW + 2 * kPaddingW - (K::kW - 1) * S::kWidth - 1) / K::kStrideW + 1 + kMoreW;
  for_seeds(kSeeds, [=](Draw& draw) {
    const Geometry g{draw(1, 3), draw(1, 20), K::kRepeat,  K::kH,     K::kW,     kH,         kW,       kOutH,
                     kOutW,      K::kStrideH, K::kStrideW, kPaddingH, kPaddingW, S::kHeight, S::kWidth};
    return weigh_one<T, K, S, PlaneSizes<kH, kW, kOutH, kOutW>, Tile, kPaddingH, kPaddingW, kBias,
                     kTransforms>(draw, g, 1, some_bytes(draw));
  });
}

using K3 = Kernel<3, 3, 1, 1>;
using K5 = Kernel<5, 5, 1, 1>;
using K7 = Kernel<7, 7, 1, 1>;

TEST(Diagonals, any_planes) { weigh<BFloat16, K3, DiagonalTile<16, 1, 1, 2, 2>, 1, 1, false>(); }
TEST(Diagonals, vectors) { weigh<Float16, K3, DiagonalTile<16, 2, 2, 4, 3>, 1, 1, true>(); }
TEST(Diagonals, vectors_of_a_wide_kernel) {
  weigh<BFloat16, K7, DiagonalTile<16, 1, 1, 4, 2>, 3, 3, true>(2);
}
TEST(Diagonals, odd_rows) { weigh<BFloat16, K3, DiagonalTile<16, 2, 1, 1, 2>, 1, 1, true>(2); }
TEST(Diagonals, odd_rows_of_a_wide_kernel) { weigh<Float16, K5, DiagonalTile<8, 1, 2, 1, 4>, 2, 2, true>(2); }
TEST(Diagonals, narrow_products) {
  weigh<BFloat16, Kernel<3, 5, 1, 1>, DiagonalTile<8, 1, 1, 2, 2>, 1, 2, false>();
}
TEST(Diagonals, without_padding) { weigh<BFloat16, K5, DiagonalTile<16, 1, 1, 2, 2>, 0, 0, true>(4); }
TEST(Diagonals, padding_of_one_axis) {
  weigh<Float16, Kernel<3, 7, 1, 1>, DiagonalTile<16, 1, 1, 1, 2>, 0, 3, false>();
}
TEST(Diagonals, more_padding_than_the_kernel_reaches) {
  weigh<BFloat16, K3, DiagonalTile<16, 1, 1, 2, 2>, 4, 3, false>();
}
TEST(Diagonals, wide_planes_of_few_rows) {
  using Tile = DiagonalTile<16, 1, 1, 2, 2>;
  using TileS2 = DiagonalTile<16, 1, 1, 2, 2, 1>;
  EXPECT_FALSE((fits<K3, Tile, 11, 1>(8, 256, 16384)));
  EXPECT_FALSE((fits<Kernel<1, 1, 1, 1>, Tile, 1, 1>(8, 256, 9200)));
  EXPECT_FALSE((fits<Kernel<3, 3, 2, 2>, TileS2, 11, 1>(16, 256, 12288)));
  EXPECT_TRUE((fits<K3, Tile, 1, 1>(8, 256, 16384)));
  EXPECT_TRUE((fits<K3, Tile, 11, 1>(24, 256, 16384)));
}
TEST(Diagonals, even_kernel) {
  weigh<Float16, Kernel<2, 4, 1, 1>, DiagonalTile<16, 1, 1, 1, 2>, 0, 1, true>();
}
TEST(Diagonals, single_rows_and_columns_of_taps) {
  weigh<BFloat16, Kernel<1, 7, 1, 1>, DiagonalTile<16, 1, 1, 2, 2>, 0, 3, true>();
  weigh<BFloat16, Kernel<7, 1, 1, 1>, DiagonalTile<16, 1, 1, 1, 2>, 3, 0, true>();
}
TEST(Diagonals, dilation) {
  weigh<BFloat16, K3, DiagonalTile<16, 1, 1, 2, 2>, 2, 2, true, Spread<2, 2>>();
  weigh<Float16, K3, DiagonalTile<16, 1, 1, 1, 2>, 3, 5, true, Spread<3, 5>>();
}

TEST(Diagonals, known_small_planes) {
  weigh_known<BFloat16, K3, 7, 7, DiagonalTile<8, 4, 1, 1, 2>, 1, 1, true>();
}
TEST(Diagonals, known_small_planes_of_a_wide_kernel) {
  weigh_known<Float16, K5, 7, 7, DiagonalTile<8, 3, 1, 1, 3>, 2, 2, false>();
  weigh_known<Float16, K7, 8, 8, DiagonalTile<8, 2, 1, 2, 3>, 3, 3, true>();
}
TEST(Diagonals, known_planes_of_a_product) {
  weigh_known<BFloat16, K3, 14, 14, DiagonalTile<16, 4, 1, 2, 2>, 1, 1, true>();
  weigh_known<Float16, K7, 16, 16, DiagonalTile<16, 1, 1, 4, 2>, 3, 3, true>();
}
TEST(Diagonals, known_odd_rows) {
  weigh_known<BFloat16, K5, 13, 13, DiagonalTile<16, 3, 1, 1, 3>, 2, 2, true>();
  weigh_known<Float16, Kernel<3, 5, 1, 1>, 15, 17, DiagonalTile<16, 2, 1, 1, 3>, 1, 2, false>();
}
TEST(Diagonals, known_planes_of_some_products) {
  weigh_known<BFloat16, K3, 28, 28, DiagonalTile<16, 2, 1, 4, 2>, 1, 1, true>();
  weigh_known<BFloat16, K5, 28, 30, DiagonalTile<16, 1, 2, 2, 2>, 2, 2, false>();
}
TEST(Diagonals, known_planes_whose_products_warps_share) {
  weigh_known<BFloat16, K7, 24, 44, DiagonalTile<16, 1, 2, 4, 2>, 3, 3, true>();
  weigh_known<Float16, K3, 9, 60, DiagonalTile<16, 2, 4, 4, 2>, 1, 1, false>();
}
TEST(Diagonals, known_planes_whose_even_rows_come_first) {
  static_assert(RowOrder<4, 12>::kEvenFirst && RowOrder<4, 28>::kEvenFirst && !RowOrder<4, 56>::kEvenFirst);
  weigh_known<BFloat16, K7, 20, 24, DiagonalTile<16, 2, 1, 4, 2>, 3, 3, true>();
  weigh_known<Float16, K3, 9, 56, DiagonalTile<16, 1, 2, 4, 3>, 1, 1, false>();
}
TEST(Diagonals, known_planes_without_padding) {
  weigh_known<BFloat16, K5, 16, 20, DiagonalTile<16, 2, 1, 4, 2>, 0, 0, true>();
  weigh_known<Float16, K3, 9, 9, DiagonalTile<8, 2, 1, 1, 2>, 0, 0, false>();
}
TEST(Diagonals, known_planes_and_more_padding_than_a_tile_has_columns) {
  weigh_known<BFloat16, K3, 9, 21, DiagonalTile<16, 1, 1, 1, 2>, 1, 17, true>();
  weigh_known<BFloat16, K3, 10, 20, DiagonalTile<16, 2, 1, 2, 2>, 1, 18, false>();
}
TEST(Diagonals, known_planes_and_more_padding_than_the_kernel_reaches) {
  weigh_known<BFloat16, K3, 6, 6, DiagonalTile<16, 2, 1, 2, 2>, 12, 4, false>();
}
TEST(Diagonals, known_planes_that_windows_reach_beyond) {
  weigh_known<Float16, Kernel<2, 4, 1, 1>, 10, 12, DiagonalTile<16, 2, 1, 4, 2>, 0, 1, true, Spread<1, 1>, 1,
              1>();
}
TEST(Diagonals, known_planes_dilation) {
  weigh_known<BFloat16, K3, 14, 14, DiagonalTile<16, 2, 1, 2, 2>, 2, 2, true, Spread<2, 2>>();
}

TEST(Diagonals, two_products_side_by_side) {
  weigh<BFloat16, K3, DiagonalTile<32, 1, 1, 8, 2>, 1, 1, true>();
  weigh<Float16, Kernel<3, 7, 1, 1>, DiagonalTile<32, 1, 2, 8, 2, 2>, 0, 0, false>(2);
  weigh<BFloat16, K7, DiagonalTile<32, 1, 1, 8, 3, 4>, 3, 3, false>();
  weigh<Float16, K5, DiagonalTile<32, 2, 1, 1, 2>, 2, 2, true>();
  weigh<BFloat16, Kernel<3, 5, 2, 2>, DiagonalTile<32, 1, 1, 8, 2, 4>, 1, 2, true>();
  weigh_known<BFloat16, K3, 20, 72, DiagonalTile<32, 1, 1, 8, 2>, 1, 1, true>();
  weigh_known<Float16, K5, 11, 40, DiagonalTile<32, 2, 2, 8, 2>, 2, 2, false>();
}

using K3s2 = Kernel<3, 3, 2, 2>;
using K5s2 = Kernel<5, 5, 2, 2>;

TEST(Diagonals, strides) {
  weigh<BFloat16, K3s2, DiagonalTile<16, 1, 1, 2, 2>, 1, 1, true>();
  weigh<Float16, K5s2, DiagonalTile<16, 2, 2, 4, 3, 2>, 2, 2, false>();
  weigh<Float16, K5s2, DiagonalTile<16, 2, 1, 4, 3>, 2, 2, true>(2);
}
TEST(Diagonals, strides_and_odd_rows) {
  weigh<BFloat16, K3s2, DiagonalTile<8, 1, 1, 1, 2>, 1, 1, true>(2);
  weigh<BFloat16, K5s2, DiagonalTile<8, 2, 1, 2, 2, 1>, 2, 2, true>();
  weigh<Float16, K3s2, DiagonalTile<16, 1, 2, 1, 2, 2>, 0, 0, false>();
}
TEST(Diagonals, strides_of_one_axis) {
  weigh<BFloat16, Kernel<3, 5, 1, 2>, DiagonalTile<16, 1, 1, 2, 2, 1>, 1, 2, true>();
  weigh<BFloat16, Kernel<5, 3, 2, 1>, DiagonalTile<16, 1, 1, 1, 2>, 2, 1, true>(2);
  weigh<Float16, Kernel<3, 4, 3, 1>, DiagonalTile<16, 2, 1, 2, 2>, 0, 3, true>();
}
TEST(Diagonals, strides_of_three) {
  weigh<BFloat16, Kernel<3, 3, 3, 3>, DiagonalTile<16, 1, 1, 1, 2>, 1, 1, true>();
  weigh<Float16, Kernel<7, 7, 3, 3>, DiagonalTile<16, 1, 1, 4, 2, 2>, 3, 3, false>();
  weigh<Float16, Kernel<2, 2, 3, 3>, DiagonalTile<8, 1, 1, 2, 2, 1>, 0, 0, true>();
}
TEST(Diagonals, strides_beyond_the_kernel) {
  weigh<BFloat16, Kernel<1, 1, 2, 2>, DiagonalTile<16, 1, 1, 1, 2>, 0, 0, true>();
  weigh<BFloat16, Kernel<1, 3, 2, 2>, DiagonalTile<16, 2, 1, 2, 2, 1>, 1, 1, false>();
}
TEST(Diagonals, strides_and_dilation) {
  weigh<BFloat16, K3s2, DiagonalTile<16, 1, 1, 2, 2, 1>, 2, 2, true, Spread<2, 2>>();
  weigh<Float16, K3s2, DiagonalTile<16, 1, 1, 1, 2>, 3, 3, true, Spread<3, 3>>();
  weigh<Float16, Kernel<3, 5, 3, 3>, DiagonalTile<16, 1, 1, 1, 2>, 2, 4, false, Spread<2, 2>>();
}
TEST(Diagonals, strides_and_more_padding_than_the_kernel_reaches) {
  weigh<BFloat16, K3s2, DiagonalTile<16, 1, 1, 2, 2, 1>, 5, 3, false>();
}
TEST(Diagonals, known_planes_and_strides) {
  weigh_known<BFloat16, K3s2, 28, 28, DiagonalTile<16, 2, 1, 4, 3, 2>, 1, 1, true>();
  weigh_known<BFloat16, K3s2, 14, 14, DiagonalTile<8, 4, 1, 2, 2, 1>, 1, 1, false>();
  weigh_known<Float16, K5s2, 14, 14, DiagonalTile<8, 2, 1, 2, 4, 1>, 2, 2, true>();
  weigh_known<Float16, K5s2, 56, 56, DiagonalTile<16, 1, 2, 4, 2>, 2, 2, true>();
  weigh_known<BFloat16, Kernel<7, 7, 2, 2>, 24, 40, DiagonalTile<16, 1, 1, 4, 2>, 3, 3, false>();
}
TEST(Diagonals, known_planes_and_strides_and_odd_rows) {
  weigh_known<BFloat16, K3s2, 15, 15, DiagonalTile<8, 3, 1, 1, 2, 2>, 1, 1, true>();
  weigh_known<Float16, K5s2, 13, 27, DiagonalTile<16, 2, 1, 1, 2, 2>, 2, 2, true>();
  weigh_known<BFloat16, K3s2, 17, 21, DiagonalTile<16, 2, 1, 1, 3>, 1, 1, false>();
  weigh_known<BFloat16, Kernel<5, 5, 3, 3>, 25, 31, DiagonalTile<16, 1, 1, 1, 2>, 2, 2, true>();
}
TEST(Diagonals, known_planes_without_padding_and_strides) {
  weigh_known<BFloat16, K5s2, 15, 16, DiagonalTile<8, 2, 1, 2, 2>, 0, 0, true>();
  weigh_known<Float16, K3s2, 9, 12, DiagonalTile<8, 2, 1, 4, 2, 1>, 0, 0, false>();
}
TEST(Diagonals, several_outputs) {
  weigh<BFloat16, Kernel<3, 3, 1, 1, 2>, DiagonalTile<16, 2, 1, 2, 2>, 1, 1, true>();
  weigh<Float16, Kernel<3, 3, 2, 2, 3>, DiagonalTile<16, 1, 2, 1, 2>, 1, 1, true>(2);
  weigh_known<BFloat16, Kernel<3, 3, 1, 1, 2>, 14, 14, DiagonalTile<16, 2, 1, 2, 2>, 1, 1, true>();
  weigh_known<Float16, Kernel<5, 5, 1, 1, 2>, 13, 13, DiagonalTile<16, 2, 1, 1, 2>, 2, 2, false>();
  weigh_known<BFloat16, Kernel<3, 3, 2, 2, 2>, 28, 28, DiagonalTile<16, 1, 1, 4, 2, 2>, 1, 1, true>();
  weigh_known<BFloat16, Kernel<3, 3, 2, 2, 3>, 15, 13, DiagonalTile<8, 2, 1, 1, 2>, 1, 1, true>();
}

TEST(Diagonals, transform) {
  weigh<BFloat16, K3, DiagonalTile<16, 1, 1, 2, 2>, 1, 1, true, Spread<1, 1>, kClamp>();
  weigh<Float16, K5, DiagonalTile<16, 2, 1, 1, 2>, 2, 2, false, Spread<1, 1>, kHardSwish>(2);
  weigh<Float16, K5s2, DiagonalTile<16, 2, 1, 1, 2>, 2, 2, true, Spread<1, 1>, kHardSwish>(2);
}
TEST(Diagonals, known_planes_and_transform) {
  weigh_known<BFloat16, K3, 7, 7, DiagonalTile<8, 4, 1, 1, 2>, 1, 1, true, Spread<1, 1>, 0, 0, kClamp>();
  weigh_known<Float16, K5, 28, 28, DiagonalTile<16, 2, 1, 4, 2>, 2, 2, false, Spread<1, 1>, 0, 0,
              kHardSwish>();
  weigh_known<BFloat16, K3s2, 15, 28, DiagonalTile<8, 2, 1, 4, 2, 1>, 1, 1, true, Spread<1, 1>, 0, 0,
              kClamp>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
