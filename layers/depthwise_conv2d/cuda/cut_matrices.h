#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_runs.h"

/// How dense planes are shared out among blocks whose matrix units compute the forward.
namespace lamella::depthwise {

/// A MatrixTile, as numbers.
struct MatrixTileSizes {
  int columns, read, images, held, warps, pages;
  int rows() const { return 16 / columns; }
  /// Channels of a block.
  int planes(int threads) const { return (threads / 32 - 1) / warps * held; }
  /// As of ForwardMatrices: tiles of a row, those in a product, and images of a product.
  int groups(int width) const { return static_cast<int>(ceiling(width, columns)); }
  int span(int width) const { return groups(width) > 4 ? 8 : groups(width) > 2 ? 4 : groups(width); }
  int together(int width) const { return 8 / span(width); }
};

/// The launch of forward_matrices; no blocks: nothing fits. `strips`: of a band, for as many warps.
inline Launch cut_forward_matrices(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                   const KernelSizes& kernel, const MatrixTileSizes& tile, int threads,
                                   int strips, std::int64_t most_bytes, std::int64_t wanted_blocks) {
  constexpr std::int64_t kNumbers = 8, kNumberBytes = 2, kLanes = 32, kBanks = 64;
  PlaneCut& cut = work.cut;
  Launch launch;
  const int together = tile.together(work.w.output);
  if ((threads / 32 - 1) % tile.warps != 0) return launch;
  if (tile.images > together && tile.images % together != 0) return launch;
  const std::int64_t planes = tile.planes(threads), in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  cut.planes = static_cast<int>(planes);
  cut.images = static_cast<int>(images);
  cut.bands = 1;
  cut.band_rows = static_cast<int>(round_up(work.h.output, tile.rows()));
  std::int64_t runs = tile.images, in_numbers = planes * in_plane, out_numbers = planes * out_plane;
  if (tile.images * in_numbers * kNumberBytes > most_bytes) {
    runs *= planes;
    const auto rows_read = [&](std::int64_t rows) {
      return std::min<std::int64_t>(work.h.input, rows + kernel.kernel_h - 1);
    };
    const std::int64_t row_bytes = runs * work.w.input * kNumberBytes, step = tile.rows();
    std::int64_t rows = step;
    while (rows + step <= work.h.output && rows_read(rows + step) * row_bytes <= most_bytes) rows += step;
    if (rows_read(rows) * row_bytes > most_bytes || rows >= work.h.output) return launch;
    cut.band_rows = static_cast<int>(round_up(ceiling(work.h.output, ceiling(work.h.output, rows)), step));
    cut.bands = static_cast<int>(ceiling(work.h.output, cut.band_rows));
    in_numbers = rows_read(cut.band_rows) * work.w.input;
    out_numbers = std::int64_t{cut.band_rows} * work.w.output;
  }
  if (runs > kLanes) return launch;  // one of a warp asks for each
  cut.strip_rows = static_cast<int>(round_up(ceiling(cut.band_rows, strips), tile.rows()));
  cut.row_groups = static_cast<int>(ceiling(cut.band_rows, cut.strip_rows));
  // Images of a product lie where they share no bank.
  const auto run_numbers = [&](std::int64_t numbers) {
    const std::int64_t all = round_up(numbers + kNumbers, kNumbers);
    if (together == 1 || runs == 1) return all;
    const std::int64_t apart = kBanks / together;
    return all + (apart - all % kBanks + kBanks) % kBanks;
  };
  constexpr std::int64_t kFarTooMany = 1 << 18;  // bytes: no shared memory has them
  if (runs * run_numbers(std::max(in_numbers, out_numbers)) * kNumberBytes > kFarTooMany) return launch;
  cut.run_numbers = static_cast<int>(run_numbers(in_numbers));
  cut.result_numbers = static_cast<int>(run_numbers(out_numbers));
  // A window may begin before a run and end behind it.
  cut.zeros = static_cast<int>(round_up(work.w.padding + 1, kNumbers));
  cut.input_numbers = static_cast<int>(
      runs * cut.run_numbers +
      round_up(round_up(tile.groups(work.w.output), tile.span(work.w.output)) * tile.columns + tile.read,
               kNumbers));
  cut.output_numbers = static_cast<int>(runs * cut.result_numbers);
  launch_forward_runs(work, launch, channels, ceiling(images, tile.images) * cut.bands, tile.pages,
                      kNumberBytes, threads, wanted_blocks);
  return launch;
}

}  // namespace lamella::depthwise
