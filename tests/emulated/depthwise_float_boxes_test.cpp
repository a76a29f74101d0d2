#include "depthwise_boxes_case.h"
#include "layers/depthwise_conv2d/cuda/cut_float_boxes.h"
#include "layers/depthwise_conv2d/cuda/device/float_boxes_backward.cuh"
#include "layers/depthwise_conv2d/cuda/device/float_boxes_forward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 8;
constexpr Layout kLayout{true, 4, 4};
constexpr int kLeastChannels = 4;  // whose pixels are sixteen bytes

template <class Tile>
constexpr FloatTileSizes kTileSizes{Tile::kColumns, Tile::kColumnGroups, Tile::kRows,  Tile::kRowGroups,
                                    Tile::kLanes,   Tile::kChannels,     Tile::kPages, Tile::kWhole,
                                    Tile::kImages,  Tile::kImageGroups};

template <class K, class Tile, bool kInput, bool kWeight, bool kBias, int kTransforms = kPlain,
          int kNormSums = kPlain>
void backward(int size = 0, int padding = -1) {
  for_seeds(kSeeds, [=](Draw& draw) {
    constexpr bool kReadsInput = kWeight || kNormSums != kPlain;
    Wanted wanted = want_boxes(Case<float, K>::kSizes, Tile::kImages, kLeastChannels);
    if (padding >= 0) wanted.padding_h = wanted.padding_w = padding, wanted.spread_h = wanted.spread_w = 1;
    Geometry g = draw_geometry(draw, wanted);
    while (size > 0 && (g.h != size || g.w != size)) g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    Case<float, K> problem(draw, g, kLayout, std::max(kTransforms, kNormSums));
    BoxWork boxes;
    PixelWork& work = boxes.work;
    problem.describe(work);
    BoxPlan plan = cut_backward_float_boxes(work, g.batch, g.channels, problem.kSizes, kTileSizes<Tile>,
                                            Tile::kWhole ? Tile::kStepRows : draw(1, 12), kReadsInput, kBias,
                                            draw(1, 30));
    if (plan.launch.blocks == 0) return false;
    BoxTensors tensors;
    tensors.tell(boxes, g, plan, 4);
    using Sizes = BackwardFloatBoxes<K, Tile, kReadsInput>;
    EXPECT_GE(plan.launch.shared_bytes, 1024 + Sizes::kBarriers + 16 * Tile::kPages);
    EXPECT_EQ(plan.launch.threads, Tile::kThreads);
    const Gradients of{kInput, kWeight, kBias};
    const auto kernel = [&] {
      backward_float_boxes<float, K, Tile, kInput, kWeight, kBias, kTransforms, kNormSums, 1>(boxes);
    };
    if constexpr (kNormSums != kPlain) {
      add_norm_sums(kWeight, plan.launch);
      problem.backward_with_sums(work, plan.launch, of, problem.has_gaps(), kernel);
    } else {
      problem.backward(work, plan.launch, of, problem.has_gaps(), false, kernel);
    }
    return true;
  });
}

template <class K, class Tile, int kTransforms = kPlain, bool kStatistics = false>
void forward(double lift = 0) {
  for_seeds(kSeeds, [=](Draw& draw) {
    const Geometry g = draw_geometry(draw, want_boxes(Case<float, K>::kSizes, Tile::kImages, kLeastChannels));
    SCOPED_TRACE(to_string(g));
    Case<float, K> problem(draw, g, kLayout, kTransforms, lift);
    BoxWork boxes;
    PixelWork& work = boxes.work;
    problem.describe(work);
    BoxPlan plan = cut_forward_float_boxes(work, g.batch, g.channels, problem.kSizes, kTileSizes<Tile>,
                                           Tile::kWhole ? Tile::kStepRows : draw(1, 12), draw(1, 30));
    if (plan.launch.blocks == 0) return false;
    BoxTensors tensors;
    tensors.tell(boxes, g, plan, 4);
    using Sizes = ForwardFloatBoxes<K, Tile>;
    EXPECT_GE(plan.launch.shared_bytes, 1024 + Sizes::kBarriers + 16 * Tile::kPages);
    EXPECT_EQ(plan.launch.threads, Tile::kThreads);
    const auto run = [&] { forward_float_boxes<float, K, Tile, kTransforms, kStatistics, 1>(boxes); };
    if constexpr (kStatistics) {
      plan.launch.hook_parts = plan.launch.parts;
      problem.forward_with_statistics(work, plan.launch, run);
    } else {
      problem.forward(work, plan.launch, false, run);
    }
    return true;
  });
}

using Three = Kernel<3, 3, 1, 1>;
using ThreeStride = Kernel<3, 3, 2, 2>;
using Five = Kernel<5, 5, 1, 1>;

