#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_runs.h"
#include "layers/depthwise_conv2d/cuda/device/runs_backward.cuh"
#include "layers/depthwise_conv2d/cuda/device/runs_forward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 30;

constexpr int kRunThreads = kThreads + 32;  // and the warp that asks for runs

/// kInside > 0: of a thread's window only the first kPadding columns and those from kInside on can be
/// outside.
template <class T, class K, class S, class Tile, bool kMasks, int kPadding, int kInside,
          int kTransforms = kPlain, bool kStatistics = false>
void forward(int padding, double lift = 0) {
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = Tile::kVector, wanted.out_width = kInside > 0 ? Tile::kColumns : Tile::kVectorOut;
    wanted.padding_w = padding, wanted.spread_h = S::kHeight, wanted.spread_w = S::kWidth;
    wanted.may_reach_beyond = kMasks;
    Geometry g{};
    const auto inside = [&] { return g.w - ((g.out_w - Tile::kColumns) * K::kStrideW - padding); };
    do g = draw_geometry(draw, wanted);
    while (kInside > 0 && inside() != kInside);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, Tile::kVector, Tile::kVectorOut}, kTransforms, lift);
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    Launch launch = cut_forward_runs(
        work, g.batch, std::int64_t{g.channels} * g.repeat, problem.kSizes, S::kHeight,
        {Tile::kColumns, Tile::kRows, Tile::kVector, Tile::kVectorOut, Tile::kOffset, Tile::kPages},
        sizeof(T), kRunThreads, draw(1, 6) * std::int64_t{2000}, draw(1, 20));
    if (launch.blocks == 0) return false;
    const auto run = [&] {
      forward_runs<T, K, S, Tile, kMasks, kPadding, kInside, kTransforms, kStatistics, kRunThreads, 1>(work);
    };
    if constexpr (kStatistics) {
      add_statistics_runs(work, sizeof(T), launch);
      problem.forward_with_statistics(work, launch, run);
    } else {
      problem.forward(work, launch, false, run);
    }
    return true;
  });
}

template <class T, class K, class S, class Tile, bool kInput, bool kWeight, bool kBias, int kPhaseH,
          int kPhaseW, int kNormSums = kPlain>
void backward(int padding_h, int padding_w) {
  static_assert(kPhaseH < K::kStrideH && kPhaseW < K::kStrideW);
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = Tile::kVectorX, wanted.out_width = Tile::kVectorG;
    wanted.padding_h = padding_h, wanted.padding_w = padding_w;
    wanted.spread_h = S::kHeight, wanted.spread_w = S::kWidth;
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, Tile::kVectorX, Tile::kVectorG}, kNormSums);
    problem.never_add();
    PlaneWork work;
    problem.describe(work, false);
    Launch launch = cut_backward_runs(
        work, g.batch, g.channels, problem.kSizes, S::kHeight, S::kWidth,
        {Tile::kColumns, Tile::kRows, Tile::kVectorX, Tile::kVectorG, Tile::kOffset, Tile::kPages}, sizeof(T),
        kRunThreads, draw(1, 6) * std::int64_t{4000}, kInput, kWeight || kNormSums != kPlain, kBias,
        draw(1, 20));
    if (launch.blocks == 0) return false;
    const Gradients of{kInput, kWeight, kBias};
    const auto run = [&] {
      backward_runs<T, K, S, Tile, kInput, kWeight, kBias, kPhaseH, kPhaseW, true,
                    kWeight ? kNormSums : kPlain, kNormSums, kRunThreads, 1>(work);
    };
    if constexpr (kNormSums != kPlain) {
      add_norm_sums(kWeight, launch);
      problem.backward_with_sums(work, launch, of, false, run);
    } else {
      problem.backward(work, launch, of, false, false, run);
    }
    return true;
  });
}

TEST(Runs, forward_vectors) {
  forward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, RunTile<4, 4, 4, 4, 3, 2>, true, 1, 5>(1);
}
TEST(Runs, forward_without_padding) {
  forward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, RunTile<6, 4, 2, 2, 0, 2>, false, 0, 0>(0);
}
TEST(Runs, forward_beyond_rows_without_padding) {
  forward<float, Kernel<3, 2, 1, 1>, Spread<1, 1>, RunTile<4, 4, 1, 1, 0, 2>, true, 0, 0>(0);
}
TEST(Runs, forward_beyond_rows_of_words) {
  forward<Float16, Kernel<2, 4, 1, 1>, Spread<1, 3>, RunTile<5, 2, 1, 1, 0, 3>, true, 0, 0>(4);
}
TEST(Runs, forward_stride) {
  forward<float, Kernel<5, 5, 2, 2>, Spread<1, 1>, RunTile<3, 2, 1, 1, 0, 3>, true, 0, 0>(2);
}
TEST(Runs, forward_dilation) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, Spread<2, 2>, RunTile<4, 3, 4, 4, 2, 2>, true, 0, 0>(2);
}
TEST(Runs, forward_wide_kernel) {
  forward<Float16, Kernel<3, 7, 1, 1>, Spread<1, 1>, RunTile<6, 3, 2, 1, 0, 2>, false, 0, 0>(0);
}
TEST(Runs, forward_stride_of_odd_rows) {
  forward<BFloat16, Kernel<3, 3, 2, 2>, Spread<1, 1>, RunTile<5, 3, 1, 1, 0, 2>, true, 0, 0>(1);
}
TEST(Runs, forward_edges_of_odd_rows) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, Spread<1, 1>, RunTile<7, 7, 1, 1, 0, 2>, true, 1, 8>(1);
}
TEST(Runs, forward_stride_in_whole_vectors) {
  forward<Float16, Kernel<3, 3, 2, 2>, Spread<1, 1>, RunTile<8, 2, 8, 4, 7, 2>, true, 0, 0>(1);
}

