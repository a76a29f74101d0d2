#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_phases_weigh.h"
#include "layers/depthwise_conv2d/cuda/device/phases_weigh.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 40;

/// kWord: bytes that are copied at once.
template <class T, class K, int kColumns, int kTapRows, bool kKeeps, bool kBias, bool kLast, int kWord = 16>
void weigh() {
  using Tile = PhaseTapTile<(K::kW + K::kStrideW - 1) / K::kStrideW, kColumns, kTapRows, kKeeps,
                            (K::kW > K::kStrideW && K::kW % K::kStrideW != 0)>;
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = draw_geometry(draw, {Case<T, K>::kSizes});
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {kLast, 1, 1});
    PhaseWork work;
    problem.describe(work, false);
    PhaseWeighSizes sizes;
    sizes.columns = kColumns, sizes.tap_rows = kTapRows, sizes.threads = kThreads;
    constexpr bool kAligned = kWord == sizeof(T);
    sizes.source_word = sizes.target_word = kWord;
    if (kAligned) sizes.source_alignment = sizes.target_alignment = kWord;
    sizes.channels = draw(1, g.channels);
    const bool has_all = sizes.channels == g.channels;
    sizes.source_pieces = kLast && (!has_all || work.source.column != g.channels || draw(0, 1) == 1);
    sizes.target_pieces =
        kLast && (!has_all || work.target.column != g.channels * K::kRepeat || draw(0, 1) == 1);
    divide_phase_rows(work, draw(0, 3) == 0 ? 1 : PhaseWork::kMostResidues);
    sizes.images = draw(1, g.batch);
    sizes.band = draw(1, work.h.targets + 1);
    sizes.strip_rows = draw(0, work.h.targets + 1);
    sizes.splits = draw(0, 3);
    const Launch launch =
        cut_weigh_phases(work, g.batch, g.channels, kLast, K::kRepeat, kBias, sizes, sizeof(T), draw(1, 6));
    constexpr std::int64_t kMostShared = 200 << 10;
    if (launch.blocks == 0 || launch.shared_bytes > kMostShared) return false;
    problem.backward(work, launch, {false, true, kBias}, false, false, [&] {
      weigh_phases<T, Tile, K::kRepeat, kBias, kLast, kWord, kAligned, kWord, kAligned, kThreads, 1>(work);
    });
    return true;
  });
}

TEST(PhasesWeigh, planes) { weigh<float, Kernel<5, 5, 1, 1>, 4, 3, true, true, false>(); }
TEST(PhasesWeigh, strides) { weigh<BFloat16, Kernel<4, 7, 2, 3>, 12, 2, true, true, false>(); }
TEST(PhasesWeigh, other_strides) { weigh<Float16, Kernel<7, 4, 3, 2>, 8, 2, false, false, false>(); }
TEST(PhasesWeigh, channels_last) { weigh<Float16, Kernel<3, 6, 1, 2>, 3, 3, true, false, true>(); }
TEST(PhasesWeigh, multiplier) { weigh<BFloat16, Kernel<7, 2, 3, 1, 2>, 8, 2, true, true, true>(); }
TEST(PhasesWeigh, multiplier_of_planes) { weigh<float, Kernel<2, 9, 2, 2, 2>, 6, 1, false, true, false>(); }
TEST(PhasesWeigh, words_of_channels) { weigh<BFloat16, Kernel<3, 3, 1, 1>, 4, 3, true, false, true, 4>(); }
TEST(PhasesWeigh, words_of_columns) { weigh<BFloat16, Kernel<3, 5, 2, 1>, 12, 1, true, true, false, 4>(); }
TEST(PhasesWeigh, strides_above_the_kernel) { weigh<float, Kernel<1, 2, 2, 3>, 4, 1, false, true, false>(); }
TEST(PhasesWeigh, words_of_one_number) { weigh<float, Kernel<3, 4, 2, 1>, 6, 2, true, true, true, 4>(); }
TEST(PhasesWeigh, tiles_of_pairs) { weigh<Float16, Kernel<6, 7, 1, 1>, 14, 3, true, true, true, 4>(); }
TEST(PhasesWeigh, large) { weigh<BFloat16, Kernel<11, 11, 1, 1>, 14, 3, true, true, false>(); }
TEST(PhasesWeigh, large_with_strides) { weigh<Float16, Kernel<11, 11, 2, 2>, 12, 4, false, true, true>(); }
TEST(PhasesWeigh, rows_of_taps) { weigh<float, Kernel<11, 3, 1, 1>, 16, 4, false, true, true>(); }

/// Threads that do not suffice for the taps, and sums that need more room than planes.
TEST(PhasesWeigh, cut) {
  PhaseWork work;
  work.h = work.w = phase_axis(4, 4, 11, 1, 5, 1, false);
  work.target_h = work.target_w = 4;
  divide_phase_rows(work);
  PhaseWeighSizes sizes;
  sizes.tap_rows = 2, sizes.threads = 128, sizes.band = 4;
  const auto cut = [&](int channels) {
    sizes.channels = channels;
    return cut_weigh_phases(work, 1, channels, false, 1, true, sizes, 4, 1);
  };
  EXPECT_EQ(cut(22).blocks, 0);
  EXPECT_EQ(cut(21).blocks, 1);
  EXPECT_EQ(work.cut.splits, 1);
  EXPECT_EQ(cut(1).shared_bytes, (2 * 11 + 1) * 128 * 4 + (4 + 4) * 16 + (4 + 4) * 2 * 16);
  EXPECT_EQ(work.cut.splits, 21);
}

/// Planes of more numbers than an int counts.
TEST(PhasesWeigh, cut_of_large_planes) {
  PhaseWork work;
  work.h = phase_axis(1000000, 250000, 3, 4, 1, 1, false);
  work.w = phase_axis(1, 3999, 3, 1, 2000, 1, false);
  work.target_h = 250000, work.target_w = 3999;
  divide_phase_rows(work);
  PhaseWeighSizes sizes;
  const auto cut = [&](int band) {
    sizes.band = band;
    return cut_weigh_phases(work, 1, 1, false, 1, true, sizes, 4, 1);
  };
  EXPECT_EQ(cut(250000).blocks, 0);
  EXPECT_EQ(cut(1).blocks, 1);
}

}  // namespace
}  // namespace lamella::depthwise::checks
