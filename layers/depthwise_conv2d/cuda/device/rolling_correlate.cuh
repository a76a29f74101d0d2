#pragma once

#include "rolling.cuh"

/// The output, or the input's gradient, of rows that roll through registers (rolling.cuh).
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most; kRagged_: some groups have one less. A thread has kRows_ x
/// kColumns_ targets of one class.
template <int kTaps_, int kRows_, int kColumns_, bool kRagged_>
struct RollingTile {
  static constexpr int kTaps = kTaps_, kRows = kRows_, kColumns = kColumns_;
  static constexpr bool kRagged = kRagged_;
  static constexpr int kWindow = kColumns + kTaps - 1;
  static constexpr int kQuads = (kTaps + 3) / 4;  ///< of taps, as they lie in shared memory
};

/// Makes the taps of a block's channels, [source][row of taps][set of columns][quad][channel] of four, each
/// set in the order in which its sources lie. kSources: channels of sources for one of targets.
template <class T, class Tile, int kSources, int kThreads>
__device__ __forceinline__ void make_rolling_taps(const PhaseWork& work, const PhaseShare& share,
                                                  uint4* taps) {
  const int channels = work.cut.channels, sets = work.w.sets(), rows = work.h.kernel;
  const int count = kSources * rows * sets * Tile::kQuads * channels;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int of_quad = i / channels, channel = i - of_quad * channels;
    const int of_set = of_quad / Tile::kQuads, quad = of_quad - of_set * Tile::kQuads;
    const int of_row = of_set / sets, set = of_set - of_row * sets;
    const int source = of_row / rows, row = of_row - source * rows;
    if (channel >= share.channels) continue;
    unsigned four[4];
#pragma unroll
    for (int n = 0; n < 4; ++n)
      four[n] = __float_as_uint(load_phase_tap<T>(work, (share.first_channel + channel) * kSources + source,
                                                  row, set, quad * 4 + n));
    store_shared(shared_address(taps + i), four);
  }
}

/// The sums of a thread.
template <class T, class Tile>
struct RollingSums {
  static constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  float sums[kRows][kColumns];

  __device__ __forceinline__ void fill(float with) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums[r][c] = with;
  }

  /// Adds a group's products. Row j of taps, whose quads are quad_step apart, is at taps + j · tap_pitch.
  /// all_taps: the last column has taps, too.
  template <class Source>
  __device__ __forceinline__ void add(Source from, const RollingRange& rows, const uint4* taps, int tap_pitch,
                                      int quad_step, int tap_rows, bool all_taps) {
    // Rows of taps that meet no row in any of the thread's are left out.
    const int first = max(rows.low - kRows + 1, 0), last = min(tap_rows, rows.high);
    if (first >= last) return;
    from.skip(first), taps += first * tap_pitch;
    RollingRange read = rows;
    read.high = min(rows.high, last + kRows - 1);
    unsigned raw[kWindow];
    // Rows that are missing are loaded as zeros, and no load is under way where the loop turns: else the
    // compiler copies registers there, and waits for the load to do so.
    const auto load_row = [&](int row) { from.load(read.has(row), raw); };
    float x[kRows][kWindow];  // row i in place i % kRows, counted from `first` on
#pragma unroll
    for (int r = 0; r < kRows - 1; ++r) load_row(first + r), widen_columns<T>(raw, x[r]);
#pragma unroll 1
    for (int i = first; i < last; i += kRows) {
      load_row(i + kRows - 1);
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        float tap[4 * Tile::kQuads];
#pragma unroll
        for (int q = 0; q < Tile::kQuads; ++q) {
          float four[4];
          load<float>(reinterpret_cast<const float*>(taps + q * quad_step), four);
#pragma unroll
          for (int n = 0; n < 4; ++n) tap[4 * q + n] = four[n];
        }
#pragma unroll
        for (int r = 0; r < kRows - 1; ++r) multiply(r, tap, x[(u + r) % kRows], all_taps);
        widen_columns<T>(raw, x[(u + kRows - 1) % kRows]);
        if (u + 1 < kRows) load_row(i + u + kRows);
        multiply(kRows - 1, tap, x[(u + kRows - 1) % kRows], all_taps);
        if (i + u + 1 >= last) break;
        taps += tap_pitch;
      }
    }
  }

 private:
  static constexpr int kWindow = Tile::kWindow;
  __device__ __forceinline__ void multiply(int r, const float (&tap)[4 * Tile::kQuads],
                                           const float (&x)[kWindow], bool all_taps) {
#pragma unroll
    for (int k = 0; k < Tile::kTaps; ++k) {
      if (Tile::kRagged && k == Tile::kTaps - 1 && !all_taps) continue;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums[r][c] += tap[k] * x[c + k];
    }
  }
};

