#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/device/boxes_backward.cuh"
#include "layers/depthwise_conv2d/cuda/device/boxes_forward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 6;

template <class Tile>
constexpr BoxTileSizes kTileSizes{Tile::kColumns,      Tile::kBlocks,  Tile::kRows,  Tile::kChannels,
                                  Tile::kWarpChannels, Tile::kTapRows, Tile::kPages, Tile::kWhole};
constexpr Layout kLayout{true, 8, 8};
constexpr int kLeastChannels = 8;  // whose pixels are sixteen bytes

/// What the copy engine is told of a tensor.
EmulatedTensor box_tensor(const Pixels& pixels, int images, int rows, int columns, int channels,
                          const BoxSizes& box) {
  EmulatedTensor made;
  made.data = static_cast<unsigned char*>(pixels.data);
  const std::int64_t sizes[4] = {channels, columns, rows, images};
  const std::int64_t strides[4] = {2, pixels.pixel * 2, pixels.row * 2, pixels.image * 2};
  const int extents[4] = {box.channels, box.pixels, box.rows, box.images};
  const int steps[4] = {1, box.pixel_step, box.row_step, 1};
  std::copy_n(sizes, 4, made.sizes), std::copy_n(strides, 4, made.strides);
  std::copy_n(extents, 4, made.box), std::copy_n(steps, 4, made.steps);
  made.swizzle = box.channels / 8 - 1;
  return made;
}

/// The work of a problem, with the boxes of its tensors.
struct Boxes {
  BoxWork work;
  EmulatedTensor x, y, dx;

  void describe(const Geometry& g, const BoxPlan& plan) {
    x = box_tensor(work.work.x, g.batch, g.h, g.w, g.channels, plan.x);
    y = box_tensor(work.work.y, g.batch, g.out_h, g.out_w, g.channels, plan.y);
    dx = box_tensor(work.work.dx, g.batch, g.h, g.w, g.channels, plan.dx);
    work.x.opaque[0] = reinterpret_cast<std::uintptr_t>(&x);
    work.y.opaque[0] = reinterpret_cast<std::uintptr_t>(&y);
    work.dx.opaque[0] = reinterpret_cast<std::uintptr_t>(&dx);
  }
};

template <class T, class K>
Geometry box_geometry(Draw& draw) {
  Wanted wanted{Case<T, K>::kSizes};
  wanted.channels = kLeastChannels;
  return draw_geometry(draw, wanted);
}

template <class T, class K, class Tile, int kTransforms = kPlain, bool kStatistics = false>
void forward(double lift = 0) {
  for_seeds(kSeeds, [lift](Draw& draw) {
    const Geometry g = box_geometry<T, K>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, kLayout, kTransforms, lift);
    problem.never_add();
    Boxes boxes;
    problem.describe(boxes.work.work);
    BoxPlan plan = cut_forward_boxes(boxes.work.work, g.batch, g.channels, problem.kSizes, kTileSizes<Tile>,
                                     Tile::kWhole ? Tile::kStepRows : draw(1, 12), draw(1, 40));
    if (plan.launch.blocks == 0) return false;
    if (kTransforms != kPlain) add_transform_boxes(kTileSizes<Tile>, plan.launch);
    using Sizes = ForwardBoxes<K, Tile, kTransforms != kPlain>;
    EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
    EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
    boxes.describe(g, plan);
    const auto run = [&] { forward_boxes<T, K, Tile, kTransforms, kStatistics, 1>(boxes.work); };
    if constexpr (kStatistics) {
      add_statistics_boxes(kTileSizes<Tile>, plan.launch);
      problem.forward_with_statistics(boxes.work.work, plan.launch, run, true);
    } else {
      problem.forward(boxes.work.work, plan.launch, false, run);
    }
    return true;
  });
}

template <class T, class K, class Tile, bool kInput, bool kWeight, bool kBias, int kTransforms = kPlain,
          int kNormSums = kPlain>
