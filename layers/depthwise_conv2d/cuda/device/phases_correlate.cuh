#pragma once

#include "phases.cuh"

/// The output, or the input's gradient, from planes sorted by residue (phases.cuh). A thread has a unit: some
/// rows and columns of a class of one target's plane. Its inner loop is dense whatever the stride and the
/// dilation, and of few instructions but multiply-adds; rows outside, and those of no tap, are left out.
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most. A unit has kRows_ x kColumns_ targets: a row of sources that is
/// loaded serves all of its rows.
template <int kTaps_, int kRows_, int kColumns_>
struct PhaseTile {
  static constexpr int kTaps = kTaps_, kRows = kRows_, kColumns = kColumns_;
  static constexpr int kVector = phase_vector(kColumns), kWindow = phase_window(kColumns, kTaps);
  static constexpr int kTapPitch = (kTaps + 3) / 4 * 4;
};

/// Makes the taps of a block's channels, [output channel][row of taps][set of columns][kTapPitch], each set
/// in the order in which its sources lie.
template <class T, class Tile, int kThreads>
__device__ __forceinline__ void make_phase_taps(const PhaseWork& work, const PhaseShare& share, int repeat,
                                                float* taps) {
  constexpr int kPitch = Tile::kTapPitch;
  const PhaseAxis &h = work.h, &w = work.w;
  const int sets = w.sets(), of_row = sets * kPitch, of_channel = h.kernel * of_row;
  for (int i = static_cast<int>(threadIdx.x); i < share.channels * repeat * of_channel; i += kThreads) {
    const int channel = i / of_channel, row = i / of_row % h.kernel, set = i / kPitch % sets,
              number = i % kPitch;
    taps[channel * work.cut.taps + i % of_channel] =
        load_phase_tap<T>(work, share.first_channel * repeat + channel, row, set, number);
  }
}

/// The sums of a unit.
template <class Tile>
struct PhaseSums {
  float sums[Tile::kRows][Tile::kColumns];

  __device__ __forceinline__ void fill(float with) {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
      for (int c = 0; c < Tile::kColumns; ++c) sums[r][c] = with;
  }

  /// Adds a group's products. Sources of row i, counted from the unit's first target's, are at rows + i ·
  /// pitch; they exist if 0 <= row + i · step < high. Taps of row j are at taps + j · tap_pitch. all_taps:
  /// the last column has taps, too.
  __device__ __forceinline__ void add(const float* rows, int pitch, int row, int step, Divisor by_step,
                                      int high, const float* taps, int tap_pitch, int tap_rows,
                                      bool all_taps) {
    const int first = row < 0 ? static_cast<int>(by_step.divide(static_cast<unsigned>(step - 1 - row))) : 0;
    const int last = row < high
                         ? min(tap_rows + kRows - 1,
                               static_cast<int>(by_step.divide(static_cast<unsigned>(high - 1 - row))) + 1)
                         : 0;
    // Rows from kRows - 1 on, up to tap_rows, meet taps in every row of the unit: nothing is asked there.
    const int whole_end = all_taps ? tap_rows : 0;
    rows += first * pitch, taps += first * tap_pitch;
#pragma unroll 1
    for (int i = first; i < last; ++i, rows += pitch, taps += tap_pitch) {
      if (i >= kRows - 1 && i < whole_end)
        add_row<true>(rows, i, taps, tap_pitch, tap_rows, true);
      else
        add_row<false>(rows, i, taps, tap_pitch, tap_rows, all_taps);
    }
  }

 private:
  static constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns, kTaps = Tile::kTaps;

  /// Adds the products of row i of sources; row i of taps is at `taps`. kWhole: with all rows and taps.
  template <bool kWhole>
  __device__ __forceinline__ void add_row(const float* from, int i, const float* taps, int tap_pitch,
                                          int tap_rows, bool all_taps) {
    constexpr int kVector = Tile::kVector, kWindow = Tile::kWindow, kTapPitch = Tile::kTapPitch;
    float x[kWindow];
#pragma unroll
    for (int c = 0; c < kWindow; c += kVector) {
      float some[kVector];
      load<float>(from + c, some);
#pragma unroll
      for (int n = 0; n < kVector; ++n) x[c + n] = some[n];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!kWhole && static_cast<unsigned>(i - r) >= static_cast<unsigned>(tap_rows)) continue;
      float tap[kTapPitch];
#pragma unroll
      for (int k = 0; k < kTapPitch; k += 4) {
        float four[4];
        load<float>(taps - r * tap_pitch + k, four);
#pragma unroll
        for (int n = 0; n < 4; ++n) tap[k + n] = four[n];
      }
#pragma unroll
      for (int k = 0; k < kTaps; ++k) {
        if (!kWhole && k == kTaps - 1 && !all_taps) continue;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[r][c] += tap[k] * x[c + k];
      }
    }
  }
};

