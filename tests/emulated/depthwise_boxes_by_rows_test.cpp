#include "depthwise_boxes_checks.h"

// Boxes that are moved by rows (BoxMove).
namespace lamella::depthwise::checks {
namespace {

TEST(Boxes, forward_by_rows) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 4, 24, 8, 3, 3, false, 0, 1, true>>();
}
TEST(Boxes, forward_by_rows_in_pieces) {
  forward<Float16, Kernel<5, 5, 1, 1>, BoxTile<16, 1, 2, 184, 8, 5, 4, false, 0, 1, true>>();
}
TEST(Boxes, forward_by_rows_of_even_eights) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 3, 2, 16, 16, 3, 3, false, 0, 1, true>>();
}
TEST(Boxes, forward_by_rows_of_several_images) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 40, 8, 3, 2, true, 0, 4, true>>();
}
TEST(Boxes, forward_by_rows_of_narrow_boxes) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 72, 8, 3, 2, true, 8, 1, true>>(0, 7);
}
TEST(Boxes, forward_by_rows_transforms_and_statistics) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 144, 16, 3, 3, false, 0, 1, true>, kClamp, true>();
}
TEST(Boxes, both_gradients_by_rows) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 2, 2, 24, 8, 3, 3, false, 0, 1, true>, true, true,
           true>();
}
TEST(Boxes, both_gradients_by_rows_with_hooks) {
  backward<Float16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 72, 8, 3, 2, false, 0, 1, true>, true, true, true,
           kClamp, kClamp>();
}
TEST(Boxes, weight_gradient_by_rows_in_pieces) {
  backward<BFloat16, Kernel<5, 5, 1, 1>, BoxTile<16, 1, 1, 200, 8, 5, 6, false, 0, 1, true>, false, true,
           true>();
}
TEST(Boxes, input_gradient_by_rows_of_several_images) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 1, 4, 40, 8, 3, 1, true, 0, 2, true>, true, false,
           false>();
}
TEST(Boxes, forward_by_rows_stride_of_rows) {
  forward<Float16, Kernel<3, 3, 2, 1>, BoxTile<16, 1, 2, 56, 8, 3, 3, false, 0, 1, true>>();
}
TEST(Boxes, forward_by_rows_transforms_of_several_images) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<8, 2, 4, 24, 8, 3, 2, true, 0, 4, true>, kHardSwish>();
}
TEST(Boxes, input_gradient_by_rows_stride_of_rows) {
  backward<BFloat16, Kernel<3, 3, 2, 1>, BoxTile<16, 1, 2, 72, 8, 3, 3, false, 0, 1, true>, true, false,
           false>();
}
TEST(Boxes, both_gradients_by_rows_stride_of_rows) {
  backward<Float16, Kernel<3, 3, 2, 1>, BoxTile<8, 2, 2, 24, 8, 3, 3, false, 0, 1, true>, true, true, true>();
}
TEST(Boxes, both_gradients_by_rows_with_hardswish) {
  backward<BFloat16, Kernel<3, 3, 1, 1>, BoxTile<16, 1, 2, 40, 8, 3, 2, false, 0, 1, true>, true, true, true,
           kHardSwish, kHardSwish>();
}
TEST(Boxes, weight_gradient_by_rows_of_some_rows_of_taps) {
  backward<BFloat16, Kernel<8, 7, 1, 1>, BoxTile<16, 1, 1, 24, 8, 4, 9, false, 0, 1, true>, false, true,
           true>();
}
TEST(Boxes, weight_gradient_by_rows_stride_of_rows) {
  backward<BFloat16, Kernel<3, 3, 2, 1>, BoxTile<16, 1, 2, 24, 8, 3, 3, false, 0, 1, true>, false, true,
           true>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
