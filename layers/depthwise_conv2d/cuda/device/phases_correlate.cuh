#pragma once

#include "phases.cuh"

/// The output, or the input's gradient, from planes sorted by residue (phases.cuh). A thread has a unit: some
/// rows and columns of a class of one target's plane. Its inner loop is dense whatever the stride and the
/// dilation, and of few instructions but multiply-adds; rows outside, and those of no tap, are left out.
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most. A unit has kRows_ x kColumns_ targets, and kTapRows_ rows of taps
/// at a time.
template <int kTaps_, int kRows_, int kColumns_, int kTapRows_>
struct PhaseTile {
  static constexpr int kTaps = kTaps_, kRows = kRows_, kColumns = kColumns_, kTapRows = kTapRows_;
  static constexpr int kVector = kColumns % 4 == 0 ? 4 : kColumns % 2 == 0 ? 2 : 1;
  static constexpr int kWindow = (kColumns + kTaps - 1 + kVector - 1) / kVector * kVector;
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
    const int count = (w.kernel - set + w.stride - 1) / w.stride;
    const int column = set + (w.scatters ? count - 1 - number : number) * w.stride;
    const int of = row * w.kernel + column, all = h.kernel * w.kernel;
    float tap = 0;
    if (number < count)
      tap = load_parameter<T>(work.taps.taps, work.taps.taps_are_float32,
                              static_cast<Int64>(share.first_channel * repeat + channel) * all +
                                  (work.taps.turned ? all - 1 - of : of));
    taps[channel * work.cut.taps + i % of_channel] = tap;
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
  /// pitch; they exist if 0 <= row + i · step < high, else `zeros` does for them. Taps of row j are at taps +
  /// j · tap_pitch. all_taps: the last column has taps, too.
  __device__ __forceinline__ void add(const float* rows, int pitch, const float* zeros, int row, int step,
                                      int high, const float* taps, int tap_pitch, int tap_rows,
                                      bool all_taps) {
    constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns, kTaps = Tile::kTaps,
                  kVector = Tile::kVector, kTapRows = Tile::kTapRows, kWindow = Tile::kWindow,
                  kTapPitch = Tile::kTapPitch;
    // Rows of taps that meet any row.
    const int before = row + (kRows - 1) * step;
    const int first = before < 0 ? (step - 1 - before) / step : 0;
    const int last = min(tap_rows, row < high ? (high - 1 - row) / step + 1 : 0);
#pragma unroll 1
    for (int j = first; j < last; j += kTapRows) {
      float tap[kTapRows][kTapPitch];
#pragma unroll
      for (int t = 0; t < kTapRows; ++t) {
        const float* const of = taps + (kTapRows == 1 || j + t < last ? j + t : j) * tap_pitch;
#pragma unroll
        for (int k = 0; k < kTapPitch; k += 4) {
          float four[4];
          load<float>(of + k, four);
#pragma unroll
          for (int n = 0; n < 4; ++n) tap[t][k + n] = four[n];
        }
      }
#pragma unroll
      for (int i = 0; i < kRows + kTapRows - 1; ++i) {
        const int at = row + (j + i) * step;
        const float* const from = at >= 0 && at < high ? rows + (j + i) * pitch : zeros;
        float x[kWindow];
#pragma unroll
        for (int c = 0; c < kWindow; c += kVector) {
          float some[kVector];
          load<float>(from + c, some);
#pragma unroll
          for (int n = 0; n < kVector; ++n) x[c + n] = some[n];
        }
#pragma unroll
        for (int t = 0; t < kTapRows; ++t) {
          const int r = i - t;
          if (r < 0 || r >= kRows || (t > 0 && j + t >= last)) continue;
#pragma unroll
          for (int k = 0; k < kTaps; ++k) {
            if (k == kTaps - 1 && !all_taps) continue;
#pragma unroll
            for (int c = 0; c < kColumns; ++c) sums[r][c] += tap[t][k] * x[c + k];
          }
        }
      }
    }
  }
};