/// kRepeat: output channels of one of x. kScatters: the input's gradient. kLast: channels are neighbours.
/// kWord, kAligned: as copy_planes() has them. kStore: targets that are stored together.
template <class T, class Tile, int kRepeat, bool kScatters, bool kLast, int kWord, bool kAligned, int kStore,
          int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate_phases(const PhaseWork work) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  constexpr int kSources = phase_channels(kScatters, kRepeat), kTargets = phase_channels(!kScatters, kRepeat);
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int source_planes = cut.images * cut.channels * kSources,
            target_planes = cut.images * cut.channels * kTargets;
  const PhaseMemory<T, float, float> memory(work, shared, source_planes, cut.channels * kRepeat);
  float *const zeros = memory.zeros, *const planes = memory.planes;
  float* const taps = memory.taps;
  T* const targets = memory.targets;
  const int target_numbers = target_planes * cut.target_rows * work.target_w;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < cut.row + source_planes * cut.plane; i += kThreads) zeros[i] = 0;
  // Numbers of the tensor between targets stay zero.
  if (kScatters && h.target_every * w.target_every > 1)
    for (int i = thread; i < target_numbers; i += kThreads) targets[i] = narrow<T>(0.0f);
  list_groups<kThreads>(work, Tile::kTapPitch, memory.groups_of_rows, memory.groups_of_columns);
  wait_for_stream();
  make_phase_taps<T, Tile, kThreads>(work, share, kRepeat, taps);

  const int classes_h = h.classes(), classes_w = w.classes(), step_h = h.step();
  const int groups_h = h.groups(), groups_w = w.groups();
  const int units = target_planes * classes_h * classes_w * cut.row_groups * cut.tiles;
  PhaseStream<T, true, kLast, kWord, kAligned, kThreads> sources{work, share, sources_of(work, kSources),
                                                                 memory.sources_list, memory.raw};
  const auto begin_copies = [&](int item) {
    if (item >= share.last) return;
    const PhaseItem at(work, item);
    sources.list(at);
    __syncthreads();
    sources.copy(at);
    end_copies();
  };
  begin_copies(share.first);
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    const int rows = at.high - at.low;
    wait_for_copies<0>();
    __syncthreads();
    sources.sort(at, planes);
    const int target_rows = list_targets<T, kLast, kThreads>(work, share, at, kTargets, memory.targets_list);
    __syncthreads();
    begin_copies(item + 1);
#pragma unroll 1
    for (int unit = thread; unit < units; unit += kThreads) {
      int plane = unit;
      const int class_w = take_digit(plane, classes_w, cut.by_classes_w);
      const int tile = take_digit(plane, cut.tiles, cut.by_tiles);
      const int row_group = take_digit(plane, cut.row_groups, cut.by_row_groups);
      const int class_h = take_digit(plane, classes_h, cut.by_classes_h);
      int image = plane;
      const int of_image = take_digit(image, cut.channels * kTargets, cut.by_channels);
      // The first row of the unit, of its class.
      const int first_row =
          static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(at.begin))) + row_group * kRows;
      const int rows_left = at.end - class_h - first_row * classes_h;  // of all classes
      if (image >= at.images || of_image >= share.channels * kTargets || rows_left <= 0) continue;

      PhaseSums<Tile> result;
      result.fill(kScatters ? 0.0f : load_bias<T>(work.taps, share.first_channel * kTargets + of_image));
      int left = tile * kColumns;  // the first column, of its class
#pragma unroll 1
      for (int source = 0; source < kSources; ++source) {
        const float* const of_plane =
            planes + (kScatters ? plane * kSources + source : plane / kTargets) * cut.plane;
        const float* const of_channel =
            taps + (kScatters ? of_image * kSources + source : of_image) * cut.taps;
#pragma unroll 1
        for (int group_w = 0; group_w < groups_w; ++group_w) {
          const PhaseGroupOfColumns by_w = memory.groups_of_columns[class_w * groups_w + group_w];
          if (by_w.taps == 0) continue;
          if (kScatters) left = tile * kColumns - by_w.lead;
          const int column = by_w.first + tile * kColumns;
#pragma unroll 1
          for (int group_h = 0; group_h < groups_h; ++group_h) {
            const PhaseGroupOfRows by_h =
                memory.groups_of_rows[(at.residue * classes_h + class_h) * groups_h + group_h];
            const int row = by_h.first + first_row * step_h - at.low;
            result.add(of_plane + row * cut.row + column, step_h * cut.row, row, step_h, cut.by_step_h, rows,
                       of_channel + by_h.tap + by_w.tap, by_h.tap_pitch, by_h.taps, by_w.taps == Tile::kTaps);
          }
        }
      }
      const int all = kLast ? cut.channels * kTargets : 1;
      const int row = h.target_first + (class_h + first_row * classes_h - at.begin) * h.target_every;
      const int column = w.target_first + (class_w + left * classes_w) * w.target_every;
      const int columns = w.targets_of(class_w) - left;
      const int next_row = classes_h * h.target_every * work.target_w * all,
                next = classes_w * w.target_every * all;
      int to = (((kLast ? image : plane) * cut.target_rows + row) * work.target_w + column) * all +
               (kLast ? of_image : 0);
      if (columns >= kColumns && (!kScatters || left >= 0) && rows_left > (kRows - 1) * classes_h) {
#pragma unroll
        for (int r = 0; r < kRows; ++r, to += next_row)
#pragma unroll
          for (int c = 0; c < kColumns; ++c) targets[to + c * next] = narrow<T>(result.sums[r][c]);
      } else {
#pragma unroll
        for (int r = 0; r < kRows; ++r, to += next_row)
#pragma unroll
          for (int c = 0; c < kColumns; ++c)
            if (r * classes_h < rows_left && c < columns && (!kScatters || left + c >= 0))
              targets[to + c * next] = narrow<T>(result.sums[r][c]);
      }
    }
    __syncthreads();
    store_targets<T, kLast, kStore, kThreads>(work, share, at, kTargets, memory.targets_list, target_rows,
                                              targets);
  }
}

}  // namespace lamella::depthwise
