#include "depthwise_boxes_case.h"
#include "layers/depthwise_conv2d/cuda/device/toeplitz_boxes.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 6;

/// Of a map of `size` rows and columns with as much padding as keeps them; 0: of any.
template <class T, class K, class Tile>
void forward(int size = 0) {
  for_seeds(kSeeds, [=](Draw& draw) {
    const Wanted wanted = want_boxes(Case<T, K>::kSizes, Tile::kImages);
    constexpr ToeplitzTileSizes kSizes = kToeplitzSizes<Tile>;
    Geometry g{};
    PixelWork axes;
    do {
      g = draw_map(draw, wanted, size);
      divide_dilation(axes.w, g.w, g.out_w, K::kW, g.stride_w, g.padding_w, g.dilation_w);
    } while (kSizes.box_columns > 0 &&
             narrow_toeplitz_boxes(axes, wanted.kernel, kSizes) != kSizes.box_columns);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, kBoxLayout);
    problem.never_add();
    BoxWork boxes;
    PixelWork& work = boxes.work;
    problem.describe(work);
    const BoxPlan plan =
        cut_toeplitz_boxes(work, g.batch, g.channels, problem.kSizes, kSizes,
                           Tile::kWhole ? Tile::kStepRows : draw(1, 2 * Tile::kStepRows), draw(1, 40));
    if (plan.launch.blocks == 0) return false;
    using Sizes = ForwardToeplitzBoxes<K, Tile>;
    EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
    EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
    BoxTensors tensors;
    tensors.tell(boxes, g, plan);
    problem.forward(work, plan.launch, false, [&] { forward_toeplitz_boxes<T, K, Tile, 1>(boxes); });
    return true;
  });
}

using Three = Kernel<3, 3, 1, 1>;
using Five = Kernel<5, 5, 1, 1>;
using Seven = Kernel<7, 7, 1, 1>;

