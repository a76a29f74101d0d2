#pragma once

#include "phases.cuh"

/// The weight's gradient from planes sorted by residue (phases.cuh), with y's gradient g beside them, sorted
/// by class. A thread has some taps of an output channel as long as its block lives, and walks down strips of
/// columns: rows of g stay in registers while the rows of x that they meet pass by, so that each is loaded
/// once for all of the thread's rows of taps.
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most. A unit has kTapRows_ rows of them, and takes kColumns_ columns at
/// once. kRagged_: some groups have one tap less.
template <int kTaps_, int kColumns_, int kTapRows_, bool kRagged_>
struct PhaseTapTile {
  static constexpr int kTaps = kTaps_, kColumns = kColumns_, kTapRows = kTapRows_;
  static constexpr bool kRagged = kRagged_;
  static constexpr int kVector = kColumns % 4 == 0 ? 4 : kColumns % 2 == 0 ? 2 : 1;
  static constexpr int kWindow = (kColumns + kTaps - 1 + kVector - 1) / kVector * kVector;
};

/// What a thread has. Output channels come first and strips second: planes lie so many banks apart, and tiles
/// of an odd number of fours, that neighbours meet in none; and lanes of the same taps leave out the same
/// rows.
struct PhaseTapUnit {
  int channel, split;
  int set_w, set_h;  ///< groups of taps: columns and rows modulo the stride
  int first, rows;   ///< rows of taps, in units of the stride
  int number;        ///< of the taps: blocks of rows, and sets of columns

  __device__ __forceinline__ PhaseTapUnit(const PhaseWork& work, int unit, int outputs, int tap_rows) {
    const int rest = static_cast<int>(work.cut.by_channels.divide(static_cast<unsigned>(unit)));
    channel = unit - rest * outputs;
    number = rest / work.cut.splits, split = rest - number * work.cut.splits;
    const int sets_w = work.w.sets(), sets_h = work.h.sets(), block = number / sets_w;
    set_w = number - block * sets_w;
    const int round = block / sets_h;
    set_h = block - round * sets_h;
    first = round * tap_rows;
    rows = min(tap_rows, (work.h.kernel - set_h + work.h.stride - 1) / work.h.stride - first);
  }
  /// That of a tap: its number.
  __device__ __forceinline__ static int number_of(const PhaseWork& work, int tap_h, int tap_w, int tap_rows) {
    const int of_stride = tap_h / work.h.stride, set_h = tap_h - of_stride * work.h.stride;
    return (of_stride / tap_rows * work.h.sets() + set_h) * work.w.sets() + tap_w % work.w.stride;
  }
};

/// The sums of a unit.
template <class Tile, bool kBias>
struct PhaseTapSums {
  float taps[Tile::kTapRows][Tile::kTaps];
  float bias;

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int j = 0; j < Tile::kTapRows; ++j)
#pragma unroll
      for (int k = 0; k < Tile::kTaps; ++k) taps[j][k] = 0;
    bias = 0;
  }

  /// Adds a strip's products. Row n of g is at g + n · g_pitch, and meets tap j in row n + j of x, at x + (n
  /// + j) · x_pitch; that exists if 0 <= row + (n + j) · step < high. all_taps: the last column has taps,
  /// too.
  __device__ __forceinline__ void add(const float* g, int g_pitch, int rows, const float* x, int x_pitch,
                                      int row, int step, int high, int tap_rows, bool all_taps,
                                      bool has_bias) {
    constexpr int kColumns = Tile::kColumns, kTaps = Tile::kTaps, kTapRows = Tile::kTapRows,
                  kWindow = Tile::kWindow;
    float of_g[kTapRows][kColumns];  // row n in place n % kTapRows
#pragma unroll 1
    for (int first = 0; first < rows + kTapRows - 1; first += kTapRows) {
#pragma unroll
      for (int u = 0; u < kTapRows; ++u) {
        const int n = first + u;
        if (n < rows) {
          load_run<kColumns>(g, of_g[u]);
          if (kBias && has_bias) {
#pragma unroll
            for (int c = 0; c < kColumns; ++c) bias += of_g[u][c];
          }
        }
        if (static_cast<unsigned>(row) < static_cast<unsigned>(high)) {
          float of_x[kWindow];
          load_run<kWindow>(x, of_x);
#pragma unroll
          for (int j = 0; j < kTapRows; ++j) {
            if (static_cast<unsigned>(n - j) >= static_cast<unsigned>(rows) || (j > 0 && j >= tap_rows))
              continue;
#pragma unroll
            for (int k = 0; k < kTaps; ++k) {
              if (Tile::kRagged && k == kTaps - 1 && !all_taps) continue;
#pragma unroll
              for (int c = 0; c < kColumns; ++c)
                taps[j][k] += of_g[(u - j + kTapRows) % kTapRows][c] * of_x[c + k];
            }
          }
        }
        g += g_pitch, x += x_pitch, row += step;
      }
    }
  }

 private:
  template <int kCount>
  __device__ __forceinline__ static void load_run(const float* from, float (&run)[kCount]) {
#pragma unroll
    for (int c = 0; c < kCount; c += Tile::kVector) {
      float some[Tile::kVector];
      load<float>(from + c, some);
#pragma unroll
      for (int v = 0; v < Tile::kVector; ++v) run[c + v] = some[v];
    }
  }
};

