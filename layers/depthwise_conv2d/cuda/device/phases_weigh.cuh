#pragma once

#include "phases.cuh"

/// The weight's gradient from planes sorted by residue (phases.cuh), with y's gradient g beside them, sorted
/// by class. A thread has some taps of an output channel as long as its block lives, and walks down strips of
/// columns: a row of x is loaded once for all of the thread's rows of taps.
///
/// Numbers that are not finite spread to other taps of their channel, as 0 · infinity is no number: zeros lie
/// beside the rows of x, and beside those of g to the end of a tile.
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most. A unit has kTapRows_ rows of them, and takes kColumns_ columns at
/// once. kKeeps_: rows of g stay in registers until all rows of taps have had them, which takes so many
/// copies of the loop; else each row of taps loads them again. Beside the sums and a window 128 registers
/// hold 40 numbers of g or so. kRagged_: some groups have one tap less.
template <int kTaps_, int kColumns_, int kTapRows_, bool kKeeps_, bool kRagged_>
struct PhaseTapTile {
  static constexpr int kTaps = kTaps_, kColumns = kColumns_, kTapRows = kTapRows_;
  static constexpr bool kKeeps = kKeeps_, kRagged = kRagged_;
  static constexpr int kVector = phase_vector(kColumns), kWindow = phase_window(kColumns, kTaps);
};

/// Which unit has a tap. Units count sets of columns fastest, then sets of rows, then blocks of tap_rows rows
/// of a set; sets are taps modulo the stride.
__device__ __forceinline__ int unit_of_tap(const PhaseWork& work, int tap_h, int tap_w, int tap_rows) {
  const int of_set = tap_h / work.h.stride, set_h = tap_h - of_set * work.h.stride;
  return (of_set / tap_rows * work.h.sets() + set_h) * work.w.sets() + tap_w % work.w.stride;
}

/// What a thread has. Neighbouring threads have neighbouring output channels, then strips of the same taps:
/// planes are so far apart that neighbouring channels read different banks, and threads of the same taps
/// leave out the same rows, so that warps do not diverge.
struct PhaseTapUnit {
  int split;             ///< the first strip; none: the thread has no taps
  int of_x, of_g;        ///< planes of the first image, in floats
  int row, column;       ///< sources of the first taps, of class 0; the column by its residue alone
  int rows;              ///< of taps
  bool all_taps, first;  ///< those of the last column exist; of the channel, so that it has the bias's sum

  __device__ __forceinline__ PhaseTapUnit(const PhaseWork& work, int unit, int channels, int repeat, int taps,
                                          int tap_rows) {
    constexpr int kNone = 0x7fffffff;
    const PhaseAxis &h = work.h, &w = work.w;
    const int rest = static_cast<int>(work.cut.by_channels.divide(static_cast<unsigned>(unit)));
    const int channel = unit - rest * work.cut.channels * repeat, number = rest / work.cut.splits;
    const int block = number / w.sets(), set_w = number - block * w.sets();
    const int round = block / h.sets(), set_h = block - round * h.sets();
    of_x = channel / repeat * work.cut.plane, of_g = channel * work.cut.target_plane;
    row = h.group(0, set_h).first + round * tap_rows * h.step();
    column = w.group(0, set_w).first + w.padding * w.step();  // not below zero: its residue is asked for
    rows = min(tap_rows, h.group(0, set_h).taps - round * tap_rows);
    all_taps = w.group(0, set_w).taps == taps;
    first = number == 0;
    split = channel < channels * repeat && rows > 0 ? rest - number * work.cut.splits : kNone;
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
    constexpr int kColumns = Tile::kColumns, kTapRows = Tile::kTapRows, kWindow = Tile::kWindow,
                  kPlaces = Tile::kKeeps ? kTapRows : 1;
    // Rows of x that all rows of taps meet: there nothing is asked between loads and products.
    constexpr bool kWhole = !Tile::kKeeps && kTapRows > 1;
    const int whole_rows = tap_rows == kTapRows && all_taps ? max(rows - kTapRows + 1, 0) : 0;
    float of_g[kPlaces][kColumns];  // row n in place n % kPlaces
#pragma unroll 1
    for (int first = 0; first < rows + kTapRows - 1; first += kPlaces) {
#pragma unroll
      for (int u = 0; u < kPlaces; ++u) {
        const int n = first + u;
        if (n < rows && (Tile::kKeeps || (kBias && has_bias))) {
          load_run<kColumns>(g, of_g[u]);
          if (kBias && has_bias) {
#pragma unroll
            for (int c = 0; c < kColumns; ++c) bias += of_g[u][c];
          }
        }
        if (static_cast<unsigned>(row) < static_cast<unsigned>(high)) {
          float of_x[kWindow];
          load_run<kWindow>(x, of_x);
          if (kWhole && static_cast<unsigned>(n - kTapRows + 1) < static_cast<unsigned>(whole_rows)) {
#pragma unroll
            for (int j = 0; j < kTapRows; ++j) {
              load_run<kColumns>(g - j * g_pitch, of_g[0]);
              multiply(j, of_g[0], of_x, true);
            }
          } else {
#pragma unroll
            for (int j = 0; j < kTapRows; ++j) {
              if (static_cast<unsigned>(n - j) >= static_cast<unsigned>(rows) || (j > 0 && j >= tap_rows))
                continue;
              const int place = Tile::kKeeps ? (u - j + kTapRows) % kTapRows : 0;
              if (!Tile::kKeeps) load_run<kColumns>(g - j * g_pitch, of_g[place]);
              multiply(j, of_g[place], of_x, all_taps);
            }
          }
        }
        g += g_pitch, x += x_pitch, row += step;
      }
    }
  }

