#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/device/pixels_backward.cuh"
#include "layers/depthwise_conv2d/cuda/device/pixels_forward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 30;

/// Channels side by side, `chunk` bytes of which are copied at once.
template <class T, class K, class Tile>
Layout pixel_layout(int chunk) {
  const int numbers = chunk / static_cast<int>(sizeof(T));
  return {true, std::max(numbers, vector_of<T>(Tile::kLanes)),
          std::max(numbers, vector_of<T>(Tile::kLanes * K::kRepeat))};
}
template <class T, class K, class Tile>
Geometry pixel_geometry(Draw& draw, const Layout& layout) {
  Wanted wanted{Case<T, K>::kSizes};
  wanted.channels = std::max(layout.x_unit, Tile::kLanes);
  return draw_geometry(draw, wanted);
}

template <class T, class K, class Tile, int kChannels, int kTapRows, int kStages, int kChunk, int kTransforms,
          int kThreads = checks::kThreads>
void forward() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Layout layout = pixel_layout<T, K, Tile>(kChunk);
    const Geometry g = pixel_geometry<T, K, Tile>(draw, layout);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, layout, kTransforms);
    PixelWork work;
    problem.describe(work);
    const Launch launch = cut_forward_pixels(work, g.batch, g.channels, problem.kSizes,
                                             {Tile::kRows, Tile::kColumns, Tile::kLanes}, kChannels, kStages,
                                             sizeof(T), kThreads, draw(1, 12));
    problem.forward(work, launch, false, [&] {
      forward_pixels<T, K, Tile, kChannels, kTapRows, kStages, kChunk, kTransforms, false, kThreads, 1>(work);
    });
    return true;
  });
}

template <class T, class K, class Tile, int kChannels, int kTapRows, bool kInput, bool kWeight, bool kBias,
          int kStages, int kChunk, int kTransforms, int kThreads = checks::kThreads>
void backward() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Layout layout = pixel_layout<T, K, Tile>(kChunk);
    const Geometry g = pixel_geometry<T, K, Tile>(draw, layout);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, layout, kTransforms);
    PixelWork work;
    problem.describe(work);
    const Launch launch = cut_backward_pixels(
        work, g.batch, g.channels, problem.kSizes, {Tile::kRows, Tile::kColumns, Tile::kLanes}, kChannels,
        kTapRows, kStages, sizeof(T), kThreads, draw(1, 12), kWeight, kBias, draw(1, 30));
    if (launch.blocks == 0) return false;
    problem.backward(work, launch, {kInput, kWeight, kBias}, problem.has_gaps(), false, [&] {
      backward_pixels<T, K, Tile, kChannels, kTapRows, kInput, kWeight, kBias, kStages, kChunk, kTransforms,
                      false, kThreads, 1>(work);
    });
    return true;
  });
}

template <class T, class K, class Tile, int kChannels, int kTapRows, int kStages, int kChunk, int kTransforms>
void statistics(double lift) {
  for_seeds(kSeeds, [lift](Draw& draw) {
    const Layout layout = pixel_layout<T, K, Tile>(kChunk);
    const Geometry g = pixel_geometry<T, K, Tile>(draw, layout);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, layout, kTransforms, lift);
    PixelWork work;
    problem.describe(work);
    Launch launch = cut_forward_pixels(work, g.batch, g.channels, problem.kSizes,
                                       {Tile::kRows, Tile::kColumns, Tile::kLanes}, kChannels, kStages,
                                       sizeof(T), kThreads, draw(1, 12));
    add_statistics_pixels(work.cut, kChannels, K::kRepeat, launch);
    problem.forward_with_statistics(work, launch, [&] {
      forward_pixels<T, K, Tile, kChannels, kTapRows, kStages, kChunk, kTransforms, true, kThreads, 1>(work);
    });
    return true;
  });
}

template <class T, class K, class Tile, int kChannels, bool kWeight, bool kBias, int kStages, int kChunk,
          int kNormSums = kClamp>
