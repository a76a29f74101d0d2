#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_columns.h"
#include "layers/depthwise_conv2d/cuda/device/whole_columns.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 40;

/// kWeight: the weight's gradient, with the bias's if kBias; else the forward. kPadding: of columns.
template <class K, class Tile, bool kWeight, int kPadding, bool kBias = false>
void check(int padding_h = -1) {
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted{Case<float, K>::kSizes};
    wanted.width = Tile::kVectorX, wanted.out_width = Tile::kVectorG;
    wanted.padding_h = padding_h >= 0 ? padding_h : draw(0, K::kH - 1), wanted.padding_w = kPadding;
    wanted.spread_h = wanted.spread_w = 1;
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    if (g.out_h > g.h + g.padding_h) return false;
    Case<float, K> problem(draw, g, {false, Tile::kVectorX, Tile::kVectorG});
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    ColumnTileSizes tile{Tile::kColumns, Tile::kRows,    Tile::kSlots,   Tile::kTeam,   Tile::kWarps,
                         Tile::kVectorX, Tile::kCopiesX, Tile::kVectorG, Tile::kCopiesG};
    const Launch launch =
        cut_columns(work, g.batch, g.channels, problem.kSizes, kWeight, tile, draw(1, 40), draw(1, 20));
    if (launch.blocks == 0 || tile.copies_x > Tile::kCopiesX || tile.copies_g > Tile::kCopiesG) return false;
    if constexpr (kWeight)
      problem.backward(work, launch, {false, true, kBias}, false, false,
                       [&] { weigh_columns<float, K, Tile, kPadding, kBias, 1>(work); });
    else
      problem.forward(work, launch, false, [&] { forward_columns<float, K, Tile, kPadding, 1>(work); });
    return true;
  });
}

/// The weight's gradient, of whole planes.
template <class K, class M, bool kBias, int kPages, int kWarps>
void check_whole() {
  for_seeds(kSeeds, [](Draw& draw) {
    Geometry g{};
    g.batch = draw(1, 9), g.channels = draw(1, 20) * 4, g.repeat = 1, g.kernel_h = K::kH, g.kernel_w = K::kW;
    g.h = M::kHeight, g.w = M::kWidth, g.padding_h = M::kPaddingH, g.padding_w = M::kPaddingW;
    g.out_h = g.h + 2 * g.padding_h - K::kH + 1, g.out_w = g.w + 2 * g.padding_w - K::kW + 1;
    g.stride_h = g.stride_w = g.dilation_h = g.dilation_w = 1;
    SCOPED_TRACE(to_string(g));
    Case<float, K> problem(draw, g, {false, 4, 4});
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    const Launch launch = cut_whole_columns(work, g.batch, g.channels, kPages, kWarps, draw(1, 20));
    problem.backward(work, launch, {false, true, kBias}, false, false,
                     [&] { weigh_whole_columns<float, K, M, kBias, kPages, kWarps, 1>(work); });
    return true;
  });
}

TEST(Columns, forward_vectors) {
  check<Kernel<7, 7, 1, 1>, ColumnTile<4, 1, 5, 1, 2, 4, 2, 4, 0>, false, 3>(3);
}
TEST(Columns, forward_steps_of_two_rows) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<4, 2, 3, 1, 4, 2, 4, 2, 4>, false, 2>();
}
TEST(Columns, forward_rows_of_any_width) {
  check<Kernel<5, 4, 1, 1>, ColumnTile<8, 2, 2, 1, 2, 1, 8, 1, 8>, false, 1>();
}
TEST(Columns, forward_without_padding) {
  check<Kernel<3, 7, 1, 1>, ColumnTile<4, 4, 3, 1, 1, 2, 4, 1, 0>, false, 0>();
}
TEST(Columns, forward_of_all_padding) {
  check<Kernel<7, 3, 1, 1>, ColumnTile<4, 1, 3, 1, 2, 1, 4, 1, 4>, false, 2>(6);
}
TEST(Columns, forward_of_teams) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<4, 1, 6, 3, 3, 4, 1, 4, 0>, false, 2>(2);
}
TEST(Columns, forward_of_two_teams) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<8, 1, 3, 2, 4, 1, 4, 1, 4>, false, 4>();
}
TEST(Columns, forward_of_one_row) {
  check<Kernel<1, 15, 1, 1>, ColumnTile<4, 2, 3, 1, 2, 1, 4, 1, 0>, false, 7>();
}

