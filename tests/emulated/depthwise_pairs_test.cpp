#include <set>
#include <string>
#include <utility>
#include <vector>

#include "depthwise_positions_case.h"
#include "layers/depthwise_conv2d/cuda/cut_diagonals.h"
#include "layers/depthwise_conv2d/cuda/cut_matrices.h"
#include "layers/depthwise_conv2d/cuda/cut_pairs.h"
#include "layers/depthwise_conv2d/cuda/device/pairs.cuh"
#include "layers/depthwise_conv2d/cuda/plan.h"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 20, kPositionSeeds = 8;
constexpr int kPairThreads = kThreads + 32;  // and the warp that asks for runs

using PlanePair = PairWork<PlaneWork>;

/// The gradient of the input is the forward with the turned kernel, from y to dx. The work is that of x and y
/// before.
template <class K>
void turn(PlaneWork& work, const PlaneWork& weight) {
  for (Axis* const axis : {&work.h, &work.w}) {
    std::swap(axis->input, axis->output);
    axis->padding = (axis == &work.h ? K::kH : K::kW) - 1 - axis->padding;
  }
  work.x = weight.y, work.y = weight.dx, work.taps.turned = !weight.taps.turned;
}

/// The launch of both, of which each has been cut alone.
Launch cut_plane_pair(PlanePair& pair, const Launch& input, int input_images, const Launch& weight,
                      int weight_images, std::int64_t images, std::int64_t wanted_blocks) {
  const auto kind = [](const PlaneWork& work, const Launch& launch, int of_item) {
    return PairKind{launch, ceiling(work.channels, work.cut.planes), work.items, of_item};
  };
  const PairKind of_input = kind(pair.input, input, input_images),
                 of_weight = kind(pair.weight, weight, weight_images);
  pair.input_groups = static_cast<int>(of_input.groups);
  pair.weight_groups = static_cast<int>(of_weight.groups);
  return cut_pairs(of_input, of_weight, images, wanted_blocks, pair.input.items_per_part,
                   pair.weight.items_per_part);
}

/// Planes of any rows, and of kSize columns on either side, by matrices and diagonals. kWarps: of the
/// diagonals' blocks that compute.
template <class T, class K, int kSize, class Tile, class Diagonal, bool kBias, int kWarps = kThreads / 32>
void matrices_and_diagonals() {
  constexpr int kPaddingH = K::kH / 2, kPaddingW = K::kW / 2, kWeighThreads = 32 * (kWarps + 1);
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
    PlanePair pair;
    PlaneWork &input = pair.input, &weight = pair.weight;
    problem.describe(weight, false);
    const Launch weighs = cut_diagonals(weight, g.batch, g.channels, problem.kSizes, 1, 1,
                                        {Diagonal::kColumns, Diagonal::kPlanes, Diagonal::kGroups,
                                         Diagonal::kVector, Diagonal::kPages, Diagonal::kVectorG, false},
                                        kWeighThreads, draw(1, 6) * std::int64_t{3000}, kBias, 1);
    problem.describe(input, false);
    turn<K>(input, weight);
    const Launch multiplies = cut_forward_matrices(
        input, g.batch, g.channels, problem.kSizes,
        {Tile::kColumns, Tile::kRead, Tile::kImages, Tile::kHeld, Tile::kWarps, Tile::kPages}, kPairThreads,
        draw(1, 3), draw(1, 12) * std::int64_t{1000}, 1);
    if (weighs.blocks == 0 || multiplies.blocks == 0) return false;
    const Launch launch = cut_plane_pair(pair, multiplies, Tile::kImages, weighs, 1, g.batch, draw(1, 20));
    if (launch.blocks == 0) return false;
    problem.backward(weight, launch, {true, true, kBias}, false, false, [&] {
      using Plane = MatrixPlane<kSize, kSize>;
      constexpr auto kWeighs = weigh_diagonals<T, K, Spread<1, 1>, PlaneSizes<0, 0, 0, 0>, Diagonal,
                                               kPaddingH, kPaddingW, kBias, kPlain, kWeighThreads>;
      input.taps.bias = nullptr;
      if (input.cut.bands > 1)
        backward_pairs<PlaneWork, multiply_matrices<T, K, Plane, Tile, true, kPairThreads>, kPairThreads,
                       kWeighs, kWeighThreads, 1>(pair);
      else
        backward_pairs<PlaneWork, multiply_matrices<T, K, Plane, Tile, false, kPairThreads>, kPairThreads,
                       kWeighs, kWeighThreads, 1>(pair);
    });
    return true;
  });
}

