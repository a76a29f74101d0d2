#pragma once

#include <algorithm>

#include "depthwise_boxes_case.h"
#include "layers/depthwise_conv2d/cuda/device/boxes_backward.cuh"
#include "layers/depthwise_conv2d/cuda/device/boxes_forward.cuh"

/// What the tests of boxes of sixteen bits share: a tile's kernels against the definition.
namespace lamella::depthwise::checks {

constexpr unsigned kBoxSeeds = 6;

/// The axis of columns, its dilation divided out.
inline Axis columns_of(const Geometry& g, int kernel) {
  Axis axis;
  divide_dilation(axis, g.w, g.out_w, kernel, g.stride_w, g.padding_w, g.dilation_w);
  return axis;
}

/// Of a map that is `width` wide, with as much padding as keeps its size; 0: any that the tile's boxes are
/// meant for.
template <class T, class K, class Tile>
Geometry box_geometry(Draw& draw, int width, bool is_forward) {
  Wanted wanted = want_boxes(Case<T, K>::kSizes, Tile::kImages);
  if (width > 0) wanted.spread_w = 1, wanted.padding_w = (K::kW - 1) / 2, wanted.may_reach_beyond = false;
  if (Tile::kByRows) wanted.spread_h = wanted.spread_w = 1;
  for (;;) {
    Geometry g = draw_geometry(draw, wanted);
    if (Tile::kByRows) g.channels = Tile::kChannels;
    PixelWork work;
    work.w = columns_of(g, K::kW);
    const auto narrowed = [&] {
      return is_forward ? narrow_forward_boxes(work, wanted.kernel, kBoxSizes<Tile>)
                        : narrow_backward_boxes(work, wanted.kernel, kBoxSizes<Tile>, false);
    };
    if (width > 0 ? g.w == width : Tile::kBoxColumns == 0 || narrowed() == Tile::kBoxColumns) return g;
  }
}

template <class T, class K, class Tile, int kTransforms = kPlain, bool kStatistics = false>
void forward(double lift = 0, int width = 0) {
  for_seeds(kBoxSeeds, [=](Draw& draw) {
    const Geometry g = box_geometry<T, K, Tile>(draw, width, true);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, Tile::kByRows ? kDenseLayout : kBoxLayout, kTransforms, lift);
    problem.never_add();
    BoxWork boxes;
    PixelWork& work = boxes.work;
    problem.describe(work);
    BoxPlan plan = cut_forward_boxes(work, g.batch, g.channels, problem.kSizes, kBoxSizes<Tile>,
                                     Tile::kWhole ? Tile::kStepRows : draw(1, 12), draw(1, 40));
    if (plan.launch.blocks == 0) return false;
    if (kTransforms != kPlain) add_transform_boxes(kBoxSizes<Tile>, plan.launch);
    using Sizes = ForwardBoxes<K, Tile, kTransforms != kPlain>;
    EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
    EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
    BoxTensors tensors;
    tensors.tell(boxes, g, plan);
    const auto run = [&] { forward_boxes<T, K, Tile, kTransforms, kStatistics, 1>(boxes); };
    if constexpr (kStatistics) {
      add_statistics_boxes(kBoxSizes<Tile>, plan.launch);
      problem.forward_with_statistics(work, plan.launch, run, true);
    } else {
      problem.forward(work, plan.launch, false, run);
    }
    return true;
  });
}

template <class T, class K, class Tile, bool kInput, bool kWeight, bool kBias, int kTransforms = kPlain,
          int kNormSums = kPlain>
void backward(int width = 0) {
  for_seeds(kBoxSeeds, [=](Draw& draw) {
    const Geometry g = box_geometry<T, K, Tile>(draw, width, false);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, Tile::kByRows ? kDenseLayout : kBoxLayout, std::max(kTransforms, kNormSums));
    problem.never_add();
    BoxWork boxes;
    PixelWork& work = boxes.work;
    problem.describe(work);
    BoxPlan plan = cut_backward_boxes(work, g.batch, g.channels, problem.kSizes, kBoxSizes<Tile>,
                                      Tile::kWhole ? Tile::kStepRows : draw(1, 12), kInput,
                                      kWeight || kNormSums != kPlain, kBias, draw(1, 30));
    if (plan.launch.blocks == 0) return false;
    BoxTensors tensors;
    tensors.tell(boxes, g, plan);
    const auto run = [&]<int kPhaseH, int kPhaseW>() {
      using Sizes = BackwardBoxes<K, Tile, kInput, kWeight || kNormSums != kPlain, kPhaseH, kPhaseW>;
      if constexpr (Tile::kPages >= (Sizes::kGRows + Sizes::kPageRows - 1) / Sizes::kPageRows) {
        EXPECT_EQ(plan.launch.shared_bytes, Sizes::kSharedBytes);
        EXPECT_EQ(plan.launch.threads, Sizes::kThreads);
        const Gradients of{kInput, kWeight, kBias};
        const auto kernel = [&] {
          backward_boxes<T, K, Tile, kInput, kWeight, kBias, kPhaseH, kPhaseW, kTransforms, kNormSums, 1>(
              boxes);
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

}  // namespace lamella::depthwise::checks
