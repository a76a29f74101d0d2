#include "depthwise_boxes_checks.h"

namespace lamella::depthwise::checks {
namespace {

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

// Pixels of an odd number of eight channels are not swizzled.
TEST(Boxes, forward_odd_eights) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 24, 8, 3, 3, false>>();
}
TEST(Boxes, forward_odd_eights_stride) {
  forward<Float16, Kernel<5, 5, 2, 2>, BoxTile<16, 1, 2, 40, 8, 5, 4, false>>();
}
TEST(Boxes, forward_odd_eights_transforms_and_statistics) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 72, 8, 3, 3, false>, kClamp, true>();
}
TEST(Boxes, both_gradients_odd_eights) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 24, 8, 3, 2, false>, true, true, true, kClamp,
           kClamp>();
}
TEST(Boxes, weight_gradient_odd_eights_stride) {
  backward<Float16, Kernel<5, 5, 2, 2>, BoxTile<8, 1, 2, 40, 8, 5, 4, false>, false, true, true>();
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
TEST(Boxes, weight_gradient_groups_of_taps_of_two_rows) {
  backward<BFloat16, Kernel<5, 5, 1, 1>, BoxTile<8, 1, 3, 16, 16, 2, 3, false>, false, true, true>();
  backward<Float16, Kernel<7, 5, 1, 1>, BoxTile<8, 2, 2, 16, 8, 4, 5, false>, false, true, true>();
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

TEST(Boxes, both_gradients_of_two_outputs) {
  using K = Kernel<3, 3, 1, 1, 2>;
  backward<BFloat16, K, BoxTile<16, 2, 4, 16, 8, 3, 2, false>, true, true, true>();
  backward<Float16, K, BoxTile<16, 1, 2, 32, 16, 3, 4, false, 16>, true, true, false>(14);
  backward<BFloat16, K, BoxTile<8, 2, 2, 32, 8, 3, 3, false>, true, true, true>();
}
TEST(Boxes, both_gradients_of_two_outputs_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2, 2>, BoxTile<16, 1, 2, 16, 8, 3, 3, false>, true, true, true>();
  backward<Float16, Kernel<5, 4, 3, 3, 2>, BoxTile<8, 1, 2, 32, 16, 5, 3, false>, true, true, true>();
}
TEST(Boxes, input_gradient_of_two_outputs) {
  backward<BFloat16, Kernel<3, 3, 1, 1, 2>, BoxTile<16, 2, 4, 32, 16, 3, 2, false>, true, false, false>();
  backward<BFloat16, Kernel<5, 5, 2, 2, 2>, BoxTile<16, 2, 2, 16, 8, 5, 2, false>, true, false, false>();
  backward<Float16, Kernel<4, 2, 1, 1, 2>, BoxTile<8, 1, 4, 16, 8, 4, 2, true, 0, 2>, true, false, false>();
}
TEST(Boxes, weight_gradient_of_two_outputs) {
  backward<BFloat16, Kernel<3, 3, 1, 1, 2>, BoxTile<16, 1, 4, 32, 8, 3, 2, false>, false, true, true>();
  backward<Float16, Kernel<3, 3, 2, 2, 2>, BoxTile<16, 1, 3, 32, 16, 3, 3, false>, false, true, true>();
  backward<BFloat16, Kernel<5, 5, 1, 1, 2>, BoxTile<16, 1, 3, 16, 16, 2, 3, false>, false, true, true>();
  backward<BFloat16, Kernel<3, 3, 1, 1, 2>, BoxTile<8, 2, 4, 32, 8, 3, 2, true, 8, 4>, false, true, false>(7);
}
TEST(Boxes, two_outputs_and_transform_and_sums) {
  using K = Kernel<3, 3, 1, 1, 2>;
  backward<BFloat16, K, BoxTile<16, 1, 4, 16, 8, 3, 2, false>, false, true, true, kClamp>();
  backward<BFloat16, K, BoxTile<16, 2, 4, 32, 16, 3, 2, false>, true, true, true, kClamp, kClamp>();
  backward<Float16, Kernel<3, 3, 2, 2, 2>, BoxTile<8, 2, 1, 16, 8, 3, 2, true, 0, 8>, true, true, true,
           kHardSwish, kHardSwish>();
  backward<BFloat16, K, BoxTile<16, 1, 2, 32, 16, 3, 4, false>, true, false, false, kPlain, kClamp>();
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
TEST(Boxes, weight_gradient_and_transform) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 4, 16, 8, 3, 2, false>, false, true, true, kClamp>();
  backward<BFloat16, Kernel<5, 5, 1, 1>, BoxTile<8, 1, 1, 16, 8, 5, 4, false>, false, true, true, kClamp>();
  backward<Float16, Kernel<3, 3, 2, 2>, BoxTile<16, 1, 3, 16, 8, 3, 3, false>, false, true, true, kClamp>();
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

/// Of a map of so many columns, with as much padding as keeps them, and a tile of so many.
int narrowed(int columns, int kernel, int stride, int tile_columns, int blocks, bool backward) {
  PixelWork work;
  const int padding = (kernel - 1) / 2;
  divide_dilation(work.w, columns, (columns + 2 * padding - kernel) / stride + 1, kernel, stride, padding, 1);
  const KernelSizes sizes{kernel, kernel, stride, stride, 1};
  const BoxTileSizes tile{tile_columns, blocks, 1, 32, 16, kernel, 2, false};
  return backward ? narrow_backward_boxes(work, sizes, tile, false) : narrow_forward_boxes(work, sizes, tile);
}
TEST(Boxes, are_as_wide_as_a_map) {
  for (const bool backward : {false, true}) {
    SCOPED_TRACE(backward);
    EXPECT_EQ(narrowed(7, 3, 1, 8, 1, backward), 8);
    EXPECT_EQ(narrowed(8, 3, 1, 8, 1, backward), 0);
    EXPECT_EQ(narrowed(14, 3, 1, 16, 1, backward), 16);
    EXPECT_EQ(narrowed(15, 3, 1, 16, 1, backward), 16);
    EXPECT_EQ(narrowed(16, 3, 1, 16, 1, backward), 0);
    EXPECT_EQ(narrowed(28, 3, 1, 16, 2, backward), 32);
    EXPECT_EQ(narrowed(28, 3, 1, 16, 1, backward), 0) << "of two tiles";
    EXPECT_EQ(narrowed(30, 3, 1, 16, 2, backward), 32);
    EXPECT_EQ(narrowed(56, 3, 1, 16, 4, backward), 64);
    EXPECT_EQ(narrowed(7, 5, 1, 8, 1, backward), 0) << "sixteen in any case";
    EXPECT_EQ(narrowed(14, 5, 1, 16, 1, backward), 16);
    EXPECT_EQ(narrowed(14, 7, 1, 16, 1, backward), 0) << "padding of three on either side";
    EXPECT_EQ(narrowed(28, 3, 2, 16, 1, backward), 16);
  }
}
TEST(Boxes, forward_narrow_boxes) {
  using Tile = BoxTile<16, 2, 4, 32, 16, 3, 3, false, 32>;
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>();
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>(0, 28);
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>(0, 30);
}
TEST(Boxes, forward_narrow_boxes_one_block) {
  using Tile = BoxTile<16, 1, 2, 64, 16, 3, 3, false, 16>;
  forward<Float16, Kernel<3, 3, 1, 1>, Tile, kClamp, true>();
  forward<Float16, Kernel<3, 3, 1, 1>, Tile, kClamp, true>(1000, 14);
}
TEST(Boxes, forward_narrow_boxes_share_padding) {
  using Tile = BoxTile<8, 1, 4, 64, 16, 3, 2, true, 8>;
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>();
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>(0, 7);
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile, kHardSwish, true>(0, 7);
  using Rows = BoxTile<8, 1, 1, 32, 8, 3, 4, false, 8>;
  forward<BFloat16, Kernel<3, 3, 1, 1>, Rows, kClamp, true>(1000, 7);
}
TEST(Boxes, forward_narrow_boxes_share_more_padding) {
  using Tile = BoxTile<16, 1, 3, 32, 16, 2, 3, false, 16>;
  forward<BFloat16, Kernel<5, 5, 1, 1>, Tile>();
  forward<BFloat16, Kernel<5, 5, 1, 1>, Tile, kClamp>(0, 14);
}
TEST(Boxes, forward_narrow_boxes_stride) {
  using Tile = BoxTile<16, 1, 2, 16, 8, 3, 3, false, 16>;
  forward<Float16, Kernel<3, 3, 2, 2>, Tile>();
  forward<Float16, Kernel<3, 3, 2, 2>, Tile, kClamp, true>(0, 28);
}

TEST(Boxes, both_gradients_narrow_boxes) {
  using Tile = BoxTile<16, 2, 4, 32, 16, 3, 2, false, 32>;
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false>();
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false, kClamp, kClamp>(28);
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false, kClamp, kClamp>(30);
}
TEST(Boxes, both_gradients_narrow_boxes_share_padding) {
  using Tile = BoxTile<8, 1, 4, 64, 16, 3, 2, true, 8>;
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false>();
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false, kClamp, kClamp>(7);
  using Rows = BoxTile<8, 1, 2, 32, 8, 3, 3, false, 8>;
  backward<Float16, Kernel<3, 3, 1, 1>, Rows, true, true, false, kHardSwish, kHardSwish>(7);
}
TEST(Boxes, both_gradients_narrow_boxes_stride) {
  using Tile = BoxTile<16, 1, 2, 16, 8, 3, 3, false, 16>;
  backward<Float16, Kernel<3, 3, 2, 2>, Tile, true, true, false>();
  backward<Float16, Kernel<3, 3, 2, 2>, Tile, true, true, false, kClamp, kClamp>(28);
}
TEST(Boxes, input_gradient_narrow_boxes) {
  using Tile = BoxTile<16, 1, 2, 64, 16, 3, 4, false, 16>;
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, false, false>(14);
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, false, false, kPlain, kClamp>(14);
}
TEST(Boxes, weight_gradient_narrow_boxes) {
  using Tile = BoxTile<16, 1, 3, 16, 16, 2, 3, false, 16>;
  backward<BFloat16, Kernel<5, 5, 1, 1>, Tile, false, true, false>();
  backward<BFloat16, Kernel<5, 5, 1, 1>, Tile, false, true, false, kClamp>(14);
}

TEST(Boxes, forward_some_images) {
  using Tile = BoxTile<8, 1, 4, 64, 16, 3, 2, true, 8, 2>;
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>();
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile>(0, 7);
}
TEST(Boxes, forward_some_images_are_shared_out) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 32, 16, 3, 3, true, 8, 4>>(0, 7);
  forward<Float16, Kernel<3, 3, 1, 1>, BoxTile<8, 4, 4, 32, 8, 3, 2, true, 0, 4>>();
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 16, 8, 3, 1, true, 8, 8>>(0, 7);
}
TEST(Boxes, forward_some_images_of_sixteen_columns) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 14, 32, 8, 3, 2, true, 16, 2>>(0, 14);
  forward<Float16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 16, 16, 16, 3, 2, true, 0, 2>, kClamp, true>(0, 16);
}
TEST(Boxes, forward_some_images_stride) {
  forward<Float16, Kernel<3, 3, 2, 2>, BoxTile<8, 2, 2, 16, 8, 3, 2, true, 0, 4>>();
  forward<BFloat16, Kernel<5, 5, 2, 2>, BoxTile<16, 1, 3, 16, 16, 2, 2, true, 0, 2>>();
}
TEST(Boxes, statistics_of_some_images) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 64, 16, 3, 2, true, 8, 2>, kPlain, true>(0, 7);
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 16, 8, 3, 3, true, 0, 8>, kPlain, true>(1000);
  forward<Float16, Kernel<3, 3, 2, 2>, BoxTile<8, 4, 2, 16, 8, 3, 2, true, 0, 4>, kPlain, true>(1000);
}
TEST(Boxes, forward_some_images_and_transform) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 64, 16, 3, 2, true, 8, 2>, kClamp>(0, 7);
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 32, 16, 3, 3, true, 8, 8>, kHardSwish, true>(0, 7);
  forward<Float16, Kernel<3, 3, 2, 2>, BoxTile<8, 2, 2, 16, 8, 3, 2, true, 0, 4>, kClamp, true>();
}

