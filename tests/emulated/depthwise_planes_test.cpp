#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_planes.h"
#include "layers/depthwise_conv2d/cuda/device/planes_backward.cuh"
#include "layers/depthwise_conv2d/cuda/device/planes_forward.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 40;

/// Calls run.operator()<bool, bool>() with values known only now.
template <class Run>
void with_constants(bool first, bool second, const Run& run) {
  if (first)
    second ? run.template operator()<true, true>() : run.template operator()<true, false>();
  else
    second ? run.template operator()<false, true>() : run.template operator()<false, false>();
}
bool is_dilated(const PlaneWork& work) { return work.w.input_step > 1 || work.w.output_step > 1; }
std::int64_t draw_bytes(Draw& draw) { return draw(1, 6) * std::int64_t{3000}; }

/// K with so many outputs a channel, for kernels of one that take one after the other.
template <class K, int kApart>
using Apart = std::conditional_t<(kApart > 1), Kernel<K::kH, K::kW, K::kStrideH, K::kStrideW, kApart>, K>;

template <class T, class K, class Tile, int kTapRows, bool kDouble, int kTransforms, int kApart = 1>
void forward() {
  for_seeds(kSeeds, [](Draw& draw) {
    using All = Case<T, Apart<K, kApart>>;
    const Geometry g = draw_geometry(draw, {All::kSizes});
    SCOPED_TRACE(to_string(g));
    All problem(draw, g, {}, kTransforms);
    PlaneWork work;
    problem.describe(work);
    work.y_step = kApart;
    const Launch launch = cut_forward_planes(work, std::int64_t{g.batch} * g.channels, Case<T, K>::kSizes,
                                             {Tile::kRows, Tile::kColumns, 1}, sizeof(T), kThreads,
                                             draw_bytes(draw), kDouble, kTapRows < K::kH, draw(1, 3));
    if (launch.blocks == 0) return false;
    with_constants(
        is_dilated(work), has_edges_alone(work.w, Case<T, K>::kSizes, Tile::kColumns),
        [&]<bool kDilated, bool kEdges>() {
          problem.forward(work, launch, true, [&] {
            forward_planes<T, K, Tile, kTapRows, kDilated, kEdges, kDouble, kTransforms, false, kThreads, 1>(
                work);
          });
        });
    return true;
  });
}

template <class T, class K, class Tile, int kTapRows, bool kInput, bool kWeight, bool kBias, bool kDouble,
          bool kDirect, int kTransforms, int kApart = 1>
void backward() {
  for_seeds(kSeeds, [](Draw& draw) {
    using All = Case<T, Apart<K, kApart>>;
    Wanted wanted{All::kSizes};
    wanted.may_have_gaps = !(kInput && kWeight);
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    All problem(draw, g, {}, kTransforms);
    PlaneWork work;
    problem.describe(work);
    work.y_step = kApart;
    const Launch launch = cut_backward_planes(
        work, g.batch, g.channels, Case<T, K>::kSizes, {Tile::kRows, Tile::kColumns, 1}, kTapRows, sizeof(T),
        kThreads, draw_bytes(draw), kDouble, kInput, kWeight, kBias, kDirect, draw(1, 30));
    if (launch.blocks == 0) return false;
    const bool edges =
        has_edges_alone_backward(work.w, Case<T, K>::kSizes, Tile::kColumns, kBias, work.owner_w);
    with_constants(is_dilated(work), edges, [&]<bool kDilated, bool kEdges>() {
      const bool twice = !kDirect && K::kRepeat == 1;
      problem.backward(work, launch, {kInput, kWeight, kBias}, kDirect && problem.has_gaps(), twice, [&] {
        backward_planes<T, K, Tile, kTapRows, kInput, kWeight, kBias, kDilated, kEdges, kDouble, kDirect,
                        kTransforms, false, kThreads, 1>(work);
      });
    });
    return true;
  });
}

template <class T, class K, class Tile, int kTapRows, bool kDouble, int kTransforms, int kApart = 1>
void statistics(double lift) {
  for_seeds(kSeeds, [lift](Draw& draw) {
    using All = Case<T, Apart<K, kApart>>;
    const Geometry g = draw_geometry(draw, {All::kSizes});
    SCOPED_TRACE(to_string(g));
    All problem(draw, g, {}, kTransforms, lift);
    PlaneWork work;
    problem.describe(work);
    work.y_step = kApart;
    Launch launch = cut_forward_planes(work, std::int64_t{g.batch} * g.channels, Case<T, K>::kSizes,
                                       {Tile::kRows, Tile::kColumns, 1}, sizeof(T), kThreads,
                                       draw_bytes(draw), kDouble, kTapRows < K::kH, draw(1, 3));
    if (launch.blocks == 0) return false;
    add_statistics_planes(work.cut, g.batch, launch);
    with_constants(
        is_dilated(work), has_edges_alone(work.w, Case<T, K>::kSizes, Tile::kColumns),
        [&]<bool kDilated, bool kEdges>() {
          problem.forward_with_statistics(work, launch, [&] {
            forward_planes<T, K, Tile, kTapRows, kDilated, kEdges, kDouble, kTransforms, true, kThreads, 1>(
                work);
          });
        });
    return true;
  });
}