void backward() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = box_geometry<T, K>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, kLayout, kTransforms != kPlain ? kTransforms : kNormSums);
    problem.never_add();
    Boxes boxes;
    PixelWork& work = boxes.work.work;
    problem.describe(work);
    BoxPlan plan = cut_backward_boxes(work, g.batch, g.channels, problem.kSizes, kTileSizes<Tile>,
                                      Tile::kWhole ? Tile::kStepRows : draw(1, 12), kInput,
                                      kWeight || kNormSums != kPlain, kBias, draw(1, 30));
    if (plan.launch.blocks == 0) return false;
    boxes.describe(g, plan);
    const auto run = [&]<int kPhaseH, int kPhaseW>() {
      using Sizes = BackwardBoxes<K, Tile, kInput, kWeight || kNormSums != kPlain, kPhaseH, kPhaseW>;
      if constexpr (Tile::kPages >= (Sizes::kGRows + Sizes::kPageRows - 1) / Sizes::kPageRows) {
        EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
        EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
        const Gradients of{kInput, kWeight, kBias};
        const auto kernel = [&] {
          backward_boxes<T, K, Tile, kInput, kWeight, kBias, kPhaseH, kPhaseW, kTransforms, kNormSums, 1>(
              boxes.work);
        };
        if constexpr (kNormSums != kPlain) {
          add_norm_sums(kWeight, plan.launch);
          problem.backward_with_sums(work, plan.launch, of, problem.has_gaps(), kernel, true);
        } else {
          problem.backward(work, plan.launch, of, problem.has_gaps(), false, kernel);
        }
      } else {
        FAIL() << "the plan has fewer pages than a step reads";
      }
    };
    const int phase_h = phase_of(work.h, K::kStrideH), phase_w = phase_of(work.w, K::kStrideW);
    const auto with_width = [&]<int kPhaseH>() {
      if constexpr (kPhaseH < K::kStrideH) {
        if (phase_w == 0) run.template operator()<kPhaseH, 0>();
        if constexpr (K::kStrideW > 1)
          if (phase_w == 1) run.template operator()<kPhaseH, 1>();
        if constexpr (K::kStrideW > 2)
          if (phase_w == 2) run.template operator()<kPhaseH, 2>();
      }
    };
    if (phase_h == 0) with_width.template operator()<0>();
    if (phase_h == 1) with_width.template operator()<1>();
    if (phase_h == 2) with_width.template operator()<2>();
    return true;
  });
}

/// Against all finite numbers.
template <class T>
void passing_ranges() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float scales[] = {1, -1, 0.03F, -7.3F, 1e-30F, -3e30F, 0, -0.0F, infinity, NAN},
              shifts[] = {0, 5.999F, -3.2F, 6, 1e4F, -1e-20F, infinity, NAN};
  const float bounds[][2] = {{0, 6}, {0, infinity}, {-infinity, infinity}, {-1, 1}, {2, 2}};
  for (const float scale : scales)
    for (const float shift : shifts)
      for (const auto& [low, high] : bounds) {
        const Range<T> range = find_range<T>(scale, shift, low, high);
        for (unsigned bits = 0; bits <= 0xffff; ++bits) {
          const T z{static_cast<unsigned short>(bits)};
          const float number = widen(z), y = fmaf(scale, number, shift);
          if (!std::isfinite(number)) continue;
          ASSERT_EQ(number >= widen(range.least) && number <= widen(range.most), y > low && y < high)
              << number << " times " << scale << " plus " << shift << " between " << low << " and " << high;
        }
      }
}
TEST(PassingRange, bfloat16) { passing_ranges<BFloat16>(); }
TEST(PassingRange, float16) { passing_ranges<Float16>(); }

TEST(Boxes, forward) { forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 3, false>>(); }
TEST(Boxes, forward_stride) { forward<Float16, Kernel<3, 3, 2, 2>, BoxTile<16, 1, 2, 16, 8, 3, 3, false>>(); }
TEST(Boxes, forward_whole_maps) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 64, 16, 3, 2, true>>();
}
TEST(Boxes, forward_narrow_blocks) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 3, 2, 32, 16, 3, 3, false>>();
}
TEST(Boxes, forward_some_rows_of_taps) {
  forward<BFloat16, Kernel<5, 5, 1, 1>, BoxTile<16, 3, 3, 32, 16, 2, 3, false>>();
}
TEST(Boxes, forward_stride_of_three) {
  forward<BFloat16, Kernel<4, 5, 3, 3>, BoxTile<8, 1, 1, 16, 16, 4, 3, false>>();
}
TEST(Boxes, forward_large_kernel) {
  forward<BFloat16, Kernel<7, 7, 1, 1>, BoxTile<16, 2, 2, 32, 8, 7, 5, false>>();
}
TEST(Boxes, forward_row_of_taps) {
  forward<BFloat16, Kernel<1, 2, 1, 1>, BoxTile<16, 1, 1, 32, 8, 1, 2, false>>();
}

