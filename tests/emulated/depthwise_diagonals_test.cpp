#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/device/diagonals.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 30;
constexpr int kDiagonalThreads = kThreads + 32;  // and the warp that asks for runs

/// Warps that share a plane.
struct Groups {
  int columns = 1, rows = 1;
};

template <class T, class K, class Tile, int kPadding, bool kBias, class S = Spread<1, 1>>
void weigh(int padding_h, Groups groups = {}) {
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = wanted.out_width = Tile::kVector;
    wanted.padding_h = padding_h, wanted.padding_w = kPadding;
    wanted.spread_h = S::kHeight, wanted.spread_w = S::kWidth;
    DiagonalTileSizes tile{Tile::kColumns, Tile::kPlanes, Tile::kRowBlocks, Tile::kEnds,
                           Tile::kVector,  Tile::kPages,  groups.columns,   groups.rows};
    // Of planes of a certain size there are few.
    Geometry g{};
    const auto fits = [&] {
      if (Tile::kRowBlocks == 0) return true;
      const int reach = (K::kH - 1) * S::kHeight;
      return g.out_w <= Tile::kColumns && (g.h + 7) / 8 == Tile::kRowBlocks &&
             (g.out_h <= 8 * Tile::kRowBlocks + padding_h - reach) == Tile::kEnds &&
             (!kBias || g.out_h <= g.h);
    };
    do g = draw_geometry(draw, wanted);
    while (!fits());
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, Tile::kVector, Tile::kVector});
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    const Launch launch =
        cut_diagonals(work, g.batch, g.channels, problem.kSizes, S::kHeight, S::kWidth, tile,
                      kDiagonalThreads, draw(1, 6) * std::int64_t{3000}, kBias, draw(1, 20));
    if (launch.blocks == 0) return false;
    work.cut.chain = draw(1, 3);
    problem.backward(work, launch, {false, true, kBias}, false, false,
                     [&] { backward_diagonals<T, K, S, Tile, kPadding, kBias, kDiagonalThreads, 1>(work); });
    return true;
  });
}

TEST(Diagonals, any_planes) {
  weigh<BFloat16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 1, 0, false, 2, 2>, 1, false>(1);
}
TEST(Diagonals, vectors) {
  weigh<Float16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 2, 0, false, 4, 3>, 1, true>(1, {2, 1});
}
TEST(Diagonals, vectors_of_a_wide_kernel) {
  weigh<BFloat16, Kernel<7, 7, 1, 1>, DiagonalTile<16, 1, 0, false, 4, 2>, 3, true>(3, {1, 2});
}
TEST(Diagonals, odd_rows) {
  weigh<BFloat16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 2, 0, false, 1, 2>, 1, true>(1, {1, 2});
}
TEST(Diagonals, odd_rows_of_a_wide_kernel) {
  weigh<Float16, Kernel<5, 5, 1, 1>, DiagonalTile<8, 1, 0, false, 1, 4>, 2, true>(2, {2, 2});
}
TEST(Diagonals, narrow_products) {
  weigh<BFloat16, Kernel<3, 5, 1, 1>, DiagonalTile<8, 1, 0, false, 2, 2>, 2, false>(1);
}
TEST(Diagonals, without_padding) {
  weigh<BFloat16, Kernel<5, 5, 1, 1>, DiagonalTile<16, 1, 0, false, 2, 2>, 0, true>(0, {1, 4});
}
TEST(Diagonals, padding_of_one_axis) {
  weigh<Float16, Kernel<3, 7, 1, 1>, DiagonalTile<16, 1, 0, false, 1, 2>, 3, false>(0);
}
TEST(Diagonals, more_padding_than_the_kernel_reaches) {
  weigh<BFloat16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 1, 0, false, 2, 2>, 3, false>(4);
}
TEST(Diagonals, even_kernel) {
  weigh<Float16, Kernel<2, 4, 1, 1>, DiagonalTile<16, 1, 0, false, 1, 2>, 1, true>(0);
}
TEST(Diagonals, single_rows_and_columns_of_taps) {
  weigh<BFloat16, Kernel<1, 7, 1, 1>, DiagonalTile<16, 1, 0, false, 2, 2>, 3, true>(0);
  weigh<BFloat16, Kernel<7, 1, 1, 1>, DiagonalTile<16, 1, 0, false, 1, 2>, 0, true>(3);
}
TEST(Diagonals, dilation) {
  weigh<BFloat16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 1, 0, false, 2, 2>, 2, true, Spread<2, 2>>(2);
  weigh<Float16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 1, 0, false, 1, 2>, 5, true, Spread<3, 5>>(3);
}
TEST(Diagonals, a_block_of_rows) {
  weigh<BFloat16, Kernel<3, 3, 1, 1>, DiagonalTile<8, 4, 1, true, 1, 2>, 1, true>(1);
}
TEST(Diagonals, a_block_of_rows_without_bias) {
  weigh<BFloat16, Kernel<5, 5, 1, 1>, DiagonalTile<8, 2, 1, true, 1, 2>, 2, false>(2);
}
TEST(Diagonals, two_blocks_of_rows) {
  weigh<Float16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 2, 2, true, 2, 2>, 1, true>(1);
}
TEST(Diagonals, two_blocks_of_rows_and_some_of_g_behind) {
  weigh<BFloat16, Kernel<5, 5, 1, 1>, DiagonalTile<16, 2, 2, false, 2, 2>, 2, true>(2);
}
TEST(Diagonals, two_blocks_of_odd_rows) {
  weigh<BFloat16, Kernel<3, 3, 1, 1>, DiagonalTile<16, 3, 2, true, 1, 3>, 1, false>(1);
}

}  // namespace
}  // namespace lamella::depthwise::checks