TEST(Pairs, both_gradients_3x3) {
  matrices_and_diagonals<BFloat16, Kernel<3, 3, 1, 1>, 14, MatrixTile<4, 8, 2, 1, 1, 2>,
                         DiagonalTile<16, 1, 1, 2, 2>, false>();
}
TEST(Pairs, both_gradients_and_that_of_the_bias) {
  matrices_and_diagonals<Float16, Kernel<3, 3, 1, 1>, 28, MatrixTile<4, 8, 1, 1, 4, 2>,
                         DiagonalTile<16, 2, 2, 2, 3>, true>();
}
TEST(Pairs, both_gradients_5x5_odd_rows) {
  matrices_and_diagonals<BFloat16, Kernel<5, 5, 1, 1>, 13, MatrixTile<8, 16, 4, 1, 2, 2>,
                         DiagonalTile<16, 1, 1, 1, 2>, true>();
}
TEST(Pairs, both_gradients_of_small_maps) {
  matrices_and_diagonals<Float16, Kernel<3, 3, 1, 1>, 7, MatrixTile<4, 8, 4, 2, 1, 2>,
                         DiagonalTile<8, 2, 1, 1, 2>, false>();
}
TEST(Pairs, blocks_of_other_sizes) {
  matrices_and_diagonals<BFloat16, Kernel<3, 3, 1, 1>, 14, MatrixTile<4, 8, 2, 1, 2, 2>,
                         DiagonalTile<16, 1, 1, 2, 2>, true, 2>();
  matrices_and_diagonals<BFloat16, Kernel<3, 3, 1, 1>, 14, MatrixTile<4, 8, 1, 1, 1, 2>,
                         DiagonalTile<16, 1, 1, 2, 2>, false, 7>();
}

/// Both of positions; the input's gradient by the turned kernel, or, for steps, by the transposed matrix.
template <class T, class K, class Map, class InputTile, class WeightTile, bool kBias,
          int kTransforms = kPlain>
void positions() {
  for_seeds(kPositionSeeds, [](Draw& draw) {
    constexpr bool kTransposed = K::kStrideH > 1 || K::kStrideW > 1;
    static_assert(kTransposed || (Map::kInH == Map::kOutH && Map::kInW == Map::kOutW));
    using InputMap =
        std::conditional_t<kTransposed, Map,
                           PositionMap<Map::kOutH, Map::kOutW, Map::kInH, Map::kInW,
                                       K::kH - 1 - Map::kPaddingH, K::kW - 1 - Map::kPaddingW, 1, 1>>;
    using InputPlan = PositionPlan<K, InputMap, InputTile, kTransposed, 8, 2>;
    using WeightPlan = PositionPlan<K, Map, WeightTile, false, 16, 1>;
    constexpr int kInputThreads = 32 * (InputPlan::kWarps + 1),
                  kWeightThreads = 32 * (WeightPlan::kWarps + 1);
    Geometry g{
        draw(1, 100), draw(1, 20), 1,           K::kH,       K::kW,          Map::kInH,      Map::kInW,
        Map::kOutH,   Map::kOutW,  K::kStrideH, K::kStrideW, Map::kPaddingH, Map::kPaddingW, Map::kSpreadH,
        Map::kSpreadW};
    while (g.channels * Map::kIn % 8 != 0 || g.channels * Map::kOut % 8 != 0) ++g.channels;
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, 8, 8}, kTransforms);
    problem.never_add();
    PlanePair pair;
    PlaneWork &input = pair.input, &weight = pair.weight;
    problem.describe(weight, false), problem.describe(input, false);
    if (!kTransposed) turn<K>(input, weight);
    constexpr PositionTileSizes kWeightTile{WeightTile::kUnits, WeightTile::kImageSteps, WeightTile::kPages},
        kInputTile{InputTile::kUnits, InputTile::kImageSteps, InputTile::kPages};
    const Launch weighs = cut_weigh_positions(weight, g.batch, g.channels, WeightPlan::kSizes,
                                              WeightPlan::kLayout, kWeightTile, kBias, 1);
    const Launch correlates = cut_correlate_positions(input, g.batch, g.channels, InputPlan::kSizes,
                                                      InputPlan::kLayout, kInputTile, 1);
    const ImageRuns sources = image_runs(InputPlan::kSizes, kInputTile, InputPlan::kLayout.source_pitch);
    ImageMaps input_maps, weight_maps;
    input_maps.describe(input, kTransposed ? ImageRuns{} : sources, InputMap::kIn,
                        kTransposed ? sources : ImageRuns{}, InputMap::kOut);
    weight_maps.describe(
        weight, image_runs(WeightPlan::kSizes, kWeightTile, WeightPlan::kLayout.source_pitch), Map::kIn,
        image_runs(WeightPlan::kSizes, kWeightTile, WeightPlan::kLayout.result_pitch), Map::kOut);
    const Launch launch = cut_plane_pair(pair, correlates, InputTile::kImages, weighs, WeightTile::kImages,
                                         g.batch, draw(1, 40));
    problem.backward(weight, launch, {true, true, kBias}, false, false, [&] {
      input.taps.bias = nullptr;
      backward_pairs<PlaneWork, correlate_positions<T, K, InputMap, InputTile, kInputThreads, kTransposed>,
                     kInputThreads,
                     weigh_position_block<T, K, Map, WeightTile, kBias, kTransforms, kWeightThreads>,
                     kWeightThreads, 1>(pair);
    });
    return true;
  });
}