void norm_sums() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Layout layout = pixel_layout<T, K, Tile>(kChunk);
    const Geometry g = pixel_geometry<T, K, Tile>(draw, layout);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, layout, kNormSums);
    PixelWork work;
    problem.describe(work);
    Launch launch = cut_backward_pixels(work, g.batch, g.channels, problem.kSizes,
                                        {Tile::kRows, Tile::kColumns, Tile::kLanes}, kChannels, K::kH,
                                        kStages, sizeof(T), kThreads, draw(1, 12), true, kBias, draw(1, 30));
    if (launch.blocks == 0) return false;
    add_norm_sums(kWeight, launch);
    problem.backward_with_sums(work, launch, {true, kWeight, kBias}, problem.has_gaps(), [&] {
      backward_pixels<T, K, Tile, kChannels, K::kH, true, kWeight, kBias, kStages, kChunk,
                      kWeight ? kNormSums : kPlain, kNormSums, kThreads, 1>(work);
    });
    return true;
  });
}

TEST(Pixels, forward_vectors) { forward<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, 3, 3, 16, false>(); }
TEST(Pixels, forward_stride_and_transform) {
  forward<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 32, 3, 2, 16, true>();
}
TEST(Pixels, forward_multiplier_and_some_rows_of_taps) {
  forward<float, Kernel<5, 5, 1, 2, 2>, Tile<3, 2, 1>, 8, 2, 3, 4, false>();
}
TEST(Pixels, forward_vectors_of_three) {
  forward<float, Kernel<3, 2, 1, 1, 3>, Tile<2, 2, 2>, 8, 3, 3, 8, false>();
}
TEST(Pixels, forward_vectors_of_five) {
  forward<BFloat16, Kernel<2, 3, 1, 2, 5>, Tile<1, 2, 2>, 4, 2, 2, 4, true>();
}
TEST(Pixels, forward_column_of_taps) {
  forward<Float16, Kernel<3, 1, 3, 1>, Tile<1, 3, 2>, 8, 3, 4, 4, true>();
}
TEST(Pixels, forward_even_and_number_by_number) {
  forward<BFloat16, Kernel<2, 2, 1, 1>, Tile<2, 3, 1>, 4, 2, 3, 2, false>();
}

TEST(Pixels, forward_few_channels) {
  forward<BFloat16, Kernel<3, 5, 1, 1>, Tile<2, 3, 1>, 3, 3, 3, 2, false>();
  forward<BFloat16, Kernel<3, 3, 1, 1, 2>, Tile<2, 3, 1>, 1, 3, 2, 2, true>();
  forward<Float16, Kernel<3, 3, 3, 2>, Tile<1, 2, 2>, 2, 3, 3, 4, false>();
  forward<float, Kernel<5, 5, 1, 2>, Tile<2, 2, 1>, 3, 2, 3, 4, false>();
}
TEST(Pixels, forward_few_channels_and_threads) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, 3, 2, 2, true, 32>();
  forward<BFloat16, Kernel<5, 4, 2, 1>, Tile<7, 1, 1>, 2, 2, 3, 2, false, 64>();
}

