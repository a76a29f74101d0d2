#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_phases.h"
#include "layers/depthwise_conv2d/cuda/device/phases_correlate.cuh"
#include "layers/depthwise_conv2d/cuda/device/phases_multiply.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 40;

/// run(work) for problems drawn by seed; kWord: bytes of sources that are copied at once, kVector: numbers of
/// a row that are stored at once.
template <class T, class K, bool kScatters, bool kLast, int kWord, int kVector, class Run>
void compute(PhaseSizes sizes, const Run& run) {
  for_seeds(kSeeds, [&](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    if (kLast) wanted.channels = kVector;
    if (!kLast) wanted.width = wanted.out_width = kVector;
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {kLast, kVector, kVector});
    PhaseWork work;
    problem.describe(work, kScatters);
    sizes.threads = kThreads;
    sizes.source_word = kWord, sizes.target_vector = kVector;
    if (kWord == sizeof(T)) sizes.source_alignment = kWord;
    const int unit = phase_channels(kLast, kVector);
    sizes.channels = draw(1, g.channels / unit) * unit;
    const int sources = g.channels * phase_channels(kScatters, K::kRepeat);
    sizes.source_pieces =
        kLast && (sizes.channels < g.channels || work.source.column != sources || draw(0, 1) == 1);
    divide_phase_rows(work, draw(0, 3) == 0 ? 1 : PhaseWork::kMostResidues);
    sizes.images = draw(1, g.batch);
    sizes.band = draw(1, work.h.targets + 1);
    if (!sizes.multiplies && draw(0, 1) == 1) spread_phases(work.h, work.w, sizes);
    const Launch launch =
        cut_correlate_phases(work, g.batch, g.channels, kLast, K::kRepeat, sizes, sizeof(T), draw(1, 6));
    constexpr std::int64_t kMostShared = 200 << 10;
    if (launch.blocks == 0 || launch.shared_bytes > kMostShared) return false;
    const auto kernel = [&] { run(work); };
    if (kScatters)
      problem.backward(work, launch, {true, false, false}, false, true, kernel);
    else
      problem.forward(work, launch, true, kernel);
    return true;
  });
}

/// Of a group, in a row.
template <class K>
constexpr int kMostTaps = (K::kW + K::kStrideW - 1) / K::kStrideW;

template <class T, class K, int kRows, int kColumns, bool kScatters, bool kLast, int kWord = 16,
          int kVector = 1>
void correlate() {
  using Tile = PhaseTile<kMostTaps<K>, kRows, kColumns>;
  PhaseSizes sizes;
  sizes.rows = kRows, sizes.columns = kColumns;
  compute<T, K, kScatters, kLast, kWord, kVector>(sizes, [](const PhaseWork& work) {
    correlate_phases<T, Tile, K::kRepeat, kScatters, kLast, kWord, (kWord == sizeof(T)), kVector, kThreads,
                     1>(work);
  });
}

template <class T, class K, int kRows, bool kScatters, bool kLast, int kWord = 16, int kVector = 1>
void multiply() {
  using Tile = PhaseMatrixTile<kMostTaps<K>, kRows>;
  PhaseSizes sizes;
  sizes.multiplies = true, sizes.rows = kRows;
  compute<T, K, kScatters, kLast, kWord, kVector>(sizes, [](const PhaseWork& work) {
    multiply_phases<T, Tile, K::kRepeat, kScatters, kLast, kWord, (kWord == sizeof(T)), kVector, kThreads, 1>(
        work);
  });
}

