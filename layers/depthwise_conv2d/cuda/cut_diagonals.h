#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How dense planes are shared out among blocks whose matrix units compute the weight's gradient.
namespace lamella::depthwise {

/// A DiagonalTile, as numbers; whether the kernel knows the sizes of planes; and how many warps share out
/// rows, if not.
struct DiagonalTileSizes {
  int columns, planes, groups, vector, pages, vector_g;
  bool known;
  int row_groups = 1;
};

/// How many rows of g further up the last is that meets a row of x than the first, at most; and how far a row
/// of x may lie below the row of g that meets it, as TapPhases has it.
struct DiagonalReach {
  int reach, highest;
  DiagonalReach(int taps, int stride, int spread, int padding) {
    highest = Axis::floor((taps - 1) * spread - padding, stride);
    reach = highest - Axis::floor(-padding, stride);
  }
};

/// The launch of backward_diagonals; no blocks: nothing fits, or some gradients would not count for the bias.
inline Launch cut_diagonals(PlaneWork& work, std::int64_t images, std::int64_t channels,
                            const KernelSizes& kernel, int spread_h, int spread_w,
                            const DiagonalTileSizes& tile, int threads, std::int64_t most_bytes, bool bias,
                            std::int64_t wanted_blocks) {
  constexpr std::int64_t kNumber = 2, kNumbers = 16 / kNumber, kRows = 8;
  constexpr std::int64_t kLongestChain = 32;  // products that the matrix units add up, but an item at least
  PlaneCut& cut = work.cut;
  Launch launch;
  const DiagonalReach rows_of_g(kernel.kernel_h, kernel.stride_h, spread_h, work.h.padding);
  const std::int64_t consumers = threads / 32 - 1, reach = rows_of_g.reach;
  const std::int64_t of_block = kRows * kernel.stride_h;  // rows of x, in all phases
  const int per_plane = tile.groups * tile.row_groups;
  const std::int64_t tiles = ceiling(work.w.output, tile.columns),
                     row_blocks = ceiling(work.h.input, of_block);
  if (per_plane > consumers || (tile.known && tile.row_groups > 1)) return launch;
  if (bias && (work.h.output > ceiling(work.h.input, kernel.stride_h) || rows_of_g.highest < 0))
    return launch;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output * kernel.repeat;
  std::int64_t x_numbers = in_plane, g_numbers = out_plane;
  cut.planes = cut.bands = 1;
  cut.band_rows = work.h.input;
  if ((in_plane + out_plane) * kNumber <= most_bytes) {
    const std::int64_t together = std::min(
        {consumers / per_plane * tile.planes, most_bytes / ((in_plane + out_plane) * kNumber), channels});
    cut.planes = static_cast<int>(ceiling(channels, ceiling(channels, together)));
    x_numbers *= round_up(cut.planes, tile.planes), g_numbers *= round_up(cut.planes, tile.planes);
  } else {
    if (tile.known || kernel.repeat > 1) return launch;
    const auto g_rows = [&](std::int64_t rows) {
      return std::min<std::int64_t>(work.h.output, ceiling(rows, kernel.stride_h) + reach);
    };
    const auto of_rows = [&](std::int64_t rows) {
      return (rows * work.w.input + g_rows(rows) * work.w.output) * kNumber;
    };
    const std::int64_t step = of_block * tile.row_groups;
    std::int64_t rows = step;
    while (rows + step <= work.h.input && of_rows(rows + step) <= most_bytes) rows += step;
    if (of_rows(rows) > most_bytes) return launch;
    cut.bands = static_cast<int>(ceiling(work.h.input, rows));
    cut.band_rows = static_cast<int>(round_up(ceiling(work.h.input, cut.bands), of_block));
    cut.bands = static_cast<int>(ceiling(work.h.input, cut.band_rows));
    if (cut.bands == 1) return launch;  // it would have all of g, which does not fit
    x_numbers = std::int64_t{cut.band_rows} * work.w.input;
    g_numbers = g_rows(cut.band_rows) * work.w.output;
  }
  cut.column_groups = tile.groups, cut.row_groups = tile.row_groups;
  const std::int64_t products =
      ceiling(tiles, tile.groups) * ceiling(ceiling(cut.band_rows, of_block), tile.row_groups);
  cut.chain = static_cast<int>(std::max<std::int64_t>(1, kLongestChain / products));
  // What lanes read beside rows: before them up to the padding, behind them up to the end of the last
  // product; and, with known sizes, above and below planes.
  const std::int64_t columns = ceiling(tiles, tile.groups) * tile.groups * tile.columns;
  const std::int64_t window =
      std::max({columns - work.w.output, columns * kernel.stride_w - work.w.input, std::int64_t{0}}) +
      std::int64_t{tile.columns} * kernel.stride_w + std::int64_t{kernel.kernel_w - 1} * spread_w;
  const std::int64_t above = tile.known ? std::max(0, rows_of_g.highest) : 0;
  const std::int64_t x_below = tile.known ? of_block * row_blocks - work.h.input : 0;
  const std::int64_t g_below =
      tile.known ? std::max<std::int64_t>(0, kRows * (row_blocks + 1) - rows_of_g.highest - work.h.output)
                 : 0;
  constexpr std::int64_t kLine = kLineBytes / kNumber;
  cut.zeros = static_cast<int>(round_up(above * work.w.output + work.w.padding + window + kNumbers, kLine));
  const auto numbers_of = [&](std::int64_t run, std::int64_t below) {
    return static_cast<int>(round_up(run + kLine + below + window + kNumbers, kLine));
  };
  cut.input_numbers = numbers_of(x_numbers, x_below * work.w.input);
  cut.output_numbers = numbers_of(g_numbers, g_below * work.w.output);
  work.channels = static_cast<int>(channels);
  if (!share_items(work, launch, images * cut.bands, wanted_blocks)) return launch;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + (std::int64_t{cut.input_numbers} + cut.output_numbers) * tile.pages) * kNumber +
      16 * tile.pages;
  const std::int64_t sums =
      consumers * (std::int64_t{kernel.stride_h} * kernel.kernel_w + (bias ? 1 : 0)) * 64 * 4;
  launch.shared_bytes = std::max(launch.shared_bytes, cut.zeros * kNumber + sums);
  return launch;
}

}  // namespace lamella::depthwise