/// kRepeat: output channels of one of x. kScatters: the input's gradient. kApart: numbers of a source from
/// one column of a window to the next, or 0, if they are not known. Channels of the work are those of
/// targets.
template <class T, class Tile, int kRepeat, bool kScatters, Int64 kApart, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate_rolling(const PhaseWork work) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  constexpr int kSources = phase_channels(kScatters, kRepeat);
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int classes_h = h.classes(), classes_w = w.classes(), groups_h = h.groups(), groups_w = w.groups();
  PhaseAxis::Group* const groups_of_rows = reinterpret_cast<PhaseAxis::Group*>(shared);
  PhaseAxis::Group* const groups_of_columns = groups_of_rows + classes_h * groups_h;
  uint4* const taps = shared + classes_h * groups_h + classes_w * groups_w;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < classes_h * groups_h; i += kThreads)
    groups_of_rows[i] = h.group(i / groups_h, i % groups_h);
  for (int i = thread; i < classes_w * groups_w; i += kThreads)
    groups_of_columns[i] = w.group(i / groups_w, i % groups_w);
  wait_for_stream();
  make_rolling_taps<T, Tile, kSources, kThreads>(work, share, taps);
  __syncthreads();

  const int quads = w.sets() * Tile::kQuads * cut.channels;  // of a row of taps
  const Int64 pitch = h.step() * h.source_every * work.source.row,
              apart = w.step() * w.source_every * work.source.column;
  const int count = (share.last - share.first) * cut.channels;
#pragma unroll 1
  for (int n = thread; n < count; n += kThreads) {
    int number = n;
    const int channel = take_digit(number, cut.channels, cut.by_channels);
    if (channel >= share.channels) continue;
    const RollingUnit at(work, share.first + number);
    const int left = at.tile * kColumns, top = at.row_group * kRows;
    const int all_channels = share.first_channel + channel;
    RollingSums<T, Tile> result;
    result.fill(kScatters ? 0.0f : load_bias<T>(work.taps, all_channels));
    const T* const image = static_cast<const T*>(work.source.data) + at.image * work.source.image +
                           w.source_first * work.source.column + h.source_first * work.source.row;
#pragma unroll 1
    for (int group_w = 0; group_w < groups_w; ++group_w) {
      const PhaseAxis::Group by_w = groups_of_columns[at.class_w * groups_w + group_w];
      if (by_w.taps == 0) continue;
      const int column = by_w.first + left * w.step();
      const unsigned exists = existing_columns(column, w.step(), cut.by_step_w, w.sources, Tile::kWindow);
      if (exists == 0) continue;
      const int set = w.scatters ? by_w.tap % w.stride : by_w.tap;
#pragma unroll 1
      for (int group_h = 0; group_h < groups_h; ++group_h) {
        const PhaseAxis::Group by_h = groups_of_rows[at.class_h * groups_h + group_h];
        const int row = by_h.first + top * h.step();
        const RollingRange rows(row, h.step(), cut.by_step_h, h.sources);
#pragma unroll 1
        for (int source = 0; source < kSources; ++source) {
          const int of_source = kScatters ? all_channels * kSources + source : all_channels / kRepeat;
          const T* const from = image + of_source * work.source.channel +
                                column * w.source_every * work.source.column +
                                row * h.source_every * work.source.row;
          result.add(
              RollingSource<T, kApart>{from, pitch, apart, exists}, rows,
              taps + (source * h.kernel + by_h.tap) * quads + set * Tile::kQuads * cut.channels + channel,
              by_h.tap_step * quads, cut.channels, by_h.taps, by_w.taps == Tile::kTaps);
        }
      }
    }
    const int columns = w.targets_of(at.class_w) - left, rows_left = h.targets_of(at.class_h) - top;
    const Int64 next = classes_w * w.target_every * work.target.column,
                next_row = classes_h * h.target_every * work.target.row;
    T* to = static_cast<T*>(work.target.data) + at.image * work.target.image +
            all_channels * work.target.channel +
            (w.target_first + (at.class_w + left * classes_w) * w.target_every) * work.target.column +
            (h.target_first + (at.class_h + top * classes_h) * h.target_every) * work.target.row;
#pragma unroll
    for (int r = 0; r < kRows; ++r, to += next_row) {
      if (r >= rows_left) break;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        if (c >= columns) break;
        const float old = work.accumulate ? widen(to[c * next]) : 0.0f;
        to[c * next] = narrow<T>(work.accumulate ? old + result.sums[r][c] : result.sums[r][c]);
      }
    }
  }
}

}  // namespace lamella::depthwise
