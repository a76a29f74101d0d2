#pragma once

#include "runs.cuh"

/// The forward of runs (runs.cuh), or the input's gradient at stride 1.
namespace lamella::depthwise {

/// A thread has kColumns_ neighbouring results of kRows_ rows. It takes kVector_ neighbouring numbers at once
/// from shared memory, and puts kVectorOut_ there, where rows divide by as many. Threads are an odd number of
/// vectors apart, so that they meet no bank twice. Where the width has padding, a thread's first column is
/// kOffset_ numbers behind a whole vector.
template <int kColumns_, int kRows_, int kVector_, int kVectorOut_, int kOffset_, int kPages_>
struct RunTile {
  static constexpr int kColumns = kColumns_, kRows = kRows_, kVector = kVector_, kVectorOut = kVectorOut_;
  static constexpr int kOffset = kOffset_, kPages = kPages_;
};

/// kMasks: columns beside the rows are read, and count as zero. Of them only the first kPadding and those
/// behind column kInside - 1 of a thread's window can be outside, unless kInside is 0. kStatistics: blocks
/// leave moments.
template <class T, class K, class S, class Tile, bool kMasks, int kPadding, int kInside, int kTransforms,
          bool kStatistics, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) forward_runs(const PlaneWork work) {
  constexpr int kColumns = Tile::kColumns, kRows = Tile::kRows, kPages = Tile::kPages;
  constexpr int kWindow = (kColumns - 1) * K::kStrideW + (K::kW - 1) * S::kWidth + 1;
  constexpr int kWindowRows = (kRows - 1) * K::kStrideH + (K::kH - 1) * S::kHeight + 1;
  constexpr int kConsumers = kThreads / 32 - 1, kWorkers = 32 * kConsumers;
  static_assert(kColumns * K::kStrideW % Tile::kVector == 0 && kColumns % Tile::kVectorOut == 0);
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  const int page_bytes = cut.input_numbers * static_cast<int>(sizeof(T));
  const int result_bytes = cut.output_numbers * static_cast<int>(sizeof(T));
  // A window may begin before a run.
  char* const bytes = reinterpret_cast<char*>(shared) + cut.zeros * static_cast<int>(sizeof(T));
  const unsigned pages = shared_address(bytes);
  const unsigned full = pages + kPages * page_bytes + 2 * result_bytes, empty = full + 8 * kPages;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  wait_for_stream();
  __syncthreads();

  const int groups = (work.channels + cut.planes - 1) / cut.planes;  // of channels
  const int first_channel = static_cast<int>(blockIdx.x) % groups * cut.planes;
  const int planes = min(cut.planes, work.channels - first_channel);
  const int part = static_cast<int>(blockIdx.x) / groups;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  using Item = RunItem<>;
  struct Band {
    int row, rows, low, high;  ///< of y, and of x
  };
  const auto band_of = [&](const Item& item) {
    Band band;
    band.row = item.band * cut.band_rows, band.rows = min(cut.band_rows, work.h.output - band.row);
    const int low = band.row * K::kStrideH - work.h.padding;
    const int high = low + (band.rows - 1) * K::kStrideH + (K::kH - 1) * S::kHeight + 1;
    band.low = cut.bands > 1 ? min(max(low, 0), work.h.input) : 0;
    band.high = cut.bands > 1 ? max(min(high, work.h.input), band.low) : work.h.input;
    return band;
  };
  // Several planes are whole sets of those that read one plane of x.
  const int in_channels = work.channels / K::kRepeat, in_planes = (planes + K::kRepeat - 1) / K::kRepeat;
  const auto input_of = [&](const Item& item, const Band& band) {
    return static_cast<const T*>(work.x) +
           (static_cast<Int64>(item.image) * in_channels + first_channel / K::kRepeat) * in_plane +
           band.low * work.w.input;
  };
  const auto numbers_of = [&](int rows, int width, int count, int plane) {
    return cut.bands > 1 ? rows * width : count * plane;
  };
  Item item{first_item / cut.bands, first_item % cut.bands};
  PageCursor<kPages> cursor;

  if (warp == kConsumers) {
#pragma unroll 1
    for (int i = first_item; lane == 0 && i < last_item; ++i, item.advance(cut.bands)) {
      const Band band = band_of(item);
      const T* const run = input_of(item, band);
      const LineRun<T> of(run, numbers_of(band.high - band.low, work.w.input, in_planes, in_plane));
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      expect_bytes(full + 8 * cursor.slot, of.loaded_bytes());
      of.load(pages + cursor.slot * page_bytes, run, full + 8 * cursor.slot);
      cursor.next();
    }
    return;
  }

  // The thread's columns and plane; its first rows.
  const int thread = static_cast<int>(threadIdx.x), per_plane = cut.column_groups * cut.row_groups;
  const int plane = thread / per_plane, place = thread - plane * per_plane;
  const int row_group = place / cut.column_groups,
            column = (place - row_group * cut.column_groups) * kColumns;
  const bool works = plane < planes;
  const int channel = first_channel + (works ? plane : 0);
  float taps[K::kTaps];
  load_taps<T>(work.taps, channel, taps);
  const float bias = load_bias<T>(work.taps, channel);
  Lane<kTransforms> transform;
  transform.begin(work.transform, channel / K::kRepeat);
  const int in_column = column * K::kStrideW - work.w.padding;
  const int left = min(kColumns, work.w.output - column);  // columns that exist
  unsigned masks[kMasks ? kWindow : 1];
  if constexpr (kMasks) {
#pragma unroll
    for (int i = 0; i < kWindow; ++i)
      masks[i] = in_column + i >= 0 && in_column + i < work.w.input ? 0xffffffffu : 0u;
  }

  ThreadMoments<kStatistics, 1> statistics;
  int result = 0;
#pragma unroll 1
  for (int i = first_item; i < last_item; ++i, item.advance(cut.bands)) {
    const Band band = band_of(item);
    const LineRun<T> in(input_of(item, band), 0);
    T* const out = static_cast<T*>(work.y) +
                   (static_cast<Int64>(item.image) * work.channels + first_channel) * out_plane +
                   band.row * work.w.output;
    const LineRun<T> of(out, numbers_of(band.rows, work.w.output, planes, out_plane));
    T* const results = reinterpret_cast<T*>(bytes + kPages * page_bytes + result * result_bytes);
    wait_for_phase(full + 8 * cursor.slot, cursor.parity);
    if (works) {
      const T* const page = reinterpret_cast<const T*>(bytes + cursor.slot * page_bytes) + in.phase +
                            plane / K::kRepeat * in_plane + in_column - Tile::kOffset;
      T* const mine = results + of.phase + plane * out_plane + column;
#pragma unroll 1
      for (int row = row_group * kRows; row < band.rows; row += cut.row_groups * kRows) {
        float sums[kRows][kColumns];
#pragma unroll
        for (int r = 0; r < kRows; ++r)
#pragma unroll
          for (int c = 0; c < kColumns; ++c) sums[r][c] = bias;
        const int in_row = (band.row + row) * K::kStrideH - work.h.padding;
        const T* from = page + (in_row - band.low) * work.w.input;
#pragma unroll
        for (int j = 0; j < kWindowRows; ++j) {
          if (in_row + j >= 0 && in_row + j < work.h.input && in_row + j < band.high) {
            float x[kWindow];
            load_window<T, Tile::kVector, Tile::kOffset>(from, x);
            transform.apply(x);
            if constexpr (kMasks) {
#pragma unroll
              for (int n = 0; n < kWindow; ++n)
                if (kInside == 0 || n < kPadding || n >= kInside)
                  x[n] = __uint_as_float(__float_as_uint(x[n]) & masks[n]);
            }
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
              const int down = j - r * K::kStrideH, kh = down / S::kHeight;
              if (down < 0 || down % S::kHeight != 0 || kh >= K::kH) continue;
#pragma unroll
              for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
                for (int c = 0; c < kColumns; ++c)
                  sums[r][c] += taps[kh * K::kW + kw] * x[c * K::kStrideW + kw * S::kWidth];
            }
          }
          from += work.w.input;
        }
        T* to = mine + row * work.w.output;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (row + r < band.rows) {
            keep_row<T, Tile::kVectorOut>(to, sums[r], left);
            if constexpr (kStatistics) {
              const float begin[1] = {sums[r][0]};
              statistics.first(begin);
#pragma unroll
              for (int c = 0; c < kColumns; ++c) {
                const float y[1] = {sums[r][c]};
                if (c < left) statistics.add(y);
              }
            }
          }
          to += work.w.output;
        }
      }
    }
    hand_to_copy_engine();
    if (thread == 0) wait_until_stores_have_read();  // the other place for results is free
    synchronize_warp();
    if (lane == 0) arrive(empty + 8 * cursor.slot);
    cursor.next();
    synchronize_some(1, kWorkers);
    if (thread == 0 && of.whole > of.begin) {
      store_bytes(
          out - of.phase + of.begin,
          pages + kPages * page_bytes + result * result_bytes + static_cast<unsigned>(of.begin * sizeof(T)),
          static_cast<unsigned>((of.whole - of.begin) * sizeof(T)));
      end_stores();
    }
    // What does not fill sixteen bytes, at the beginning and at the end.
    if (thread < LineRun<T>::kNumbers) {
      const int head = of.phase + thread, tail = max(of.whole, of.begin) + thread;
      if (head < min(of.begin, of.end)) out[thread] = results[head];
      if (tail < of.end) out[tail - of.phase] = results[tail];
    }
    result ^= 1;
  }
  if (thread == 0) wait_until_stores_have_read();
  synchronize_warp();  // one lane was away; the others meet below
  if constexpr (kStatistics) {
    // The threads of a plane are neighbours.
    const auto synchronize = [] { synchronize_some(1, kWorkers); };
    Moments* const list = reinterpret_cast<Moments*>(bytes);
    synchronize();
    list[thread] = statistics.of(0);
    merge_all(list, per_plane, 1, planes, per_plane, thread, kWorkers, synchronize);
    Moments* const to = reinterpret_cast<Moments*>(work.hook.parts) +
                        static_cast<Int64>(part) * work.channels + first_channel;
    for (int i = thread; i < planes; i += kWorkers) to[i] = list[i * per_plane];
  }
}

}  // namespace lamella::depthwise
