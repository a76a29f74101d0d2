#include <utility>

#include "depthwise_boxes_case.h"
#include "layers/depthwise_conv2d/cuda/cut_pairs.h"
#include "layers/depthwise_conv2d/cuda/device/pairs.cuh"

// Pairs of channels side by side: the input's gradient is the forward with the turned kernel, of Toeplitz
// boxes.
namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 6;

/// The weight's gradient by Hankel boxes.
template <class Tile>
struct Hankel {
  static BoxPlan cut(PixelWork& work, const Geometry& g, const KernelSizes& sizes, bool bias, Draw& draw) {
    return cut_hankel_boxes(work, g.batch, g.channels, sizes, kHankelSizes<Tile>, draw(1, 30), bias, 1);
  }
  template <class T, class K, bool kBias, bool kInRow>
  static constexpr auto kBlock = weigh_hankel_boxes<T, K, Tile, kBias, kInRow>;
  template <class K>
  static constexpr int kThreads = HankelBoxes<K, Tile>::kThreads;
  static constexpr int kImages = Tile::kImages;
};

/// The same by boxes; kernels have no phase at a stride of one.
template <class Tile>
struct Walk {
  static BoxPlan cut(PixelWork& work, const Geometry& g, const KernelSizes& sizes, bool bias, Draw& draw) {
    return cut_backward_boxes(work, g.batch, g.channels, sizes, kBoxSizes<Tile>,
                              Tile::kWhole ? Tile::kStepRows : draw(1, 12), false, true, bias, 1);
  }
  template <class T, class K, bool kBias, bool kInRow>
  static constexpr auto kBlock = walk_boxes<T, K, Tile, false, true, kBias, 0, 0, kPlain, kPlain, kInRow>;
  template <class K>
  static constexpr int kThreads = BackwardBoxes<K, Tile, false, true, 0, 0>::kThreads;
  static constexpr int kImages = Tile::kImages;
};

/// Maps of `size` with as much padding as keeps it; 0: of any. kInStep: blocks take every so many-th item.
template <class T, class K, class Tile, class Weight, bool kBias, bool kInStep>
void run_both(int size) {
  for_seeds(kSeeds, [=](Draw& draw) {
    Wanted wanted = want_boxes(Case<T, K>::kSizes, 1);
    wanted.most_images = 2 * std::max(Tile::kImages, Weight::kImages) + 3;
    wanted.may_have_gaps = wanted.may_reach_beyond = false;
    const Geometry g = draw_map(draw, wanted, size);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, kBoxLayout);
    problem.never_add();
    PairWork<BoxWork> pair;
    PixelWork &input = pair.input.work, &weight = pair.weight.work;
    problem.describe(weight), problem.describe(input);
    for (Axis* const axis : {&input.h, &input.w}) {
      std::swap(axis->input, axis->output);
      axis->padding = ((axis == &input.h ? K::kH : K::kW) - 1) * axis->input_step - axis->padding;
    }
    std::swap(input.x, input.y);
    input.y = input.dx, input.taps.turned = !weight.taps.turned, input.taps.bias = nullptr;
    constexpr ToeplitzTileSizes kSizes = kToeplitzSizes<Tile>;
    const BoxPlan multiplies =
        cut_toeplitz_boxes(input, g.batch, g.channels, problem.kSizes, kSizes,
                           Tile::kWhole ? Tile::kStepRows : draw(1, 2 * Tile::kStepRows), 1);
    const BoxPlan weighs = Weight::cut(weight, g, problem.kSizes, kBias, draw);
    if (multiplies.launch.blocks == 0 || weighs.launch.blocks == 0) return false;
    const PairKind of_input{multiplies.launch, input.cut.channel_blocks, input.items, Tile::kImages},
        of_weight{weighs.launch, weight.cut.channel_blocks, weight.items, Weight::kImages};
    pair.input_groups = static_cast<int>(of_input.groups);
    pair.weight_groups = static_cast<int>(of_weight.groups);
    Launch launch;
    if (kInStep) {
      do {
        pair.input_groups = static_cast<int>(of_input.groups) * draw(1, 4);
        pair.weight_groups = static_cast<int>(of_weight.groups) * draw(1, 4);
        launch = cut_pairs_in_step(of_input, of_weight, draw(1, 3), pair.input_groups, pair.weight_groups,
                                   input.items_per_part, weight.items_per_part);
      } while (launch.blocks == 0);
    } else {
      launch =
          cut_pairs(of_input, of_weight, g.batch, draw(1, 40), input.items_per_part, weight.items_per_part);
    }
    Geometry turned = g;  // the forward's
    std::swap(turned.h, turned.out_h), std::swap(turned.w, turned.out_w);
    BoxTensors of_multiplying, of_weighing;
    of_multiplying.tell(pair.input, turned, multiplies);
    of_weighing.tell(pair.weight, g, weighs);
    problem.backward(weight, launch, {true, true, kBias}, false, false, [&] {
      backward_pairs<BoxWork, multiply_toeplitz_boxes<T, K, Tile, !kInStep>,
                     ForwardToeplitzBoxes<K, Tile>::kThreads, Weight::template kBlock<T, K, kBias, !kInStep>,
                     Weight::template kThreads<K>, 1>(pair);
    });
    return true;
  });
}