/// kRepeat: output channels of one of x.
template <class T, class Tile, int kRepeat, bool kScatters, bool kLast, int kLoad, int kStore, int kThreads,
          int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate_phases(const PhaseWork work) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  constexpr int kSources = kScatters ? kRepeat : 1, kTargets = kScatters ? 1 : kRepeat;
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int source_planes = cut.images * cut.channels * kSources,
            target_planes = cut.images * cut.channels * kTargets;
  // A row of zeros, planes, taps, targets.
  float* const zeros = reinterpret_cast<float*>(shared);
  float* const planes = zeros + cut.row;
  float* const taps = planes + source_planes * cut.plane;
  T* const targets = reinterpret_cast<T*>(taps + cut.channels * kRepeat * cut.taps);
  const int target_numbers = target_planes * cut.target_rows * work.target_w;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < cut.row + source_planes * cut.plane; i += kThreads) zeros[i] = 0;
  // Numbers of the tensor between targets stay zero.
  if (kScatters && h.target_every * w.target_every > 1)
    for (int i = thread; i < target_numbers; i += kThreads) targets[i] = narrow<T>(0.0f);
  wait_for_stream();
  if (share.first >= share.last) return;
  make_phase_taps<T, Tile, kThreads>(work, share, kRepeat, taps);
  __syncthreads();

  const int classes_h = h.classes(), classes_w = w.classes(), step_h = h.step(), step_w = w.step();
  const int of_row = w.sets() * Tile::kTapPitch;
  const int units = target_planes * classes_h * classes_w * cut.row_groups * cut.tiles;
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    load_phases<T, kLast, kLoad, kThreads>(work, share, at, kSources, planes);
    __syncthreads();
    const int rows = at.high - at.low;
#pragma unroll 1
    for (int unit = thread; unit < units; unit += kThreads) {
      int rest = static_cast<int>(cut.by_tiles.divide(static_cast<unsigned>(unit)));
      const int tile = unit - rest * cut.tiles;
      int next = rest / classes_w;
      const int class_w = rest - next * classes_w;
      rest = static_cast<int>(cut.by_row_groups.divide(static_cast<unsigned>(next)));
      const int row_group = next - rest * cut.row_groups;
      const int plane = rest / classes_h, class_h = rest - plane * classes_h;
      const PhasePlane which(plane, cut.by_channels, cut.channels * kTargets);
      // The first row of the unit, of its class.
      const int first_row = at.begin / classes_h + row_group * kRows;
      const int rows_left = (at.end - class_h + classes_h - 1) / classes_h - first_row;
      if (which.image >= at.images || which.channel >= share.channels * kTargets || rows_left <= 0) continue;

      PhaseSums<Tile> result;
      const int channel = share.first_channel * kTargets + which.channel;
      result.fill(kScatters ? 0.0f : load_bias<T>(work.taps, channel));
      int left = tile * kColumns;  // the first column, of its class
#pragma unroll 1
      for (int source = 0; source < kSources; ++source) {
        const int source_plane = kScatters ? plane * kSources + source : plane / kTargets;
        const float* const of_plane = planes + source_plane * cut.plane;
        const float* const of_channel =
            taps + (kScatters ? which.channel * kSources + source : which.channel) * cut.taps;
#pragma unroll 1
        for (int group_w = 0; group_w < w.groups(); ++group_w) {
          const PhaseAxis::Group by_w = w.group(class_w, group_w);
          if (by_w.taps == 0) continue;
          const int index = Axis::floor(by_w.first, step_w), residue = by_w.first - index * step_w;
          // Classes of the same residue may begin at different columns of it.
          const int behind = index - cut.bases[residue];
          if (kScatters) left = tile * kColumns - behind;
          const int column = residue * cut.phase + tile * kColumns;
          const int set = kScatters ? by_w.tap % w.stride : by_w.tap;
#pragma unroll 1
          for (int group_h = 0; group_h < h.groups(); ++group_h) {
            const PhaseAxis::Group by_h = h.group(class_h, group_h);
            const int row = by_h.first + first_row * step_h - at.low;
            result.add(of_plane + row * cut.row + column, step_h * cut.row, zeros + column, row, step_h, rows,
                       of_channel + by_h.tap * of_row + set * Tile::kTapPitch, by_h.tap_step * of_row,
                       by_h.taps, by_w.taps == Tile::kTaps);
          }
        }
      }
      const int columns = w.targets_of(class_w);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= rows_left) continue;
        const int row = h.target_first + (class_h + (first_row + r) * classes_h - at.begin) * h.target_every;
        T* const to = kLast ? targets +
                                  (static_cast<Int64>(which.image) * cut.target_rows + row) * work.target_w *
                                      (cut.channels * kTargets) +
                                  which.channel
                            : targets + (static_cast<Int64>(plane) * cut.target_rows + row) * work.target_w;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const int number = left + c;
          const int column = w.target_first + (class_w + number * classes_w) * w.target_every;
          if (number >= 0 && number < columns)
            to[kLast ? column * (cut.channels * kTargets) : column] = narrow<T>(result.sums[r][c]);
        }
      }
    }
    __syncthreads();
    store_targets<T, kLast, kStore, kThreads>(work, share, at, kTargets, targets);
  }
}

}  // namespace lamella::depthwise