template <class T, class K, class Tile, bool kWeight, bool kBias, bool kDouble, bool kDirect,
          int kNormSums = kClamp>
void norm_sums() {
  for_seeds(kSeeds, [](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.may_have_gaps = false;
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {}, kNormSums);
    PlaneWork work;
    problem.describe(work);
    Launch launch = cut_backward_planes(work, g.batch, g.channels, problem.kSizes,
                                        {Tile::kRows, Tile::kColumns, 1}, K::kH, sizeof(T), kThreads,
                                        draw_bytes(draw), kDouble, true, true, kBias, kDirect, draw(1, 30));
    if (launch.blocks == 0) return false;
    add_norm_sums(kWeight, launch);
    const bool edges = has_edges_alone_backward(work.w, problem.kSizes, Tile::kColumns, kBias, work.owner_w);
    with_constants(is_dilated(work), edges, [&]<bool kDilated, bool kEdges>() {
      problem.backward_with_sums(work, launch, {true, kWeight, kBias}, false, [&] {
        backward_planes<T, K, Tile, K::kH, true, kWeight, kBias, kDilated, kEdges, kDouble, kDirect,
                        kWeight ? kNormSums : kPlain, kNormSums, kThreads, 1>(work);
      });
    });
    return true;
  });
}

TEST(Planes, forward) { forward<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, false>(); }
TEST(Planes, forward_stride_and_transform) {
  forward<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 3, 1>, 3, false, true>();
}
TEST(Planes, forward_multiplier_and_some_rows_of_taps) {
  forward<float, Kernel<5, 5, 1, 1, 2>, Tile<2, 5, 1>, 2, true, false>();
}
TEST(Planes, forward_multiplier_of_three) {
  forward<BFloat16, Kernel<2, 2, 1, 1, 3>, Tile<4, 1, 1>, 2, true, true>();
}
TEST(Planes, forward_column_of_taps) {
  forward<Float16, Kernel<3, 1, 1, 1>, Tile<7, 7, 1>, 3, true, false>();
}

TEST(Planes, forward_an_output_at_a_time) {
  forward<BFloat16, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, true, 2>();
}
TEST(Planes, forward_an_output_at_a_time_some_rows_of_taps) {
  forward<float, Kernel<5, 5, 2, 2>, Tile<2, 3, 1>, 2, false, false, 3>();
}

TEST(Planes, both_gradients_an_output_at_a_time) {
  backward<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, true, true, true, false, true, 2>();
}
TEST(Planes, input_gradient_an_output_at_a_time_some_rows_of_taps) {
  backward<float, Kernel<5, 5, 2, 2>, Tile<2, 2, 1>, 2, true, false, false, true, false, false, 2>();
}
TEST(Planes, input_gradient_an_output_at_a_time_direct) {
  backward<float, Kernel<4, 4, 3, 3>, Tile<1, 2, 1>, 4, true, false, false, true, true, false, 3>();
}
// Sums of several outputs, rounded once.
template <class T, class K, class Tile, int kTapRows, bool kDouble, bool kDirect>
void outputs_in_turn() {
  backward<T, K, Tile, kTapRows, true, false, false, kDouble, kDirect, false>();
}
TEST(Planes, outputs_in_turn) {
  outputs_in_turn<BFloat16, Kernel<3, 3, 1, 1, 2>, Tile<4, 3, 1>, 3, false, false>();
}
TEST(Planes, outputs_in_turn_ahead) {
  outputs_in_turn<Float16, Kernel<3, 3, 1, 1, 3>, Tile<4, 3, 1>, 3, true, false>();
}
TEST(Planes, outputs_in_turn_direct) {
  outputs_in_turn<BFloat16, Kernel<3, 5, 1, 1, 2>, Tile<4, 3, 1>, 3, false, true>();
}
TEST(Planes, outputs_in_turn_stride_two) {
  outputs_in_turn<BFloat16, Kernel<4, 3, 2, 2, 3>, Tile<2, 3, 1>, 4, true, false>();
}
TEST(Planes, outputs_in_turn_stride_three) {
  outputs_in_turn<BFloat16, Kernel<4, 4, 3, 3, 2>, Tile<1, 2, 1>, 6, false, false>();
}
TEST(Planes, outputs_in_turn_stride_three_direct) {
  outputs_in_turn<Float16, Kernel<5, 4, 3, 3, 2>, Tile<2, 2, 1>, 3, true, true>();
}
TEST(Planes, outputs_in_turn_some_rows_of_taps) {
  outputs_in_turn<BFloat16, Kernel<7, 5, 1, 1, 2>, Tile<2, 3, 1>, 2, true, false>();
}
TEST(Planes, outputs_in_turn_some_rows_of_taps_uneven) {
  outputs_in_turn<BFloat16, Kernel<9, 4, 2, 1, 3>, Tile<2, 1, 1>, 2, false, false>();
}
TEST(Planes, outputs_in_turn_of_float32) {
  outputs_in_turn<float, Kernel<5, 5, 2, 2, 4>, Tile<2, 2, 1>, 6, false, false>();
}

