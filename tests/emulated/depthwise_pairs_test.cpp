#include <utility>

#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_diagonals.h"
#include "layers/depthwise_conv2d/cuda/cut_matrices.h"
#include "layers/depthwise_conv2d/cuda/cut_pairs.h"
#include "layers/depthwise_conv2d/cuda/device/pairs.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 20;
constexpr int kPairThreads = kThreads + 32;  // and the warp that asks for runs

/// Planes of any rows, and of kSize columns on either side.
template <class T, class K, int kSize, class Tile, class Diagonal, bool kBias>
void both() {
  constexpr int kPaddingH = K::kH / 2, kPaddingW = K::kW / 2;
  for_seeds(kSeeds, [](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = wanted.out_width = kSize, wanted.most_images = 2 * Tile::kImages + 1;
    wanted.padding_h = kPaddingH, wanted.padding_w = kPaddingW, wanted.spread_h = wanted.spread_w = 1;
    Geometry g{};
    do g = draw_geometry(draw, wanted);
    while (g.w != kSize || g.out_w != kSize || (kSize % 2 == 1 && g.channels * g.out_h % 2 == 1));
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, 2, 2});
    problem.never_add();
    PairWork pair;
    PlaneWork &input = pair.input, &weight = pair.weight;
    problem.describe(weight, false);
    const Launch weighs = cut_diagonals(weight, g.batch, g.channels, problem.kSizes, 1, 1,
                                        {Diagonal::kColumns, Diagonal::kPlanes, Diagonal::kGroups,
                                         Diagonal::kVector, Diagonal::kPages, false},
                                        kPairThreads, draw(1, 6) * std::int64_t{3000}, kBias, 1);
    // The gradient of the input is the forward with the turned kernel.
    problem.describe(input, false);
    for (Axis* const axis : {&input.h, &input.w}) {
      std::swap(axis->input, axis->output);
      axis->padding = (axis == &input.h ? K::kH : K::kW) - 1 - axis->padding;
    }
    input.x = weight.y, input.y = weight.dx, input.taps.turned = !weight.taps.turned;
    const Launch multiplies = cut_forward_matrices(
        input, g.batch, g.channels, problem.kSizes,
        {Tile::kColumns, Tile::kRead, Tile::kImages, Tile::kHeld, Tile::kWarps, Tile::kPages}, kPairThreads,
        draw(1, 3), draw(1, 12) * std::int64_t{1000}, 1);
    if (weighs.blocks == 0 || multiplies.blocks == 0) return false;
    const Launch launch = cut_pairs(pair, g.batch, g.channels, multiplies, weighs, draw(1, 20));
    if (launch.blocks == 0) return false;
    problem.backward(weight, launch, {true, true, kBias}, false, false, [&] {
      using Plane = MatrixPlane<kSize, kSize>;
      constexpr auto kWeighs = weigh_diagonals<T, K, Spread<1, 1>, PlaneSizes<0, 0, 0, 0>, Diagonal,
                                               kPaddingH, kPaddingW, kBias, kPlain, kPairThreads>;
      input.taps.bias = nullptr;
      if (input.cut.bands > 1)
        backward_pairs<multiply_matrices<T, K, Plane, Tile, true, kPairThreads>, kWeighs, kPairThreads, 1>(
            pair);
      else
        backward_pairs<multiply_matrices<T, K, Plane, Tile, false, kPairThreads>, kWeighs, kPairThreads, 1>(
            pair);
    });
    return true;
  });
}

TEST(Pairs, both_gradients_3x3) {
  both<BFloat16, Kernel<3, 3, 1, 1>, 14, MatrixTile<4, 8, 2, 1, 1, 2>, DiagonalTile<16, 1, 1, 2, 2>, false>();
}
TEST(Pairs, both_gradients_and_that_of_the_bias) {
  both<Float16, Kernel<3, 3, 1, 1>, 28, MatrixTile<4, 8, 1, 1, 4, 2>, DiagonalTile<16, 2, 2, 2, 3>, true>();
}
TEST(Pairs, both_gradients_5x5_odd_rows) {
  both<BFloat16, Kernel<5, 5, 1, 1>, 13, MatrixTile<8, 16, 4, 1, 2, 2>, DiagonalTile<16, 1, 1, 1, 2>, true>();
}
TEST(Pairs, both_gradients_of_small_maps) {
  both<Float16, Kernel<3, 3, 1, 1>, 7, MatrixTile<4, 8, 4, 2, 1, 2>, DiagonalTile<8, 2, 1, 1, 2>, false>();
}

int met[2];
template <int kKind>
void meet(const PlaneWork& work, int number) {
  ASSERT_EQ(number, met[kKind]++);
  ASSERT_LT(number, work.channels);
}

TEST(Pairs, blocks_of_very_many_channels) {
  constexpr int kChannels = 40000;
  PairWork pair;
  pair.input_groups = pair.weight_groups = pair.input.channels = pair.weight.channels = kChannels;
  met[0] = met[1] = 0;
  emulated::run(2 * kChannels, 1, 0, [&] {
    if (!::testing::Test::HasFailure()) backward_pairs<meet<0>, meet<1>, 1, 1>(pair);
  });
  EXPECT_EQ(met[0], kChannels);
  EXPECT_EQ(met[1], kChannels);
}

}  // namespace
}  // namespace lamella::depthwise::checks