/// Parts of dw, of some channels of x and items. work.source: x, work.target: g. kRepeat: output channels of
/// one of x.
template <class T, class Tile, int kRepeat, bool kBias, bool kLast, int kLoadX, int kLoadG, int kThreads,
          int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) weigh_phases(const PhaseWork work) {
  constexpr int kTapRows = Tile::kTapRows, kTaps = Tile::kTaps;
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int outputs = cut.channels * kRepeat;
  const int x_numbers = cut.images * cut.channels * cut.plane,
            g_numbers = cut.images * outputs * cut.target_plane;
  float* const planes = reinterpret_cast<float*>(shared);
  float* const gradients = planes + x_numbers;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < (x_numbers + g_numbers) / 4; i += kThreads) shared[i] = uint4{};
  wait_for_stream();
  __syncthreads();

  const PhaseTapUnit unit(work, thread, outputs, kTapRows);
  const bool works = unit.rows > 0 && unit.channel < share.channels * kRepeat;
  const int classes_h = h.classes(), classes_w = w.classes(), step_h = h.step(), step_w = w.step();
  const bool all_taps = unit.set_w + (kTaps - 1) * w.stride < w.kernel;
  PhaseTapSums<Tile, kBias> sums;
  sums.clear();
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    load_phases<T, kLast, kLoadX, kThreads>(work, share, at, 1, planes);
    load_targets<T, kLast, kLoadG, kThreads>(work, share, at, kRepeat, gradients);
    __syncthreads();
    const int strips = works ? at.images * classes_h * cut.row_groups * classes_w * cut.tiles : 0;
#pragma unroll 1
    for (int strip = unit.split; strip < strips; strip += cut.splits) {
      int rest = static_cast<int>(cut.by_tiles.divide(static_cast<unsigned>(strip)));
      const int left = (strip - rest * cut.tiles) * Tile::kColumns;
      int next = rest / classes_w;
      const int class_w = rest - next * classes_w;
      rest = static_cast<int>(cut.by_row_groups.divide(static_cast<unsigned>(next)));
      const int first = (next - rest * cut.row_groups) * cut.strip_rows;
      const int image = rest / classes_h, class_h = rest - image * classes_h;
      const int rows = min(cut.strip_rows, (at.end - at.begin - class_h + classes_h - 1) / classes_h - first);
      if (rows <= 0) continue;
      const int from_w = w.group(class_w, unit.set_w).first;
      const int residue = from_w - Axis::floor(from_w, step_w) * step_w;
      const int row =
          h.group(class_h, unit.set_h).first + (at.begin / classes_h + first + unit.first) * step_h - at.low;
      const float* const g = gradients + (image * outputs + unit.channel) * cut.target_plane +
                             (class_h + first * classes_h) * cut.target_row + class_w * cut.target_phase +
                             left;
      const float* const x = planes + (image * cut.channels + unit.channel / kRepeat) * cut.plane +
                             row * cut.row + residue * cut.phase + left;
      sums.add(g, classes_h * cut.target_row, rows, x, step_h * cut.row, row, step_h, at.high - at.low,
               unit.rows, all_taps, unit.number == 0);
    }
    __syncthreads();
  }

  // Shares of a sum are added in order.
  float* const list = planes;
#pragma unroll
  for (int j = 0; j < kTapRows; ++j)
#pragma unroll
    for (int k = 0; k < kTaps; ++k) list[(j * kTaps + k) * kThreads + thread] = sums.taps[j][k];
  if (kBias) list[kTapRows * kTaps * kThreads + thread] = sums.bias;
  __syncthreads();
  const int taps = h.kernel * w.kernel, part = static_cast<int>(blockIdx.x) / cut.channel_blocks;
  float* const to =
      work.parts + (static_cast<Int64>(part) * work.channels + share.first_channel) * kRepeat * (taps + 1);
  for (int i = thread; i < share.channels * kRepeat * (taps + 1); i += kThreads) {
    const int channel = i / (taps + 1), tap = i - channel * (taps + 1);
    if (!kBias && tap == taps) continue;
    const int tap_h = tap / w.kernel, tap_w = tap - tap_h * w.kernel;
    const int number = tap == taps ? 0 : PhaseTapUnit::number_of(work, tap_h, tap_w, kTapRows);
    const int of = tap == taps ? kTapRows * kTaps : tap_h / h.stride % kTapRows * kTaps + tap_w / w.stride;
    const float* const from = list + of * kThreads + number * cut.splits * outputs + channel;
    float sum = 0;
    for (int split = 0; split < cut.splits; ++split) sum += from[split * outputs];
    to[i] = sum;
  }
}

}  // namespace lamella::depthwise