TEST(Planes, weight_gradient_an_output_at_a_time_groups_of_taps) {
  backward<BFloat16, Kernel<7, 3, 2, 1>, Tile<2, 3, 1>, 2, false, true, true, false, false, false, 2>();
}

TEST(Planes, both_gradients) {
  backward<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, true, true, true, false, false>();
}
TEST(Planes, both_gradients_direct) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Tile<4, 1, 1>, 3, true, true, true, true, true, true>();
}
TEST(Planes, both_gradients_uneven) {
  backward<Float16, Kernel<3, 5, 1, 3>, Tile<2, 1, 1>, 3, true, true, true, false, false, false>();
}
TEST(Planes, input_gradient_stride) {
  backward<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 3, 1>, 3, true, false, false, false, false, false>();
}
TEST(Planes, input_gradient_direct) {
  backward<float, Kernel<4, 4, 3, 3>, Tile<1, 2, 1>, 4, true, false, false, true, true, false>();
}
TEST(Planes, input_gradient_some_rows_of_taps) {
  backward<float, Kernel<5, 5, 2, 2>, Tile<2, 2, 1>, 2, true, false, false, true, false, false>();
}
TEST(Planes, input_gradient_some_rows_of_taps_direct) {
  backward<Float16, Kernel<7, 3, 3, 1>, Tile<1, 3, 1>, 3, true, false, false, false, true, false>();
}
TEST(Planes, weight_gradient_stride_and_transform) {
  backward<float, Kernel<5, 5, 2, 2>, Tile<2, 2, 1>, 5, false, true, true, true, false, true>();
}
TEST(Planes, weight_gradient_groups_of_taps) {
  backward<float, Kernel<5, 5, 1, 1>, Tile<4, 3, 1>, 2, false, true, true, true, false, false>();
}
TEST(Planes, weight_gradient_groups_of_taps_stride) {
  backward<BFloat16, Kernel<7, 3, 2, 1>, Tile<2, 3, 1>, 2, false, true, true, false, false, false>();
}
TEST(Planes, weight_gradient_even_without_bias) {
  backward<BFloat16, Kernel<2, 4, 1, 1>, Tile<4, 5, 1>, 2, false, true, false, true, false, false>();
}

TEST(Planes, statistics) { statistics<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, true>(0); }
TEST(Planes, statistics_far_from_zero) {
  statistics<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, false, false>(1000);
}
TEST(Planes, statistics_stride_and_transform) {
  statistics<BFloat16, Kernel<3, 3, 2, 2>, Tile<2, 3, 1>, 3, false, true>(1000);
}
TEST(Planes, statistics_multiplier_and_some_rows_of_taps) {
  statistics<float, Kernel<5, 5, 1, 1, 2>, Tile<2, 5, 1>, 2, true, false>(1000);
}

TEST(Planes, statistics_an_output_at_a_time) {
  statistics<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, true, 3>(1000);
}

TEST(Planes, both_gradients_and_sums) {
  norm_sums<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, true, true, true, false>();
}
TEST(Planes, both_gradients_and_sums_direct) {
  norm_sums<BFloat16, Kernel<3, 3, 2, 2>, Tile<4, 1, 1>, true, false, true, true>();
}
TEST(Planes, input_gradient_and_sums) {
  norm_sums<BFloat16, Kernel<3, 3, 1, 1>, Tile<2, 3, 1>, false, false, false, false>();
}
TEST(Planes, input_gradient_and_sums_stride) {
  norm_sums<float, Kernel<3, 3, 2, 2>, Tile<2, 2, 1>, false, false, true, false>();
}
TEST(Planes, input_gradient_and_sums_direct) {
  norm_sums<float, Kernel<4, 4, 3, 3>, Tile<1, 2, 1>, false, false, false, true>();
}

TEST(Planes, hardswish) { forward<BFloat16, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, 3, true, kHardSwish>(); }
TEST(Planes, hardswish_both_gradients_and_sums) {
  norm_sums<float, Kernel<3, 3, 1, 1>, Tile<4, 3, 1>, true, true, true, false, kHardSwish>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