TEST(ToeplitzBoxes, steps_of_columns) {
  forward<BFloat16, Five, ToeplitzTile<4, 1, 16, 1, 1, 1, 32, 8, 4, false>>();
  forward<Float16, Three, ToeplitzTile<2, 1, 8, 2, 1, 1, 16, 8, 3, false>>();
  forward<BFloat16, Seven, ToeplitzTile<2, 2, 8, 2, 1, 1, 64, 4, 7, false>>();
}
TEST(ToeplitzBoxes, rows_of_a_place) {
  forward<BFloat16, Five, ToeplitzTile<1, 2, 4, 4, 1, 1, 32, 8, 3, false>>();
  forward<BFloat16, Seven, ToeplitzTile<1, 4, 4, 4, 1, 1, 16, 16, 3, false>>();
  forward<Float16, Three, ToeplitzTile<1, 3, 8, 2, 2, 1, 16, 12, 3, false>>();
}
TEST(ToeplitzBoxes, warps_side_by_side) {
  forward<BFloat16, Five, ToeplitzTile<1, 1, 16, 1, 3, 1, 16, 16, 3, false>>();
  forward<BFloat16, Seven, ToeplitzTile<1, 2, 16, 1, 2, 1, 32, 16, 4, false>>();
}
TEST(ToeplitzBoxes, several_images) {
  forward<BFloat16, Five, ToeplitzTile<1, 2, 4, 1, 1, 1, 32, 11, 2, true>>(7);
  forward<Float16, Seven, ToeplitzTile<1, 1, 8, 1, 1, 2, 32, 13, 2, true>>(7);
  forward<BFloat16, Three, ToeplitzTile<1, 4, 2, 1, 1, 1, 32, 9, 2, true>>(7);
  forward<BFloat16, Seven, ToeplitzTile<2, 2, 8, 1, 1, 1, 32, 20, 2, true>>(14);
  forward<BFloat16, Five, ToeplitzTile<2, 2, 4, 1, 1, 1, 16, 8, 3, false>>();
  forward<Float16, Five, ToeplitzTile<1, 1, 4, 2, 1, 2, 16, 4, 3, false>>();
}
TEST(ToeplitzBoxes, asked_for_by_a_warp_that_computes) {
  forward<BFloat16, Five, ToeplitzTile<1, 2, 4, 4, 1, 1, 32, 8, 3, false, 0, true>>();
  forward<BFloat16, Seven, ToeplitzTile<1, 4, 4, 2, 1, 1, 32, 20, 2, true, 0, true>>(14);
  forward<Float16, Three, ToeplitzTile<2, 1, 8, 2, 2, 1, 16, 8, 3, false, 0, true>>();
  forward<BFloat16, Seven, ToeplitzTile<2, 2, 8, 2, 1, 1, 64, 4, 6, false, 0, true>>();
  forward<Float16, Seven, ToeplitzTile<1, 1, 8, 1, 1, 2, 32, 13, 2, true, 0, true>>(7);
  forward<BFloat16, Kernel<5, 5, 2, 2>, ToeplitzTile<1, 2, 4, 1, 1, 1, 32, 17, 2, true, 0, true>>(14);
  forward<BFloat16, Kernel<3, 3, 1, 1, 2>, ToeplitzTile<1, 1, 8, 2, 1, 1, 32, 8, 3, false, 0, true>>();
}
TEST(ToeplitzBoxes, narrow_boxes) {
  forward<BFloat16, Five, ToeplitzTile<2, 1, 16, 1, 1, 1, 64, 18, 2, true, 16>>(14);
  forward<BFloat16, Five, ToeplitzTile<1, 2, 4, 4, 1, 1, 16, 8, 3, false, 32>>(28);
  forward<Float16, Three, ToeplitzTile<2, 2, 16, 1, 2, 1, 16, 32, 2, true, 32>>(30);
  forward<BFloat16, Three, ToeplitzTile<1, 1, 8, 1, 1, 2, 64, 9, 3, true, 8>>(7);
  forward<BFloat16, Seven, ToeplitzTile<4, 1, 8, 2, 1, 1, 16, 8, 3, false, 40>>(30);
}
TEST(ToeplitzBoxes, whole_maps) {
  forward<BFloat16, Seven, ToeplitzTile<2, 1, 16, 1, 1, 1, 64, 19, 2, true>>(13);
  forward<Float16, Five, ToeplitzTile<1, 2, 16, 1, 4, 1, 16, 32, 2, true, 32>>(28);
}
TEST(ToeplitzBoxes, strides) {
  forward<BFloat16, Kernel<5, 5, 2, 2>, ToeplitzTile<1, 2, 4, 1, 1, 1, 32, 17, 2, true>>(14);
  forward<BFloat16, Kernel<5, 5, 2, 2>, ToeplitzTile<1, 2, 4, 1, 1, 1, 32, 17, 2, true, 16>>(14);
  forward<BFloat16, Kernel<5, 5, 2, 2>, ToeplitzTile<2, 1, 8, 1, 1, 1, 16, 16, 3, false>>();
  forward<Float16, Kernel<3, 3, 2, 2>, ToeplitzTile<1, 1, 16, 1, 2, 1, 16, 8, 6, false>>();
  forward<BFloat16, Kernel<7, 7, 2, 2>, ToeplitzTile<2, 2, 8, 2, 1, 1, 16, 16, 4, false>>();
  forward<BFloat16, Kernel<7, 5, 2, 1>, ToeplitzTile<1, 2, 8, 2, 1, 1, 16, 16, 4, false>>();
  forward<Float16, Kernel<5, 8, 1, 2>, ToeplitzTile<1, 3, 2, 4, 1, 1, 16, 6, 3, false>>();
  forward<BFloat16, Kernel<2, 2, 2, 2>, ToeplitzTile<3, 1, 8, 1, 1, 1, 16, 16, 2, false>>();
  forward<BFloat16, Kernel<9, 9, 2, 2>, ToeplitzTile<1, 1, 8, 2, 1, 1, 16, 16, 3, false>>();
  forward<BFloat16, Kernel<15, 15, 2, 2>, ToeplitzTile<2, 1, 8, 1, 1, 1, 16, 16, 3, false>>();
}
TEST(ToeplitzBoxes, two_outputs_of_a_channel) {
  forward<BFloat16, Kernel<3, 3, 1, 1, 2>, ToeplitzTile<1, 2, 4, 4, 1, 1, 32, 8, 3, false>>();
  forward<Float16, Kernel<3, 3, 2, 2, 2>, ToeplitzTile<2, 1, 8, 2, 1, 1, 16, 16, 3, false>>();
  forward<BFloat16, Kernel<5, 5, 1, 1, 2>, ToeplitzTile<1, 1, 8, 1, 1, 1, 32, 11, 2, true>>(7);
  forward<BFloat16, Kernel<9, 9, 1, 1, 2>, ToeplitzTile<2, 1, 16, 1, 1, 1, 16, 16, 3, false>>();
}
TEST(ToeplitzBoxes, other_kernels) {
  forward<BFloat16, Kernel<3, 7, 1, 1>, ToeplitzTile<2, 1, 8, 2, 1, 1, 16, 8, 3, false>>();
  forward<Float16, Kernel<6, 2, 1, 1>, ToeplitzTile<1, 2, 8, 2, 1, 1, 32, 16, 3, false>>();
  forward<BFloat16, Kernel<1, 4, 1, 1>, ToeplitzTile<2, 2, 8, 2, 1, 1, 16, 16, 2, false>>();
  forward<BFloat16, Kernel<9, 9, 1, 1>, ToeplitzTile<1, 2, 8, 2, 1, 1, 16, 8, 4, false>>();
  forward<BFloat16, Kernel<8, 8, 1, 1>, ToeplitzTile<2, 1, 16, 1, 1, 1, 16, 16, 3, false>>();
  forward<BFloat16, Kernel<3, 10, 1, 1>, ToeplitzTile<2, 1, 16, 1, 1, 1, 16, 16, 3, false>>();
  forward<Float16, Kernel<15, 15, 1, 1>, ToeplitzTile<1, 2, 8, 1, 1, 1, 16, 16, 3, false>>();
  forward<BFloat16, Kernel<15, 15, 1, 1>, ToeplitzTile<1, 1, 16, 1, 1, 1, 16, 28, 2, true>>(14);
}

}  // namespace
}  // namespace lamella::depthwise::checks
