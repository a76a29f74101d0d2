#pragma once

#include "phases_weigh.cuh"
#include "rolling.cuh"

/// The weight's gradient of rows that roll through registers (rolling.cuh). A thread has some taps of an
/// output channel as long as its block lives, and walks down strips of columns: rows of y's gradient g stay
/// in registers until all rows of taps have met them, and a row of x is loaded once for all of these.
///
/// Numbers that are not finite spread to other taps of their channel, as 0 · infinity is no number: zeros
/// stand for columns that do not exist.
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most; kRagged_: some groups have one less. A thread has kTapRows_ rows of
/// them, and takes kColumns_ columns of g at once.
template <int kTaps_, int kColumns_, int kTapRows_, bool kRagged_>
struct RollingTapTile {
  static constexpr int kTaps = kTaps_, kColumns = kColumns_, kTapRows = kTapRows_;
  static constexpr bool kRagged = kRagged_;
  static constexpr int kWindow = kColumns + kTaps - 1;
};

/// The sums of a thread.
template <class T, class Tile, bool kBias>
struct RollingTapSums {
  static constexpr int kTapRows = Tile::kTapRows, kTaps = Tile::kTaps, kColumns = Tile::kColumns;
  float taps[kTapRows][kTaps];
  float bias;

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int j = 0; j < kTapRows; ++j)
#pragma unroll
      for (int k = 0; k < kTaps; ++k) taps[j][k] = 0;
    bias = 0;
  }

  /// Adds the products of a strip of `rows` rows of g; row n meets rows n … of x. Of the thread's rows of
  /// taps, tap_rows exist. all_taps: the last column has taps, too.
  template <class SourceG, class SourceX>
  __device__ __forceinline__ void add(SourceG of_g, SourceX of_x, int rows, const RollingRange& x_rows,
                                      int tap_rows, bool all_taps, bool has_bias) {
    int first = max(x_rows.low - kTapRows + 1, 0), last = min(x_rows.high, rows + tap_rows - 1);
    if (kBias && has_bias) first = 0, last = max(last, rows);
    if (first >= last) return;
    of_g.skip(first), of_x.skip(first);
    unsigned raw_g[kColumns], raw_x[kWindow];
    clear_columns(raw_g), clear_columns(raw_x);
    const auto load_rows = [&](int row) {
      const bool has_x = row < last && x_rows.has(row);
      if (!has_x) clear_columns(raw_x);
      of_g.load_existing(row < rows, raw_g);
      of_x.load_existing(has_x, raw_x);
    };
    // Row n of g in place n % kTapRows, counted from `first` on; the last row of x.
    float g[kTapRows][kColumns], x[kWindow];
    load_rows(first);
    widen_columns<T>(raw_g, g[0]), widen_columns<T>(raw_x, x);
#pragma unroll 1
    for (int n = first; n < last; n += kTapRows) {
#pragma unroll
      for (int u = 0; u < kTapRows; ++u) {
        if (n + u >= last) break;
        // What is on its way does not go round the loop: the compiler would move it, and so wait for it.
        load_rows(n + u + 1);
        if (kBias && has_bias && n + u < rows) {
#pragma unroll
          for (int c = 0; c < kColumns; ++c) bias += g[u][c];
        }
        if (x_rows.has(n + u)) {
#pragma unroll
          for (int j = 0; j < kTapRows; ++j)
            if (static_cast<unsigned>(n + u - j) < static_cast<unsigned>(rows) && (j == 0 || j < tap_rows))
              multiply(j, g[(u - j + kTapRows) % kTapRows], x, all_taps);
        }
        widen_columns<T>(raw_g, g[(u + 1) % kTapRows]), widen_columns<T>(raw_x, x);
      }
    }
  }

 private:
  static constexpr int kWindow = Tile::kWindow;
  __device__ __forceinline__ void multiply(int j, const float (&g)[kColumns], const float (&x)[kWindow],
                                           bool all_taps) {
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      if (Tile::kRagged && k == kTaps - 1 && !all_taps) continue;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) taps[j][k] += g[c] * x[c + k];
    }
  }
};

/// Parts of dw, of some channels of y and strips. work.source: x, work.target: g. kRepeat: output channels of
/// one of x. kApartX, kApartG: numbers from one column of a class to the next, or 0, if they are not known.
template <class T, class Tile, int kRepeat, bool kBias, Int64 kApartX, Int64 kApartG, int kThreads,
          int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) weigh_rolling(const PhaseWork work) {
  constexpr int kTapRows = Tile::kTapRows, kTaps = Tile::kTaps;
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int thread = static_cast<int>(threadIdx.x);
  const RollingTapUnit unit(work, thread);
  const int tap_rows = min(kTapRows, h.group(0, unit.set_h).taps - unit.round * kTapRows);
  const bool works = unit.channel < share.channels && tap_rows > 0;
  const bool all_taps = w.group(0, unit.set_w).taps == kTaps;
  const int output = share.first_channel + unit.channel;
  const T* const x = static_cast<const T*>(work.source.data) + output / kRepeat * work.source.channel +
                     w.source_first * work.source.column + h.source_first * work.source.row;
  const T* const g = static_cast<const T*>(work.target.data) + output * work.target.channel;
  const Int64 x_row = h.source_every * work.source.row, x_column = w.source_every * work.source.column;
  RollingTapSums<T, Tile, kBias> sums;
  sums.clear();
  wait_for_stream();
#pragma unroll 1
  for (int strip = works ? share.first + unit.split : share.last; strip < share.last; strip += cut.splits) {
    const RollingUnit at(work, strip);
    const int left = at.tile * Tile::kColumns, top = at.row_group * cut.strip_rows;
    const int rows = min(cut.strip_rows, h.targets_of(at.class_h) - top);
    const int columns = w.targets_of(at.class_w) - left;
    if (rows <= 0 || columns <= 0) continue;
    const int row = h.group(at.class_h, unit.set_h).first + (top + unit.round * kTapRows) * h.step();
    const int column = w.group(at.class_w, unit.set_w).first + left * w.step();
    const unsigned exists = existing_columns(column, w.step(), cut.by_step_w, w.sources, Tile::kWindow);
    const RollingSource<T, kApartG> of_g{g + at.image * work.target.image +
                                             (at.class_h + top * h.classes()) * work.target.row +
                                             (at.class_w + left * w.classes()) * work.target.column,
                                         h.classes() * work.target.row, w.classes() * work.target.column,
                                         bits_between(0, min(columns, Tile::kColumns))};
    const RollingSource<T, kApartX> of_x{x + at.image * work.source.image + row * x_row + column * x_column,
                                         h.step() * x_row, w.step() * x_column, exists};
    sums.add(of_g, of_x, rows, RollingRange(row, h.step(), cut.by_step_h, h.sources), tap_rows, all_taps,
             unit.number == 0);
  }
  store_tap_sums<Tile, kBias, kThreads>(work, share.first_channel, share.channels, work.channels,
                                        cut.channels, sums, reinterpret_cast<float*>(shared));
}

}  // namespace lamella::depthwise
