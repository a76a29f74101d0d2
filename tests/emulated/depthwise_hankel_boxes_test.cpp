#include "depthwise_boxes_case.h"
#include "layers/depthwise_conv2d/cuda/device/hankel_boxes.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 6;

/// Maps of `size`, with as much padding as keeps it; 0: of any that the tile is meant for.
template <class T, class K, class Tile, bool kBias>
void weigh(int size = 0) {
  for_seeds(kSeeds, [=](Draw& draw) {
    const Wanted wanted = want_boxes(Case<T, K>::kSizes, Tile::kImages);
    BoxWork boxes;
    PixelWork& work = boxes.work;
    Geometry g{};
    BoxPlan plan;
    do {
      g = draw_map(draw, wanted, size);
      work = {};
      divide_dilation(work.h, g.h, g.out_h, K::kH, g.stride_h, g.padding_h, g.dilation_h);
      divide_dilation(work.w, g.w, g.out_w, K::kW, g.stride_w, g.padding_w, g.dilation_w);
      plan = cut_hankel_boxes(work, g.batch, g.channels, Case<T, K>::kSizes, kHankelSizes<Tile>, draw(1, 30),
                              kBias, draw(1, 30));
    } while (plan.launch.blocks == 0);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, kBoxLayout);
    problem.never_add();
    problem.describe(work);
    BoxTensors tensors;
    tensors.tell(boxes, g, plan);
    using Sizes = HankelBoxes<K, Tile>;
    EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
    EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
    EXPECT_EQ(kHankelSizes<Tile>.sums(K::kH), Sizes::kSums);
    problem.backward(work, plan.launch, {false, true, kBias}, problem.has_gaps(), false,
                     [&] { backward_hankel_boxes<T, K, Tile, kBias, 1>(boxes); });
    return true;
  });
}

template <int kH, int kW = kH>
using Size = Kernel<kH, kW, 1, 1>;

TEST(HankelBoxes, five) {
  using Tile = HankelTile<16, 2, 4, 1, 1, 0, 32, 4, false, true>;
  weigh<BFloat16, Size<5>, Tile, false>();
  weigh<BFloat16, Size<5>, Tile, true>();
  weigh<Float16, Size<5>, Tile, false>(28);
}
TEST(HankelBoxes, seven) {
  using Tile = HankelTile<16, 1, 4, 2, 2, 0, 16, 3, false, true>;
  weigh<BFloat16, Size<7>, Tile, true>();
  weigh<BFloat16, Size<7>, Tile, false>(30);
}
TEST(HankelBoxes, sums_in_place_of_pages) {
  weigh<BFloat16, Size<5>, HankelTile<8, 2, 4, 2, 2, 2, 32, 2, true, true, 8, true>, false>(7);
  weigh<BFloat16, Size<3>, HankelTile<8, 1, 8, 2, 3, 1, 32, 2, true, true, 4, true>, true>();
  weigh<Float16, Size<7>, HankelTile<16, 1, 4, 4, 4, 3, 32, 2, true, true, 2, true>, false>(14);
}
TEST(HankelBoxes, other_kernels) {
  using Tile = HankelTile<16, 1, 4, 2, 2, 0, 64, 3, false, true>;
  weigh<BFloat16, Size<3, 7>, Tile, false>();
  weigh<Float16, Size<5, 3>, Tile, true>();
  weigh<BFloat16, Size<8, 8>, Tile, false>();
  weigh<BFloat16, Size<1, 6>, Tile, true>();
  weigh<BFloat16, Size<9, 2>, Tile, true>();
}
TEST(HankelBoxes, loads_of_g_again) {
  weigh<BFloat16, Size<7>, HankelTile<16, 2, 4, 2, 2, 0, 16, 3, false, false>, true>();
  weigh<Float16, Size<5>, HankelTile<16, 1, 4, 1, 1, 0, 32, 2, false, false>, false>();
  weigh<BFloat16, Size<7>, HankelTile<16, 1, 4, 4, 4, 3, 32, 2, true, false>, false>(14);
  weigh<BFloat16, Size<3>, HankelTile<16, 1, 8, 1, 2, 0, 32, 2, false, false>, true>();
}
TEST(HankelBoxes, eight_rows_of_x) {
  using Tile = HankelTile<16, 2, 8, 1, 2, 0, 32, 3, false, true>;
  weigh<BFloat16, Size<3>, Tile, false>();
  weigh<BFloat16, Size<4>, Tile, true>();
  weigh<Float16, Size<5, 3>, HankelTile<16, 1, 8, 2, 4, 0, 16, 3, false, true>, true>();
}
TEST(HankelBoxes, whole_maps) {
  weigh<BFloat16, Size<7>, HankelTile<16, 1, 4, 4, 4, 3, 32, 2, true, true>, false>(14);
  weigh<BFloat16, Size<7>, HankelTile<16, 1, 4, 4, 5, 4, 32, 2, true, true>, true>();
  weigh<BFloat16, Size<5>, HankelTile<16, 1, 4, 4, 4, 4, 32, 2, true, true, 2>, false>(13);
  weigh<BFloat16, Size<5>, HankelTile<16, 2, 4, 4, 4, 4, 16, 1, true, true, 4>, false>(14);
  weigh<Float16, Size<3>, HankelTile<16, 1, 8, 2, 4, 2, 32, 2, true, true, 2>, false>(14);
}
TEST(HankelBoxes, columns_of_two_images) {
  weigh<BFloat16, Size<5>, HankelTile<8, 1, 4, 2, 2, 2, 32, 2, true, true, 2>, false>(7);
  weigh<BFloat16, Size<5>, HankelTile<8, 2, 4, 2, 3, 4, 16, 2, true, true, 4>, false>(7);
  weigh<BFloat16, Size<7>, HankelTile<8, 1, 4, 2, 2, 3, 64, 1, true, true, 4>, false>(7);
  weigh<BFloat16, Size<7>, HankelTile<8, 2, 4, 3, 3, 3, 16, 2, true, true, 8>, true>();
  weigh<Float16, Size<3>, HankelTile<8, 2, 8, 1, 2, 1, 32, 2, true, true, 4>, false>(7);
  weigh<Float16, Size<3>, HankelTile<8, 1, 8, 2, 3, 1, 32, 2, true, true, 4>, true>();
  weigh<BFloat16, Size<5>, HankelTile<8, 1, 4, 2, 2, 2, 32, 2, true, false, 2>, false>(7);
}

}  // namespace
}  // namespace lamella::depthwise::checks