TEST(Phases, forward) { correlate<float, Kernel<5, 5, 1, 1>, 4, 4, false, false>(); }
TEST(Phases, forward_strides) { correlate<BFloat16, Kernel<4, 7, 2, 3>, 2, 12, false, false>(); }
TEST(Phases, forward_channels_last) { correlate<Float16, Kernel<3, 6, 1, 2>, 3, 3, false, true>(); }
TEST(Phases, forward_multiplier) { correlate<BFloat16, Kernel<7, 2, 3, 1, 2>, 4, 8, false, true>(); }
TEST(Phases, forward_multiplier_of_planes) { correlate<float, Kernel<2, 9, 2, 2, 3>, 1, 6, false, false>(); }
TEST(Phases, forward_vectors_of_channels) {
  correlate<BFloat16, Kernel<3, 3, 1, 1>, 2, 4, false, true, 4, 4>();
}
TEST(Phases, forward_vectors_of_columns) {
  correlate<BFloat16, Kernel<3, 5, 2, 1>, 2, 4, false, false, 16, 2>();
}
TEST(Phases, forward_words_of_one_number) { correlate<float, Kernel<3, 4, 1, 2>, 2, 4, false, true, 4>(); }
TEST(Phases, forward_strides_above_the_kernel) { correlate<float, Kernel<1, 2, 2, 3>, 2, 4, false, false>(); }
TEST(Phases, input_gradient) { correlate<float, Kernel<5, 4, 1, 1>, 4, 4, true, false>(); }
TEST(Phases, input_gradient_strides) { correlate<BFloat16, Kernel<4, 7, 2, 3>, 2, 12, true, false>(); }
TEST(Phases, input_gradient_channels_last) { correlate<Float16, Kernel<3, 6, 3, 2>, 3, 3, true, true>(); }
TEST(Phases, input_gradient_multiplier) { correlate<BFloat16, Kernel<7, 2, 3, 1, 2>, 4, 8, true, true>(); }
TEST(Phases, input_gradient_multiplier_of_planes) {
  correlate<float, Kernel<2, 9, 2, 2, 3>, 1, 6, true, false>();
}
TEST(Phases, input_gradient_strides_above_the_kernel) {
  correlate<float, Kernel<1, 2, 2, 3>, 2, 4, true, false>();
}
TEST(Phases, input_gradient_vectors_of_channels) {
  correlate<Float16, Kernel<3, 3, 2, 2>, 2, 4, true, true, 4, 2>();
}

TEST(Phases, multiply) { multiply<BFloat16, Kernel<5, 5, 1, 1>, 1, false, false>(); }
TEST(Phases, multiply_windows_of_an_eight) { multiply<Float16, Kernel<3, 1, 1, 2>, 2, false, false>(); }
TEST(Phases, multiply_windows_of_three_eights) { multiply<BFloat16, Kernel<3, 11, 1, 1>, 2, false, true>(); }
TEST(Phases, multiply_strides) { multiply<Float16, Kernel<4, 7, 2, 3>, 2, false, false>(); }
TEST(Phases, multiply_multiplier) { multiply<BFloat16, Kernel<7, 2, 3, 1, 2>, 1, false, true>(); }
TEST(Phases, multiply_vectors_of_channels) { multiply<BFloat16, Kernel<3, 3, 1, 1>, 4, false, true, 4, 4>(); }
TEST(Phases, multiply_vectors_of_columns) { multiply<Float16, Kernel<3, 5, 2, 1>, 1, false, false, 16, 2>(); }
TEST(Phases, multiply_input_gradient) { multiply<BFloat16, Kernel<5, 4, 1, 1>, 2, true, false>(); }
TEST(Phases, multiply_input_gradient_strides) { multiply<Float16, Kernel<4, 7, 2, 3>, 1, true, false>(); }
TEST(Phases, multiply_input_gradient_multiplier) {
  multiply<BFloat16, Kernel<2, 9, 2, 2, 3>, 1, true, true>();
}
TEST(Phases, multiply_input_gradient_strides_above_the_kernel) {
  multiply<Float16, Kernel<1, 2, 2, 3>, 2, true, false>();
}

/// One column of some of the channels is a piece of its own: the last block has fewer of them than a row of
/// all, and must not read behind the tensor.
TEST(Phases, single_columns_are_pieces) {
  const PhaseRaw raw = cut_phase_raw(1, 1, 16, true, 16, 4, 4, kThreads);
  EXPECT_TRUE(raw.by_columns);
  EXPECT_EQ(raw.pieces, 1);
  EXPECT_FALSE(cut_phase_raw(1, 1, 16, false, 16, 4, 4, kThreads).by_columns);
}

/// Columns may lie further apart than an int counts, as those of a tensor that was transposed.
TEST(Phases, columns_may_be_far_apart) {
  constexpr Int64 kApart = 3LL << 30;
  PhaseWork work;
  work.source.column = kApart;
  work.w.source_every = 2;
  EXPECT_EQ(sources_of(work, 1).column_step<float>(), 2 * kApart * 4);
}

/// A plane of more numbers than an int counts.
TEST(Phases, cut) {
  PhaseWork work;
  work.h = phase_axis(1000000, 250000, 3, 4, 1, 1, false);
  work.w = phase_axis(1, 3999, 3, 1, 2000, 1, false);
  work.target_h = 250000, work.target_w = 3999;
  divide_phase_rows(work);
  PhaseSizes sizes;
  sizes.columns = 4;
  const auto cut = [&](int band) {
    sizes.band = band;
    return cut_correlate_phases(work, 1, 1, false, 1, sizes, 4, 1);
  };
  EXPECT_EQ(cut(250000).blocks, 0);
  EXPECT_EQ(cut(1).blocks, 1);
}

}  // namespace
}  // namespace lamella::depthwise::checks
