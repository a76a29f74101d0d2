#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How dense planes are shared out among blocks that move runs of them.
namespace lamella::depthwise {

/// A RunTile, as numbers.
struct RunTileSizes {
  int columns, rows, vector, vector_out, offset, pages;
};

/// The rest of the launch of a forward by pages of runs, which has two places for results; no blocks: it has
/// too many items.
inline void launch_forward_runs(PlaneWork& work, Launch& launch, std::int64_t channels, std::int64_t items,
                                int pages, std::int64_t number_bytes, int threads,
                                std::int64_t wanted_blocks) {
  const PlaneCut& cut = work.cut;
  work.channels = static_cast<int>(channels);
  if (!share_items(work, launch, items, wanted_blocks)) return;
  launch.parts = 0;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + std::int64_t{cut.input_numbers} * pages + std::int64_t{cut.output_numbers} * 2) *
          number_bytes +
      16 * pages;
}

/// The launch of forward_runs, with the channels of y; no blocks: nothing fits. The kernel's sizes have the
/// strides as they are, with distances of taps beside.
inline Launch cut_forward_runs(PlaneWork& work, std::int64_t images, std::int64_t channels,
                               const KernelSizes& kernel, int spread_h, const RunTileSizes& tile,
                               int number_bytes, int threads, std::int64_t most_bytes,
                               std::int64_t wanted_blocks) {
  PlaneCut& cut = work.cut;
  Launch launch;
  const std::int64_t line = kLineBytes / number_bytes, vector = 16 / number_bytes, workers = threads - 32;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t column_groups = ceiling(work.w.output, tile.columns),
                     all_row_groups = ceiling(work.h.output, tile.rows);
  if (column_groups > workers) return launch;
  const std::int64_t most_row_groups = std::min(all_row_groups, workers / column_groups);
  cut.planes = cut.bands = 1;
  cut.band_rows = work.h.output;
  std::int64_t in_numbers = in_plane, out_numbers = out_plane;
  if (in_plane * number_bytes <= most_bytes) {
    if (most_row_groups == all_row_groups) {
      // Of x; those of y that read one of them stay together, or go one by one.
      const std::int64_t in_channels = channels / kernel.repeat;
      const std::int64_t together = std::min({workers / (column_groups * all_row_groups) / kernel.repeat,
                                              most_bytes / (in_plane * number_bytes), in_channels});
      if (together > 0)
        cut.planes = static_cast<int>(ceiling(in_channels, ceiling(in_channels, together))) * kernel.repeat;
    }
    in_numbers *= ceiling(cut.planes, kernel.repeat), out_numbers *= cut.planes;
  } else {
    const auto rows_read = [&](std::int64_t rows) {
      return std::min<std::int64_t>(
          work.h.input, (rows - 1) * kernel.stride_h + std::int64_t{kernel.kernel_h - 1} * spread_h + 1);
    };
    const std::int64_t step = most_row_groups * tile.rows;
    std::int64_t rows = step;
    while (rows + step <= work.h.output && rows_read(rows + step) * work.w.input * number_bytes <= most_bytes)
      rows += step;
    if (rows_read(rows) * work.w.input * number_bytes > most_bytes) return launch;
    cut.bands = static_cast<int>(ceiling(work.h.output, rows));
    cut.band_rows = static_cast<int>(round_up(ceiling(work.h.output, cut.bands), tile.rows));
    cut.bands = static_cast<int>(ceiling(work.h.output, cut.band_rows));
    in_numbers = rows_read(cut.band_rows) * work.w.input;
    out_numbers = std::int64_t{cut.band_rows} * work.w.output;
  }
  cut.column_groups = static_cast<int>(column_groups);
  cut.row_groups = static_cast<int>(most_row_groups);
  cut.zeros = static_cast<int>(round_up(work.w.padding + tile.offset + 1, line));
  // A run may begin anywhere in a line, and a window end behind the run.
  const std::int64_t behind =
      tile.columns * kernel.stride_w + kernel.kernel_w * std::int64_t{work.w.input_step} + vector;
  cut.input_numbers = static_cast<int>(round_up(in_numbers + line + behind, line));
  cut.output_numbers = static_cast<int>(round_up(out_numbers + line, line));
  launch_forward_runs(work, launch, channels, images * cut.bands, tile.pages, number_bytes, threads,
                      wanted_blocks);
  return launch;
}

/// A UnitTile, as numbers.
struct UnitTileSizes {
  int columns, rows, vector_x, vector_g, offset, pages;
};

/// As UnitReach.
struct UnitReachSizes {
  int low = 0, span = 0;
  UnitReachSizes(int kernel, int stride, int spread, int phase) {
    int high = 0;
    bool any = false;
    for (int a = 0; a < stride; ++a)
      for (int k = 0; k < kernel; ++k) {
        const int from = a + phase - spread * k;
        if (from % stride != 0) continue;
        low = any ? std::min(low, from / stride) : from / stride;
        high = any ? std::max(high, from / stride) : from / stride;
        any = true;
      }
    span = high - low + 1;
  }
};