template <class T, class K, class Tile, class Weight, bool kBias>
void both(int size = 0) {
  run_both<T, K, Tile, Weight, kBias, false>(size);
  run_both<T, K, Tile, Weight, kBias, true>(size);
}

using Three = Kernel<3, 3, 1, 1>;
using Five = Kernel<5, 5, 1, 1>;
using Seven = Kernel<7, 7, 1, 1>;

TEST(BoxPairs, of_toeplitz_and_hankel_boxes) {
  both<BFloat16, Five, ToeplitzTile<4, 1, 16, 1, 1, 1, 32, 8, 4, false>,
       Hankel<HankelTile<16, 2, 4, 1, 1, 0, 32, 4, false, true>>, true>();
  both<Float16, Seven, ToeplitzTile<1, 4, 4, 4, 1, 1, 16, 16, 3, false>,
       Hankel<HankelTile<16, 1, 4, 2, 2, 0, 64, 3, false, true>>, false>();
}
TEST(BoxPairs, whose_pages_a_warp_that_computes_asks_for) {
  both<BFloat16, Five, ToeplitzTile<1, 2, 4, 4, 1, 1, 32, 8, 3, false, 0, true>,
       Hankel<HankelTile<16, 1, 4, 2, 2, 0, 64, 3, false, true>>, true>();
  both<Float16, Seven, ToeplitzTile<1, 4, 4, 4, 1, 1, 16, 16, 3, false, 0, true>,
       Walk<BoxTile<16, 1, 2, 16, 8, 7, 5, false>>, false>();
}
TEST(BoxPairs, of_whole_maps) {
  both<BFloat16, Seven, ToeplitzTile<2, 1, 16, 1, 1, 1, 64, 20, 2, true>,
       Hankel<HankelTile<16, 1, 4, 4, 4, 3, 32, 2, true, true>>, false>(14);
  both<BFloat16, Five, ToeplitzTile<1, 2, 4, 1, 1, 1, 32, 11, 2, true>,
       Hankel<HankelTile<8, 1, 4, 2, 2, 2, 32, 2, true, true, 2>>, false>(7);
}
TEST(BoxPairs, of_toeplitz_boxes_and_boxes) {
  both<BFloat16, Three, ToeplitzTile<2, 1, 8, 2, 1, 1, 16, 8, 3, false>,
       Walk<BoxTile<16, 2, 2, 32, 16, 3, 2, false>>, true>();
  both<Float16, Five, ToeplitzTile<1, 2, 4, 1, 1, 1, 32, 11, 2, true>,
       Walk<BoxTile<8, 2, 4, 16, 8, 5, 2, true, 0, 4>>, false>(7);
}

}  // namespace
}  // namespace lamella::depthwise::checks