TEST(Pairs, of_positions) {
  positions<BFloat16, Kernel<3, 3, 1, 1>, PositionMap<7, 7, 7, 7, 1, 1, 1, 1>, PositionTile<8, 7, 1, 2>,
            PositionTile<3, 2, 2, 2>, true>();
  positions<Float16, Kernel<5, 5, 1, 1>, PositionMap<7, 7, 7, 7, 2, 2, 1, 1>, PositionTile<4, 5, 2, 2>,
            PositionTile<2, 3, 1, 2>, false, kClamp>();
}
TEST(Pairs, of_positions_with_steps) {
  positions<BFloat16, Kernel<3, 3, 2, 2>, PositionMap<14, 14, 7, 7, 1, 1, 1, 1>, PositionTile<2, 7, 1, 2>,
            PositionTile<2, 1, 1, 2>, false>();
  positions<Float16, Kernel<5, 5, 2, 2>, PositionMap<14, 14, 7, 7, 2, 2, 1, 1>, PositionTile<1, 4, 2, 2>,
            PositionTile<1, 1, 1, 2>, true>();
}

/// Of small maps, by matrices and positions.
TEST(Pairs, of_matrices_and_positions) {
  for_seeds(kPositionSeeds, [](Draw& draw) {
    using T = BFloat16;
    using K = Kernel<3, 3, 1, 1>;
    constexpr int kSize = 14;
    using Tile = MatrixTile<4, 8, 2, 1, 1, 2>;
    using Map = PositionMap<kSize, kSize, kSize, kSize, 1, 1, 1, 1>;
    using WeightTile = PositionTile<1, 2, 1, 2>;
    using WeightPlan = PositionPlan<K, Map, WeightTile, false, 16, 1>;
    constexpr int kWeightThreads = 32 * (WeightPlan::kWarps + 1);
    Geometry g{draw(1, 60), 2 * draw(1, 6), 1, 3, 3, kSize, kSize, kSize, kSize, 1, 1, 1, 1, 1, 1};
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, 8, 8});
    problem.never_add();
    PlanePair pair;
    PlaneWork &input = pair.input, &weight = pair.weight;
    problem.describe(weight, false), problem.describe(input, false);
    turn<K>(input, weight);
    constexpr PositionTileSizes kWeightTile{WeightTile::kUnits, WeightTile::kImageSteps, WeightTile::kPages};
    const Launch weighs = cut_weigh_positions(weight, g.batch, g.channels, WeightPlan::kSizes,
                                              WeightPlan::kLayout, kWeightTile, true, 1);
    ImageMaps maps;
    maps.describe(weight, image_runs(WeightPlan::kSizes, kWeightTile, WeightPlan::kLayout.source_pitch),
                  Map::kIn, image_runs(WeightPlan::kSizes, kWeightTile, WeightPlan::kLayout.result_pitch),
                  Map::kOut);
    const Launch multiplies = cut_forward_matrices(
        input, g.batch, g.channels, problem.kSizes,
        {Tile::kColumns, Tile::kRead, Tile::kImages, Tile::kHeld, Tile::kWarps, Tile::kPages}, kPairThreads,
        1, std::int64_t{1} << 14, 1);
    if (multiplies.blocks == 0 || input.cut.bands > 1) return false;
    const Launch launch =
        cut_plane_pair(pair, multiplies, Tile::kImages, weighs, WeightTile::kImages, g.batch, draw(1, 40));
    problem.backward(weight, launch, {true, true, true}, false, false, [&] {
      input.taps.bias = nullptr;
      backward_pairs<PlaneWork, multiply_matrices<T, K, MatrixPlane<kSize, kSize>, Tile, false, kPairThreads>,
                     kPairThreads, weigh_position_block<T, K, Map, WeightTile, true, kPlain, kWeightThreads>,
                     kWeightThreads, 1>(pair);
    });
    return true;
  });
}