TEST(Boxes, both_gradients_some_images) {
  using Tile = BoxTile<8, 1, 4, 64, 16, 3, 2, true, 8, 2>;
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false>();
  backward<BFloat16, Kernel<3, 3, 1, 1>, Tile, true, true, false>(7);
  backward<Float16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 32, 16, 3, 3, true, 0, 4>, true, true, true>();
}
TEST(Boxes, both_gradients_some_images_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, BoxTile<8, 2, 2, 16, 8, 3, 2, true, 0, 4>, true, true, true>();
  backward<BFloat16, Kernel<5, 4, 3, 3>, BoxTile<8, 2, 2, 16, 16, 5, 2, true, 0, 2>, true, true, true>();
}
TEST(Boxes, weight_gradient_some_images) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 4, 4, 32, 16, 3, 2, true, 8, 8>, false, true, false>(7);
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 4, 4, 32, 8, 3, 2, true, 0, 4>, false, true, true>();
  backward<Float16, Kernel<5, 3, 2, 1>, BoxTile<16, 1, 2, 16, 8, 2, 3, true, 0, 2>, false, true, true>();
}
TEST(Boxes, weight_gradient_some_images_and_transform) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 32, 16, 3, 2, true, 8, 8>, false, true, false,
           kClamp>(7);
  backward<Float16, Kernel<3, 3, 2, 2>, BoxTile<8, 2, 4, 16, 8, 3, 2, true, 0, 4>, false, true, true,
           kHardSwish>();
}
TEST(Boxes, input_gradient_some_images_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, BoxTile<8, 2, 4, 32, 16, 3, 2, true, 0, 4>, true, false, false>();
  backward<BFloat16, Kernel<5, 5, 2, 2>, BoxTile<8, 1, 4, 16, 8, 5, 2, true, 0, 2>, true, false, false>();
}
TEST(Boxes, both_gradients_and_sums_of_some_images) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 64, 16, 3, 2, true, 8, 4>, true, true, false,
           kClamp, kClamp>(7);
  backward<Float16, Kernel<3, 3, 2, 2>, BoxTile<8, 2, 1, 16, 8, 3, 2, true, 0, 8>, true, true, true,
           kHardSwish, kHardSwish>();
}
TEST(Boxes, input_gradient_and_sums_of_some_images) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 32, 16, 3, 2, true, 8, 4>, true, false, false,
           kPlain, kClamp>(7);
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 4, 4, 16, 8, 3, 2, true, 0, 8>, true, false, false,
           kPlain, kHardSwish>();
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
