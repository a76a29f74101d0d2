#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_rolling_planes.h"
#include "layers/depthwise_conv2d/cuda/device/rolling_planes_correlate.cuh"
#include "layers/depthwise_conv2d/cuda/device/rolling_planes_weigh.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 40;

template <class K>
constexpr int kMostTaps = (K::kW + K::kStrideW - 1) / K::kStrideW;
template <class K>
constexpr bool kIsRagged = K::kW > K::kStrideW&& K::kW % K::kStrideW != 0;

/// Calls run() of the form, which it is compiled for. kAligned: rows begin with a word.
template <bool kAligned, class Run>
void run_form(int form, const Run& run) {
  if constexpr (!kAligned)
    run(std::integral_constant<int, kShifted>());
  else if (form == kPadded)
    run(std::integral_constant<int, kPadded>());
  else
    run(std::integral_constant<int, kAtWords>());
}

/// kWord: bytes of sources that are copied at once; kVector: numbers of a row that are stored at once;
/// kCount: of threads; width: of x, or what divides it.
template <class T, class K, int kRows, int kColumns, bool kScatters, int kWord = 4, int kVector = 1,
          int kCount = kThreads>
void correlate(int width = kVector) {
  using Tile = RollingTile<kMostTaps<K>, kRows, kColumns, kIsRagged<K>>;
  constexpr bool kAligned = kWord <= kVector * static_cast<int>(sizeof(T));
  for_seeds(kSeeds, [&](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = width, wanted.out_width = kVector;
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, kVector, kVector});
    PhaseWork work;
    problem.describe(work, kScatters);
    if (kAligned && work.w.source_first * static_cast<int>(sizeof(T)) % kWord != 0) return false;
    divide_phase_rows(work, draw(0, 3) == 0 ? 1 : PhaseWork::kMostResidues);
    RollingPlaneSizes sizes;
    sizes.threads = kCount, sizes.rows = kRows, sizes.columns = kColumns;
    sizes.source_word = kWord, sizes.target_vector = kVector;
    if (kAligned) sizes.source_alignment = kWord;
    sizes.channels = draw(1, g.channels), sizes.images = draw(1, g.batch);
    sizes.band = draw(1, work.h.targets + 1);
    sizes.buffers = draw(1, 2);
    const int form = kAligned ? draw(kAtWords, kPadded) : kShifted;
    sizes.source_form = sizes.target_form = form;
    if (draw(0, 1) == 1) pad_for_correlation(work, K::kRepeat, sizes, sizeof(T));
    const Launch launch =
        cut_correlate_rolling_planes(work, g.batch, g.channels, K::kRepeat, sizes, sizeof(T), draw(1, 6));
    constexpr std::int64_t kMostShared = 200 << 10;
    if (launch.blocks == 0 || launch.shared_bytes > kMostShared) return false;
    const auto kernel = [&] {
      const auto run = [&](auto of_form) {
        correlate_rolling_planes<T, Tile, K::kRepeat, kScatters, kWord, decltype(of_form)::value, kVector, 0,
                                 kCount, 1>(work);
      };
      run_form<kAligned>(form, run);
    };
    if (kScatters)
      problem.backward(work, launch, {true, false, false}, false, true, kernel);
    else
      problem.forward(work, launch, true, kernel);
    return true;
  });
}

/// kWord: bytes that are copied at once; kUnit: numbers that rows have a multiple of.
template <class T, class K, int kColumns, int kTapRows, bool kBias, int kWord = 4, int kUnit = 1>
void weigh() {
  using Tile = RollingTapTile<kMostTaps<K>, kColumns, kTapRows, kIsRagged<K>>;
  constexpr bool kAligned = kWord <= kUnit * static_cast<int>(sizeof(T));
  for_seeds(kSeeds, [](Draw& draw) {
    Wanted wanted{Case<T, K>::kSizes};
    wanted.width = wanted.out_width = kUnit;
    const Geometry g = draw_geometry(draw, wanted);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, {false, kUnit, kUnit});
    PhaseWork work;
    problem.describe(work, false);
    if (kAligned && work.w.source_first * static_cast<int>(sizeof(T)) % kWord != 0) return false;
    divide_phase_rows(work, draw(0, 3) == 0 ? 1 : PhaseWork::kMostResidues);
    RollingPlaneSizes sizes;
    sizes.threads = kThreads, sizes.rows = kTapRows, sizes.columns = kColumns;
    sizes.source_word = sizes.target_word = kWord;
    if (kAligned) sizes.source_alignment = sizes.target_alignment = kWord;
    sizes.channels = draw(1, g.channels), sizes.images = draw(1, g.batch);
    sizes.band = draw(1, work.h.targets + 1), sizes.strip_rows = draw(1, work.h.targets + 1);
    sizes.buffers = draw(1, 2);
    const int form = kAligned ? draw(kAtWords, kPadded) : kShifted;
    sizes.source_form = sizes.target_form = form;
    if (draw(0, 1) == 1) pad_for_weighing(work, K::kRepeat, sizes, sizeof(T));
    const Launch launch =
        cut_weigh_rolling_planes(work, g.batch, g.channels, K::kRepeat, kBias, sizes, sizeof(T), draw(1, 6));
    constexpr std::int64_t kMostShared = 200 << 10;
    if (launch.blocks == 0 || launch.shared_bytes > kMostShared) return false;
    problem.backward(work, launch, {false, true, kBias}, false, false, [&] {
      const auto run = [&](auto of_form) {
        constexpr int kForm = decltype(of_form)::value;
        weigh_rolling_planes<T, Tile, K::kRepeat, kBias, kWord, kForm, kWord, kForm, 0, 0, kThreads, 1>(work);
      };
      run_form<kAligned>(form, run);
    });
    return true;
  });
}