TEST(Columns, forward_of_seven_columns) {
  check<Kernel<7, 7, 1, 1>, ColumnTile<7, 1, 5, 1, 2, 2, 4, 2, 4>, false, 3>(3);
}
TEST(Columns, forward_of_fourteen_columns) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<14, 2, 3, 2, 2, 1, 4, 1, 4>, false, 2>();
}

TEST(Columns, weight_of_seven_columns) {
  check<Kernel<7, 7, 1, 1>, ColumnTile<7, 1, 5, 1, 2, 2, 4, 2, 4>, true, 3, true>(3);
}
TEST(Columns, weight_of_fourteen_columns) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<14, 2, 3, 2, 2, 1, 4, 2, 4>, true, 2, true>();
}
TEST(Columns, weight_vectors) {
  check<Kernel<7, 7, 1, 1>, ColumnTile<4, 1, 5, 1, 2, 4, 2, 4, 2>, true, 3, true>(3);
}
TEST(Columns, weight_steps_of_two_rows) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<4, 2, 3, 1, 4, 2, 4, 2, 4>, true, 2, true>();
}
TEST(Columns, weight_rows_of_any_width) {
  check<Kernel<5, 4, 1, 1>, ColumnTile<8, 2, 2, 1, 2, 1, 8, 1, 8>, true, 1, true>();
}
TEST(Columns, weight_without_padding_and_bias) {
  check<Kernel<3, 7, 1, 1>, ColumnTile<4, 4, 3, 1, 1, 2, 4, 1, 8>, true, 0>();
}
TEST(Columns, weight_of_all_padding) {
  check<Kernel<7, 3, 1, 1>, ColumnTile<4, 1, 3, 1, 2, 1, 4, 1, 4>, true, 2, true>(6);
}
TEST(Columns, weight_of_teams) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<4, 2, 3, 3, 3, 4, 1, 4, 1>, true, 2, true>(2);
}
TEST(Columns, weight_of_two_teams) {
  check<Kernel<5, 5, 1, 1>, ColumnTile<8, 1, 3, 2, 4, 1, 4, 1, 4>, true, 4, true>();
}
TEST(Columns, weight_of_one_row) {
  check<Kernel<1, 15, 1, 1>, ColumnTile<4, 2, 3, 1, 2, 1, 4, 1, 4>, true, 7, true>();
}

TEST(Columns, weight_of_whole_planes) { check_whole<Kernel<5, 5, 1, 1>, Map<7, 7, 2, 2>, true, 2, 3>(); }
TEST(Columns, weight_of_whole_planes_without_padding) {
  check_whole<Kernel<3, 5, 1, 1>, Map<5, 9, 0, 1>, false, 3, 1>();
}

// A thread finds its plane among a team's by a number of 32 bits.
TEST(Columns, planes_of_a_team_are_not_too_long) {
  for (const bool weight : {false, true}) {
    PlaneWork work;
    work.h = {1 << 24, 1 << 24, 1, 7, 1, 1}, work.w = {1, 1, 1, 0, 1, 1};
    ColumnTileSizes tile{4, 1, 3, 8, 8, 1, 1, 1, 1};
    const Launch launch = cut_columns(work, 1, 256, {15, 1, 1, 1, 1}, weight, tile, 1 << 24, 1);
    EXPECT_GT(launch.blocks, 0);
    EXPECT_LT(std::int64_t{work.cut.planes} * work.h.input, std::int64_t{1} << 31);
  }
}

}  // namespace
}  // namespace lamella::depthwise::checks