TEST(Runs, both_gradients) {
  backward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<4, 4, 4, 4, 3, 2>, true, true, true, 0, 0>(1, 1);
}
TEST(Runs, both_gradients_without_padding_and_bias) {
  backward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<6, 2, 2, 2, 0, 2>, true, true, false, 0, 0>(0,
                                                                                                         0);
}
TEST(Runs, both_gradients_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Spread<1, 1>, UnitTile<4, 2, 4, 2, 0, 2>, true, true, true, 1, 1>(1,
                                                                                                           1);
}
TEST(Runs, both_gradients_dilation) {
  backward<Float16, Kernel<3, 3, 1, 1>, Spread<2, 2>, UnitTile<4, 3, 4, 4, 2, 2>, true, true, false, 0, 0>(2,
                                                                                                           2);
}
TEST(Runs, both_gradients_stride_and_dilation) {
  backward<float, Kernel<3, 3, 2, 2>, Spread<3, 3>, UnitTile<2, 2, 1, 1, 0, 2>, true, true, false, 1, 1>(3,
                                                                                                         3);
}
TEST(Runs, both_gradients_inputs_that_none_reads) {
  backward<float, Kernel<2, 3, 2, 2>, Spread<2, 2>, UnitTile<3, 2, 1, 1, 0, 3>, true, true, true, 0, 1>(0, 1);
}
TEST(Runs, both_gradients_odd_rows) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<7, 3, 1, 1, 0, 2>, true, true, true, 0, 0>(1,
                                                                                                           1);
}
TEST(Runs, both_gradients_even_kernel) {
  backward<float, Kernel<2, 2, 1, 1>, Spread<1, 1>, UnitTile<3, 4, 1, 1, 0, 2>, true, true, true, 0, 0>(0, 0);
}
TEST(Runs, input_gradient_stride_in_whole_vectors) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Spread<1, 1>, UnitTile<4, 2, 8, 4, 0, 2>, true, false, false, 1, 1>(
      1, 1);
}
TEST(Runs, weight_gradient_stride) {
  backward<float, Kernel<5, 5, 2, 2>, Spread<1, 1>, UnitTile<3, 1, 1, 1, 0, 3>, false, true, true, 0, 0>(2,
                                                                                                         2);
}
TEST(Runs, weight_gradient_wide_kernel) {
  backward<float, Kernel<3, 7, 1, 1>, Spread<1, 1>, UnitTile<6, 3, 2, 2, 0, 2>, false, true, true, 0, 0>(0,
                                                                                                         0);
}
TEST(Runs, weight_gradient_stride_of_three) {
  backward<BFloat16, Kernel<5, 3, 3, 3>, Spread<1, 1>, UnitTile<3, 2, 1, 1, 0, 4>, false, true, true, 2, 1>(
      2, 1);
}

TEST(Runs, statistics_vectors) {
  forward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, RunTile<4, 4, 4, 4, 3, 2>, true, 1, 5, false, true>(1);
}
TEST(Runs, statistics_far_from_zero) {
  forward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, RunTile<3, 4, 1, 1, 0, 2>, true, 0, 0, false, true>(1,
                                                                                                       1000);
}
TEST(Runs, statistics_stride_and_transform) {
  forward<BFloat16, Kernel<3, 3, 2, 2>, Spread<1, 1>, RunTile<5, 3, 1, 1, 0, 2>, true, 0, 0, true, true>(
      1, 1000);
}
TEST(Runs, statistics_multiplier) {
  forward<BFloat16, Kernel<3, 3, 1, 1, 2>, Spread<1, 1>, RunTile<3, 2, 1, 1, 0, 2>, true, 0, 0, true, true>(
      1);
}

TEST(Runs, both_gradients_and_sums) {
  backward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<4, 4, 4, 4, 3, 2>, true, true, true, 0, 0, true>(
      1, 1);
}
TEST(Runs, both_gradients_and_sums_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Spread<1, 1>, UnitTile<4, 2, 4, 2, 0, 2>, true, true, true, 1, 1,
           true>(1, 1);
}
TEST(Runs, both_gradients_and_sums_odd_rows) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<7, 3, 1, 1, 0, 2>, true, true, false, 0, 0,
           true>(1, 1);
}
TEST(Runs, both_gradients_and_sums_inputs_that_none_reads) {
  backward<float, Kernel<2, 3, 2, 2>, Spread<2, 2>, UnitTile<3, 2, 1, 1, 0, 3>, true, true, true, 0, 1, true>(
      0, 1);
}
TEST(Runs, input_gradient_and_sums) {
  backward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<6, 2, 2, 2, 1, 2>, true, false, false, 0, 0,
           true>(1, 1);
}
TEST(Runs, input_gradient_and_sums_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Spread<1, 1>, UnitTile<4, 2, 8, 4, 0, 2>, true, false, false, 1, 1,
           true>(1, 1);
}

TEST(Runs, hardswish) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, Spread<1, 1>, RunTile<7, 7, 1, 1, 0, 2>, true, 1, 8, kHardSwish>(1);
}
TEST(Runs, hardswish_both_gradients_and_sums) {
  backward<float, Kernel<3, 3, 1, 1>, Spread<1, 1>, UnitTile<4, 4, 4, 4, 3, 2>, true, true, true, 0, 0,
           kHardSwish>(1, 1);
}

}  // namespace
}  // namespace lamella::depthwise::checks