TEST(RollingPlanes, forward) { correlate<float, Kernel<5, 5, 1, 1>, 3, 4, false>(); }
TEST(RollingPlanes, forward_strides) { correlate<BFloat16, Kernel<4, 7, 2, 3>, 2, 6, false>(); }
TEST(RollingPlanes, forward_multiplier) { correlate<Float16, Kernel<7, 2, 3, 1, 2>, 4, 3, false>(); }
TEST(RollingPlanes, forward_rows_alone) { correlate<float, Kernel<6, 1, 1, 2>, 1, 5, false>(); }
TEST(RollingPlanes, forward_long_words) { correlate<float, Kernel<3, 5, 1, 2>, 2, 3, false, 16, 4>(); }
TEST(RollingPlanes, forward_pairs) { correlate<BFloat16, Kernel<5, 4, 1, 1>, 2, 3, false, 4, 2>(); }
TEST(RollingPlanes, forward_strides_above_the_kernel) { correlate<float, Kernel<1, 2, 2, 3>, 2, 4, false>(); }
TEST(RollingPlanes, input_gradient) { correlate<float, Kernel<5, 4, 1, 1>, 3, 4, true>(); }
TEST(RollingPlanes, input_gradient_strides) { correlate<BFloat16, Kernel<4, 7, 2, 3>, 2, 6, true>(); }
TEST(RollingPlanes, input_gradient_multiplier) { correlate<Float16, Kernel<7, 2, 3, 1, 2>, 4, 3, true>(); }
TEST(RollingPlanes, input_gradient_long_words) {
  correlate<BFloat16, Kernel<3, 4, 2, 1>, 2, 4, true, 8, 4>();
}
TEST(RollingPlanes, input_gradient_strides_above_the_kernel) {
  correlate<float, Kernel<1, 2, 2, 3>, 2, 4, true>();
}
/// 28 numbers of a row are stored by 32 of 48 threads; the others must not store the next row once more.
TEST(RollingPlanes, threads_that_no_row_divides) {
  correlate<float, Kernel<3, 3, 1, 1>, 2, 4, true, 4, 1, 48>(28);
}
TEST(RollingPlanes, weigh) { weigh<float, Kernel<5, 5, 1, 1>, 4, 3, true>(); }
TEST(RollingPlanes, weigh_strides) { weigh<BFloat16, Kernel<4, 7, 2, 3>, 6, 2, true>(); }
TEST(RollingPlanes, weigh_other_strides) { weigh<Float16, Kernel<7, 4, 3, 2>, 3, 2, false>(); }
TEST(RollingPlanes, weigh_multiplier) { weigh<BFloat16, Kernel<7, 2, 3, 1, 2>, 5, 4, true>(); }
TEST(RollingPlanes, weigh_long_words) { weigh<float, Kernel<3, 5, 1, 2>, 3, 2, true, 16, 4>(); }
TEST(RollingPlanes, weigh_pairs) { weigh<BFloat16, Kernel<5, 4, 1, 1>, 2, 3, false, 4, 2>(); }
TEST(RollingPlanes, weigh_rows_alone) { weigh<float, Kernel<6, 1, 1, 2>, 4, 1, false>(); }
TEST(RollingPlanes, weigh_strides_above_the_kernel) { weigh<float, Kernel<1, 2, 2, 3>, 4, 1, true>(); }

}  // namespace
}  // namespace lamella::depthwise::checks