 private:
  __device__ __forceinline__ void multiply(int j, const float (&g)[Tile::kColumns],
                                           const float (&x)[Tile::kWindow], bool all_taps) {
#pragma unroll
    for (int k = 0; k < Tile::kTaps; ++k) {
      if (Tile::kRagged && k == Tile::kTaps - 1 && !all_taps) continue;
#pragma unroll
      for (int c = 0; c < Tile::kColumns; ++c) taps[j][k] += g[c] * x[c + k];
    }
  }
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

/// Adds up what threads have of a tap and writes a block's part of dw: of output channels first … first +
/// channels - 1 of `all`, of `outputs` that the block has threads for. Threads count channels fastest, then
/// splits, then units; `list` has room for the sums of all.
template <class Tile, bool kBias, int kThreads, class Sums>
__device__ __forceinline__ void store_tap_sums(const PhaseWork& work, int first, int channels, int all,
                                               int outputs, const Sums& sums, float* list) {
  constexpr int kTapRows = Tile::kTapRows, kTaps = Tile::kTaps;
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kTapRows; ++j)
#pragma unroll
    for (int k = 0; k < kTaps; ++k) list[(j * kTaps + k) * kThreads + thread] = sums.taps[j][k];
  if (kBias) list[kTapRows * kTaps * kThreads + thread] = sums.bias;
  __syncthreads();
  const int taps = h.kernel * w.kernel, part = static_cast<int>(blockIdx.x) / cut.channel_blocks;
  float* const to = work.parts + (static_cast<Int64>(part) * all + first) * (taps + 1);
  for (int i = thread; i < channels * (taps + 1); i += kThreads) {
    const int channel = i / (taps + 1), tap = i - channel * (taps + 1);
    if (!kBias && tap == taps) continue;
    const int tap_h = tap / w.kernel, tap_w = tap - tap_h * w.kernel;
    const int number = tap == taps ? 0 : unit_of_tap(work, tap_h, tap_w, kTapRows);
    const int of = tap == taps ? kTapRows * kTaps : tap_h / h.stride % kTapRows * kTaps + tap_w / w.stride;
    const float* const from = list + of * kThreads + number * cut.splits * outputs + channel;
    // In order.
    float sum = 0;
    for (int split = 0; split < cut.splits; ++split) sum += from[split * outputs];
    to[i] = sum;
  }
}