/// The launch of backward_runs; no blocks: nothing fits, or a unit owns no gradient or two.
inline Launch cut_backward_runs(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                const KernelSizes& kernel, int spread_h, int spread_w,
                                const UnitTileSizes& tile, int number_bytes, int threads,
                                std::int64_t most_bytes, bool input, bool weight, bool bias,
                                std::int64_t wanted_blocks) {
  PlaneCut& cut = work.cut;
  Launch launch;
  const std::int64_t line = kLineBytes / number_bytes, vector = 16 / number_bytes, workers = threads - 32;
  const UnitReachSizes reach_h(kernel.kernel_h, kernel.stride_h, spread_h, work.h.padding % kernel.stride_h);
  const UnitReachSizes reach_w(kernel.kernel_w, kernel.stride_w, spread_w, work.w.padding % kernel.stride_w);
  const std::int64_t q_h = work.h.padding / kernel.stride_h, q_w = work.w.padding / kernel.stride_w;
  const std::int64_t unit_rows = ceiling(work.h.input, kernel.stride_h),
                     unit_columns = ceiling(work.w.input, kernel.stride_w);
  work.owner_h = static_cast<int>(q_h), work.owner_w = static_cast<int>(q_w);
  cut.owned_columns = work.w.output;
  if (bias &&
      (work.h.output > unit_rows || work.w.output > unit_columns || -q_h < reach_h.low ||
       -q_w < reach_w.low || -q_h >= reach_h.low + reach_h.span || -q_w >= reach_w.low + reach_w.span))
    return launch;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t column_groups = ceiling(unit_columns, tile.columns),
                     all_row_groups = ceiling(unit_rows, tile.rows);
  if (column_groups > workers) return launch;
  const std::int64_t most_row_groups = std::min(all_row_groups, workers / column_groups);
  const auto bytes_of = [&](std::int64_t x, std::int64_t g) {
    return ((weight ? x : 0) + g * kernel.repeat) * number_bytes;
  };
  cut.planes = cut.bands = 1;
  cut.band_rows = static_cast<int>(unit_rows);
  std::int64_t x_numbers = in_plane, g_numbers = out_plane;
  if (bytes_of(in_plane, out_plane) <= most_bytes) {
    if (most_row_groups == all_row_groups) {
      const std::int64_t together = std::min(
          {workers / (column_groups * all_row_groups), most_bytes / bytes_of(in_plane, out_plane), channels});
      cut.planes =
          static_cast<int>(ceiling(channels, ceiling(channels, std::max<std::int64_t>(1, together))));
    }
    x_numbers *= cut.planes, g_numbers *= cut.planes;
  } else {
    const auto of_rows = [&](std::int64_t rows) {
      return bytes_of(rows * kernel.stride_h * work.w.input,
                      std::min<std::int64_t>(work.h.output, rows + reach_h.span - 1) * work.w.output);
    };
    const std::int64_t step = most_row_groups * tile.rows;
    std::int64_t rows = step;
    while (rows + step <= unit_rows && of_rows(rows + step) <= most_bytes) rows += step;
    if (of_rows(rows) > most_bytes) return launch;
    cut.bands = static_cast<int>(ceiling(unit_rows, rows));
    cut.band_rows = static_cast<int>(round_up(ceiling(unit_rows, cut.bands), tile.rows));
    cut.bands = static_cast<int>(ceiling(unit_rows, cut.band_rows));
    x_numbers = std::int64_t{cut.band_rows} * kernel.stride_h * work.w.input;
    g_numbers = std::min<std::int64_t>(work.h.output, cut.band_rows + reach_h.span - 1) * work.w.output;
  }
  cut.column_groups = static_cast<int>(column_groups);
  cut.row_groups = static_cast<int>(most_row_groups);
  cut.zeros =
      static_cast<int>(round_up(std::max<std::int64_t>(0, -(q_w + reach_w.low)) + tile.offset + 1, line));
  const std::int64_t behind = tile.columns * kernel.stride_w + reach_w.span + q_w + tile.vector_g + vector;
  const auto run_numbers = [&](std::int64_t run) {
    return static_cast<int>(round_up(run + line + behind, line));
  };
  cut.input_numbers = run_numbers(x_numbers);
  cut.run_numbers = run_numbers(g_numbers);
  cut.output_numbers =
      cut.bands > 1 ? cut.run_numbers * kernel.repeat : run_numbers(g_numbers * kernel.repeat);
  work.channels = static_cast<int>(channels);
  if (!share_items(work, launch, images * cut.bands, wanted_blocks)) return launch;
  if (!weight) launch.parts = 0;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + (cut.output_numbers + (weight ? std::int64_t{cut.input_numbers} : 0)) * tile.pages +
       (input ? std::int64_t{cut.input_numbers} * 2 : 0)) *
          number_bytes +
      16 * tile.pages;
  if (weight)
    launch.shared_bytes =
        std::max<std::int64_t>(launch.shared_bytes, cut.zeros * number_bytes + 8 * workers * 4);
  return launch;
}

}  // namespace lamella::depthwise