TEST(FloatBoxes, forward) {
  forward<Three, FloatTile<7, 2, 2, 2, 2, 32, 3, false>>();
  forward<Three, FloatTile<4, 2, 4, 1, 4, 64, 2, false>>();
  forward<Five, FloatTile<3, 2, 1, 2, 2, 16, 5, false>>();
}
TEST(FloatBoxes, forward_stride) {
  forward<ThreeStride, FloatTile<4, 2, 2, 2, 2, 32, 2, false>>();
  forward<Kernel<5, 4, 3, 3>, FloatTile<3, 2, 2, 1, 1, 16, 3, false>>();
}
TEST(FloatBoxes, forward_of_several_images) {
  forward<Three, FloatTile<7, 1, 7, 1, 2, 32, 2, true, 4, 4>>();
  forward<ThreeStride, FloatTile<4, 1, 1, 8, 4, 32, 2, true, 4, 2>>();
}
TEST(FloatBoxes, forward_statistics_and_transform) {
  forward<Three, FloatTile<7, 1, 7, 1, 2, 32, 2, true, 4, 4>, kClamp, true>(1000);
  forward<ThreeStride, FloatTile<4, 2, 2, 2, 1, 32, 2, false>, kHardSwish, true>();
  forward<Three, FloatTile<7, 2, 2, 2, 4, 32, 4, false>, kClamp>();
}

TEST(FloatBoxes, weight_gradient) {
  backward<Three, FloatTile<7, 2, 2, 2, 2, 32, 3, false>, false, true, true>();
  backward<Three, FloatTile<4, 2, 4, 1, 4, 64, 4, false>, false, true, false>();
}
TEST(FloatBoxes, weight_gradient_few_rows_of_a_step) {
  backward<Five, FloatTile<3, 2, 1, 2, 2, 16, 5, false>, false, true, true>();
}
TEST(FloatBoxes, weight_gradient_a_channel_to_a_thread) {
  backward<Three, FloatTile<7, 1, 1, 4, 1, 32, 2, false>, false, true, true>();
}
TEST(FloatBoxes, weight_gradient_padding) {
  for (const int padding : {0, 1, 2})
    backward<Three, FloatTile<7, 2, 7, 2, 2, 32, 2, true>, false, true, true>(0, padding);
}
TEST(FloatBoxes, weight_gradient_stride) {
  backward<ThreeStride, FloatTile<4, 2, 2, 2, 2, 32, 2, false>, false, true, true>();
  backward<ThreeStride, FloatTile<4, 1, 2, 4, 2, 16, 2, true, 2, 1>, false, true, true>();
}
TEST(FloatBoxes, weight_gradient_stride_of_three) {
  backward<Kernel<5, 4, 3, 3>, FloatTile<3, 2, 2, 1, 1, 16, 3, false>, false, true, true>();
}
TEST(FloatBoxes, weight_gradient_large_kernels) {
  backward<Five, FloatTile<7, 1, 7, 1, 2, 16, 2, true>, false, true, true>();
  backward<Kernel<7, 7, 1, 1>, FloatTile<5, 1, 2, 3, 1, 32, 3, false>, false, true, true>();
}
TEST(FloatBoxes, weight_gradient_of_several_images) {
  backward<Three, FloatTile<7, 1, 7, 1, 2, 32, 2, true, 4, 4>, false, true, true>(7, 1);
  backward<Three, FloatTile<7, 1, 1, 8, 4, 32, 2, true, 4, 2>, false, true, true>();
  backward<Five, FloatTile<7, 1, 7, 1, 1, 16, 2, true, 8, 4>, false, true, true>();
  backward<Three, FloatTile<7, 2, 7, 2, 2, 16, 2, true, 2, 1>, false, true, false>(14, 1);
}
TEST(FloatBoxes, weight_gradient_and_transform) {
  backward<Three, FloatTile<7, 2, 2, 2, 2, 32, 3, false>, false, true, true, kClamp>();
  backward<ThreeStride, FloatTile<4, 1, 4, 1, 4, 32, 2, true, 4, 2>, false, true, false, kHardSwish>();
}

TEST(FloatBoxes, both_gradients) {
  backward<Three, FloatTile<7, 2, 2, 2, 2, 32, 3, false>, true, true, true>();
  backward<ThreeStride, FloatTile<4, 1, 2, 4, 1, 32, 2, true, 2, 1>, true, true, false, kClamp>();
}
TEST(FloatBoxes, both_gradients_and_norm_sums) {
  backward<Three, FloatTile<7, 1, 7, 1, 2, 32, 2, true, 4, 4>, true, true, false, kClamp, kClamp>();
  backward<Five, FloatTile<4, 2, 2, 2, 1, 16, 4, false>, true, true, true, kHardSwish, kHardSwish>();
}
TEST(FloatBoxes, input_gradient) {
  backward<ThreeStride, FloatTile<4, 2, 2, 2, 2, 32, 2, false>, true, false, false>();
  backward<ThreeStride, FloatTile<4, 1, 4, 1, 4, 32, 2, true, 4, 2>, true, false, false, kPlain, kClamp>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