/// Parts of dw, of some channels of x and items. work.source: x, work.target: g. kRepeat: output channels of
/// one of x.
template <class T, class Tile, int kRepeat, bool kBias, bool kLast, int kWordX, bool kAlignedX, int kWordG,
          bool kAlignedG, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) weigh_phases(const PhaseWork work) {
  constexpr int kTapRows = Tile::kTapRows, kTaps = Tile::kTaps;
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int outputs = cut.channels * kRepeat;
  const int x_numbers = cut.images * cut.channels * cut.plane,
            g_numbers = cut.images * outputs * cut.target_plane;
  // Lists, rows as they are, planes; in the end sums in place of these.
  uint4* const x_list = shared;
  uint4* const g_list = x_list + cut.source_list;
  unsigned char* const x_raw = reinterpret_cast<unsigned char*>(g_list + cut.target_list);
  unsigned char* const g_raw = x_raw + cut.source_bytes;
  uint4* const all_planes = reinterpret_cast<uint4*>(g_raw + cut.target_bytes);
  float* const planes = reinterpret_cast<float*>(all_planes);
  float* const gradients = planes + x_numbers;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < (x_numbers + g_numbers) / 4; i += kThreads) all_planes[i] = uint4{};
  wait_for_stream();
  __syncthreads();

  const PhaseTapUnit unit(work, thread, share.channels, kRepeat, kTaps, kTapRows);
  const int classes_h = h.classes(), step_h = h.step();
  PhaseTapSums<Tile, kBias> sums;
  sums.clear();
  PhaseStream<T, true, kLast, kWordX, kAlignedX, kThreads> sources{work, share, sources_of(work, 1), x_list,
                                                                   x_raw};
  PhaseStream<T, false, kLast, kWordG, kAlignedG, kThreads> targets{work, share, gradients_of(work, kRepeat),
                                                                    g_list, g_raw};
  const auto begin_copies = [&](int item) {
    if (item >= share.last) return;
    const PhaseItem at(work, item);
    sources.list(at), targets.list(at);
    __syncthreads();
    sources.copy(at), targets.copy(at);
    end_copies();
  };
  begin_copies(share.first);
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    wait_for_copies<0>();
    __syncthreads();
    sources.sort(at, planes), targets.sort(at, gradients);
    __syncthreads();
    begin_copies(item + 1);
    const int strips = at.images * classes_h * cut.row_groups * w.classes() * cut.tiles;
    const int item_row = unit.row + h.padding - at.h.padding + at.begin / classes_h * step_h - at.low;
#pragma unroll 1
    for (int strip = unit.split; strip < strips; strip += cut.splits) {
      const int by_tile = static_cast<int>(cut.by_tiles.divide(static_cast<unsigned>(strip)));
      const int by_class = static_cast<int>(cut.by_classes_w.divide(static_cast<unsigned>(by_tile)));
      const int by_group = static_cast<int>(cut.by_row_groups.divide(static_cast<unsigned>(by_class)));
      const int image = static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(by_group)));
      const int left = (strip - by_tile * cut.tiles) * Tile::kColumns;
      const int class_w = by_tile - by_class * w.classes();
      const int first = (by_class - by_group * cut.row_groups) * cut.strip_rows;
      const int class_h = by_group - image * classes_h;
      const int of_class = at.end - at.begin - class_h + classes_h - 1;
      const int rows = min(
          cut.strip_rows, static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(of_class))) - first);
      if (rows <= 0) continue;
      const int column = unit.column + class_w * w.stride;
      const int residue =
          column - static_cast<int>(cut.by_step_w.divide(static_cast<unsigned>(column))) * w.step();
      const int row = item_row + class_h * h.stride + first * step_h;
      const float* const g = gradients + unit.of_g + image * outputs * cut.target_plane +
                             (class_h + first * classes_h) * cut.target_row + class_w * cut.target_phase +
                             left;
      const float* const x =
          planes + unit.of_x + image * cut.channels * cut.plane + row * cut.row + residue * cut.phase + left;
      sums.add(g, classes_h * cut.target_row, rows, x, step_h * cut.row, row, step_h, at.high - at.low,
               unit.rows, unit.all_taps, unit.first);
    }
    __syncthreads();
  }

  store_tap_sums<Tile, kBias, kThreads>(work, share.first_channel * kRepeat, share.channels * kRepeat,
                                        work.channels * kRepeat, outputs, sums, planes);
}

}  // namespace lamella::depthwise