TEST(Pairs, that_are_tried_first_differ) {
  Problem problem;
  problem.pass = Pass::Both, problem.dtype = DType::BFloat16, problem.boxes = true;
  const auto pairs = [&](std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t channels) {
    const Size2 in(size), out((size - 1) / stride + 1);
    problem.geometry = {256, channels,      channels,      channels,          in,
                        out, Size2(kernel), Size2(stride), Size2(kernel / 2), {1, 1}};
    std::vector<Plan> plans = plans_for(problem);
    std::erase_if(plans, [](const Plan& plan) { return plan.family != Plan::Family::Pairs; });
    return plans;
  };
  // Of the first dozen.
  const auto expect_different = [](const std::vector<Plan>& plans) {
    constexpr std::size_t kTried = 12;
    ASSERT_GE(plans.size(), kTried);
    std::set<std::string> inputs, weights;
    std::set<std::int64_t> parts;
    for (std::size_t i = 0; i < kTried; ++i) {
      const Plan &input = plans[i].kinds[0], &weight = plans[i].kinds[1];
      inputs.insert(input.kernel + input.what), weights.insert(weight.kernel + weight.what);
      parts.insert(plans[i].launch.parts);
    }
    EXPECT_GE(inputs.size(), 4U);
    EXPECT_GE(weights.size(), 4U);
    EXPECT_GE(parts.size(), 3U);
  };
  for (const bool last : {false, true})
    for (const std::int64_t size : {7, 14, 28, 56, 112}) {
      SCOPED_TRACE(size);
      problem.channels_last = last;
      expect_different(pairs(size, 5, 1, 96));
    }
  EXPECT_TRUE(pairs(14, 3, 2, 96).empty());
  problem.channels_last = false;
  expect_different(pairs(14, 3, 2, 96));
  problem.dtype = DType::Float32;
  EXPECT_TRUE(pairs(14, 3, 1, 96).empty());
}

int met[2];
template <int kKind>
void meet(const PlaneWork& work, int number) {
  if (threadIdx.x > 0) return;
  ASSERT_EQ(number, met[kKind]++);
  ASSERT_LT(number, work.channels);
}

TEST(Pairs, blocks_of_very_many_channels) {
  constexpr int kChannels = 34000, kWarp = 32;
  PairWork<PlaneWork> pair;
  pair.input_groups = pair.weight_groups = pair.input.channels = pair.weight.channels = kChannels;
  met[0] = met[1] = 0;
  emulated::run(2 * kChannels, kWarp, 0, [&] {
    if (!::testing::Test::HasFailure()) backward_pairs<PlaneWork, meet<0>, kWarp, meet<1>, kWarp, 1>(pair);
  });
  EXPECT_EQ(met[0], kChannels);
  EXPECT_EQ(met[1], kChannels);
}

}  // namespace
}  // namespace lamella::depthwise::checks