TEST(Pixels, both_gradients) {
  backward<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, 3, true, true, true, 3, 16, false>();
}
TEST(Pixels, both_gradients_multiplier_and_transform) {
  backward<float, Kernel<5, 3, 2, 1, 2>, Tile<1, 3, 1>, 8, 5, true, true, true, 3, 4, true>();
}
TEST(Pixels, both_gradients_vectors_of_three) {
  backward<BFloat16, Kernel<3, 3, 1, 1, 3>, Tile<2, 2, 2>, 8, 3, true, true, true, 3, 4, false>();
}
TEST(Pixels, both_gradients_vectors_of_five) {
  backward<float, Kernel<2, 2, 1, 1, 5>, Tile<2, 1, 1>, 4, 2, true, true, false, 2, 4, false>();
}
TEST(Pixels, input_gradient_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 32, 3, true, false, false, 2, 16, false>();
}
TEST(Pixels, input_gradient_some_rows_of_taps) {
  backward<float, Kernel<5, 5, 2, 2>, Tile<2, 2, 2>, 8, 2, true, false, false, 3, 16, false>();
}
TEST(Pixels, input_gradient_multiplier_and_some_rows_of_taps) {
  backward<float, Kernel<7, 4, 3, 1, 2>, Tile<1, 2, 1>, 4, 3, true, false, false, 2, 4, false>();
}
TEST(Pixels, gradients_of_few_channels) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile<2, 3, 1>, 3, 3, true, true, true, 3, 2, true>();
  backward<Float16, Kernel<4, 3, 2, 3>, Tile<1, 2, 1>, 5, 4, true, false, false, 2, 2, false>();
  backward<BFloat16, Kernel<5, 5, 2, 2, 2>, Tile<2, 2, 1>, 1, 2, true, false, false, 3, 2, false>();
  backward<BFloat16, Kernel<3, 3, 1, 1, 2>, Tile<2, 3, 1>, 3, 3, true, false, false, 3, 4, false>();
  backward<float, Kernel<5, 5, 1, 1>, Tile<2, 3, 1>, 3, 2, false, true, true, 3, 4, false>();
}
TEST(Pixels, gradients_of_few_channels_and_threads) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile<4, 2, 1>, 2, 3, true, true, true, 2, 2, false, 32>();
  backward<BFloat16, Kernel<5, 3, 1, 1>, Tile<4, 2, 1>, 3, 2, false, true, true, 3, 2, false, 64>();
}
TEST(Pixels, weight_gradient_stride_and_transform) {
  backward<BFloat16, Kernel<4, 4, 3, 3>, Tile<1, 2, 2>, 8, 4, false, true, true, 4, 4, true>();
}
TEST(Pixels, weight_gradient_without_bias) {
  backward<Float16, Kernel<3, 3, 1, 1>, Tile<4, 4, 2>, 16, 3, false, true, false, 3, 8, false>();
}
TEST(Pixels, weight_gradient_groups_of_taps) {
  backward<float, Kernel<5, 5, 1, 1>, Tile<2, 3, 2>, 8, 2, false, true, true, 3, 16, false>();
}
TEST(Pixels, weight_gradient_multiplier_and_groups_of_taps) {
  backward<BFloat16, Kernel<7, 3, 2, 1, 2>, Tile<1, 2, 1>, 8, 4, false, true, true, 2, 4, false>();
}

TEST(Pixels, statistics) { statistics<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, 3, 3, 16, true>(0); }
TEST(Pixels, statistics_far_from_zero) {
  statistics<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 32, 3, 2, 16, false>(1000);
}
TEST(Pixels, statistics_stride_and_transform) {
  statistics<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 32, 3, 2, 16, true>(1000);
}
TEST(Pixels, statistics_multiplier_and_some_rows_of_taps) {
  statistics<float, Kernel<5, 5, 1, 2, 2>, Tile<3, 2, 1>, 8, 2, 3, 4, false>(1000);
}

TEST(Pixels, both_gradients_and_sums) {
  norm_sums<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, true, true, 3, 16>();
}
TEST(Pixels, both_gradients_and_sums_stride) {
  norm_sums<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 32, true, true, 2, 16>();
}
TEST(Pixels, both_gradients_and_sums_multiplier) {
  norm_sums<float, Kernel<5, 3, 2, 1, 2>, Tile<1, 3, 1>, 8, true, false, 3, 4>();
}
TEST(Pixels, input_gradient_and_sums) {
  norm_sums<BFloat16, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, false, false, 3, 8>();
}
TEST(Pixels, input_gradient_and_sums_stride) {
  norm_sums<float, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 8, false, false, 2, 8>();
}

TEST(Pixels, hardswish) {
  forward<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 2, 2>, 32, 3, 2, 16, kHardSwish>();
  forward<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, 3, 3, 16, kHardSwish>();
}
TEST(Pixels, hardswish_both_gradients_and_sums) {
  norm_sums<float, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, true, true, 3, 16, kHardSwish>();
}
TEST(Pixels, hardswish_input_gradient_and_sums) {
  norm_sums<BFloat16, Kernel<3, 3, 1, 1>, Tile<2, 3, 4>, 16, false, false, 3, 8, kHardSwish>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