TEST(Boxes, both_gradients) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 2, false>, true, true, true>();
}
TEST(Boxes, both_gradients_without_bias) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 64, 16, 3, 4, false>, true, true, false>();
}
TEST(Boxes, both_gradients_stride) {
  backward<Float16, Kernel<3, 3, 2, 2>, BoxTile<16, 1, 2, 16, 8, 3, 3, false>, true, true, true>();
}
TEST(Boxes, both_gradients_narrow_blocks) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 2, 32, 16, 3, 3, false>, true, true, true>();
}
TEST(Boxes, both_gradients_stride_of_three) {
  backward<BFloat16, Kernel<5, 4, 3, 3>, BoxTile<8, 1, 2, 16, 16, 5, 3, false>, true, true, true>();
}
TEST(Boxes, input_gradient_stride) {
  backward<BFloat16, Kernel<5, 5, 2, 2>, BoxTile<16, 2, 2, 16, 8, 5, 2, false>, true, false, false>();
}
TEST(Boxes, weight_gradient_whole_maps) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 32, 8, 3, 1, true>, false, true, true>();
}
TEST(Boxes, weight_gradient_groups_of_taps) {
  backward<BFloat16, Kernel<5, 5, 1, 1>, BoxTile<16, 1, 3, 16, 16, 2, 3, false>, false, true, true>();
}
TEST(Boxes, weight_gradient_groups_of_taps_whole_maps) {
  backward<Float16, Kernel<5, 3, 2, 1>, BoxTile<16, 2, 2, 16, 8, 2, 3, true>, false, true, true>();
}
TEST(Boxes, weight_gradient_large_kernel) {
  backward<BFloat16, Kernel<7, 7, 1, 1>, BoxTile<16, 1, 2, 16, 8, 4, 5, false>, false, true, true>();
}
TEST(Boxes, weight_gradient_even) {
  backward<BFloat16, Kernel<4, 2, 2, 2>, BoxTile<8, 2, 2, 16, 8, 2, 4, false>, false, true, true>();
}

TEST(Boxes, statistics) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 3, false>, false, true>();
}
TEST(Boxes, statistics_far_from_zero) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 64, 16, 3, 2, true>, false, true>(1000);
}
TEST(Boxes, statistics_stride_and_transform) {
  forward<BFloat16, Kernel<3, 3, 2, 2>, BoxTile<16, 1, 2, 16, 8, 3, 3, false>, true, true>(1000);
}
TEST(Boxes, statistics_narrow_blocks) {
  forward<Float16, Kernel<3, 3, 1, 1>, BoxTile<8, 3, 2, 32, 16, 3, 3, false>, false, true>(1000);
}

TEST(Boxes, both_gradients_and_transform) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 2, false>, true, true, true, true>();
}
TEST(Boxes, both_gradients_and_sums) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 2, false>, true, true, true, true,
           true>();
}
TEST(Boxes, both_gradients_and_sums_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, BoxTile<16, 1, 2, 16, 8, 3, 3, false>, true, true, true, true,
           true>();
}
TEST(Boxes, both_gradients_and_sums_narrow_blocks) {
  backward<Float16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 2, 32, 16, 3, 3, false>, true, true, false, true,
           true>();
}
TEST(Boxes, both_gradients_and_sums_whole_maps) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 64, 16, 3, 2, true>, true, true, true, true,
           true>();
}
TEST(Boxes, both_gradients_and_sums_stride_of_three) {
  backward<BFloat16, Kernel<5, 4, 3, 3>, BoxTile<8, 1, 2, 16, 16, 5, 3, false>, true, true, true, true,
           true>();
}
TEST(Boxes, input_gradient_and_sums) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 64, 16, 3, 4, false>, true, false, false, false,
           true>();
}
TEST(Boxes, input_gradient_and_sums_stride) {
  backward<BFloat16, Kernel<5, 5, 2, 2>, BoxTile<16, 2, 2, 16, 8, 5, 2, false>, true, false, false, false,
           true>();
}

TEST(Boxes, hardswish) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 3, false>, kHardSwish>();
}
TEST(Boxes, hardswish_both_gradients_and_sums) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 32, 16, 3, 2, false>, true, true, true, kHardSwish,
           kHardSwish>();
}
TEST(Boxes, hardswish_both_gradients_and_sums_narrow_blocks) {
  backward<Float16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 2, 32, 16, 3, 3, false>, true, true, false, kHardSwish,
           kHardSwish>();
}
TEST(Boxes, hardswish_input_gradient_and_sums_stride) {
  backward<BFloat16, Kernel<5, 5, 2, 2>, BoxTile<16, 2, 2, 16, 8, 5, 2, false>, true, false, false, kPlain,
           kHardSwish>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
