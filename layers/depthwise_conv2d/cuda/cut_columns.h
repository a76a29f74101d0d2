#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How dense planes are shared out among teams that walk down their columns.
namespace lamella::depthwise {

/// A ColumnTile, as numbers; copies follow from the cut, but that copies_g of forward_columns stays 0.
struct ColumnTileSizes {
  int columns, rows, slots, team, warps, vector_x, copies_x, vector_g, copies_g;
};

/// The launch of forward_columns or weigh_columns, and the tile's copies; no blocks: nothing fits. Strips
/// have at most so many rows, of y or, for the weight's gradient, of x.
inline Launch cut_columns(PlaneWork& work, std::int64_t images, std::int64_t channels,
                          const KernelSizes& kernel, bool weight, ColumnTileSizes& tile,
                          std::int64_t strip_rows, std::int64_t wanted_teams) {
  constexpr std::int64_t kSumsAtOnce = 8;  // of the weight's gradient, when a team ends
  constexpr std::int64_t kBanks = 32;
  PlaneCut& cut = work.cut;
  Launch launch;
  const std::int64_t members = 32 * tile.team, groups = ceiling(work.w.output, tile.columns);
  if (groups > members) return launch;
  // Numbers of a team's planes are counted in 32 bits.
  const std::int64_t longest =
      std::max(std::int64_t{work.h.input} * work.w.input, std::int64_t{work.h.output} * work.w.output);
  const std::int64_t together =
      std::min({channels, members / groups, ((std::int64_t{1} << 31) - 1) / longest});
  cut.planes = static_cast<int>(ceiling(channels, ceiling(channels, together)));
  cut.column_groups = static_cast<int>(groups);
  const std::int64_t rows = weight ? work.h.input : work.h.output;
  cut.bands = static_cast<int>(ceiling(rows, strip_rows));
  cut.band_rows = static_cast<int>(round_up(ceiling(rows, cut.bands), tile.rows));
  cut.bands = static_cast<int>(ceiling(rows, cut.band_rows));

  const std::int64_t zeros = round_up(work.w.padding, 4), columns = groups * tile.columns;
  const int unit = tile.columns % 4 == 0 ? 4 : tile.columns % 2 == 0 ? 2 : 1;
  const bool has_out = weight || tile.copies_g > 0;
  if (has_out && columns % tile.vector_g != 0) return launch;
  const std::int64_t step = std::max(unit, tile.vector_x);
  const std::int64_t least = round_up(
      std::max(zeros + work.w.input, zeros - work.w.padding + columns + kernel.kernel_w + unit - 2), step);
  // Threads of neighbouring planes read as if their columns were neighbours.
  std::int64_t apart = least;
  while (cut.planes > 1 && apart < least + kBanks && apart % kBanks != columns % kBanks) apart += step;
  cut.run_numbers = static_cast<int>(apart < least + kBanks ? apart : least);
  cut.input_numbers = static_cast<int>(round_up(std::int64_t{cut.planes} * cut.run_numbers, 4));
  cut.output_numbers = has_out ? static_cast<int>(round_up(cut.planes * columns, 4)) : 0;
  cut.team_numbers = tile.rows * (tile.slots * (cut.input_numbers + (weight ? cut.output_numbers : 0)) +
                                  (weight ? 0 : cut.output_numbers));
  if (weight)
    cut.team_numbers = static_cast<int>(std::max(std::int64_t{cut.team_numbers}, kSumsAtOnce * members));
  const auto copies_of = [&](std::int64_t numbers, int vector) {
    return static_cast<int>(ceiling(cut.planes * (numbers / vector), members));
  };
  tile.copies_x = copies_of(work.w.input, tile.vector_x);
  if (has_out) tile.copies_g = copies_of(work.w.output, tile.vector_g);

  work.channels = static_cast<int>(channels);
  if (!share_items(work, launch, images * cut.bands, wanted_teams)) return launch;
  const std::int64_t teams = tile.warps / tile.team;
  launch.blocks = ceiling(launch.blocks, teams);
  if (!weight) launch.parts = 0;
  launch.threads = 32 * tile.warps;
  launch.shared_bytes = teams * cut.team_numbers * 4;
  return launch;
}

/// The launch of weigh_whole_columns; no blocks: its runs are not whole in sixteen bytes, or a page has too
/// many banks' numbers in one.
inline Launch cut_whole_columns(PlaneWork& work, std::int64_t images, std::int64_t channels, int pages,
                                int warps, std::int64_t wanted_warps) {
  constexpr int kLanes = 32;
  Launch launch;
  const std::int64_t plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  if (plane % 2 == 0 || out_plane % 2 == 0 || channels % 4 != 0) return launch;
  work.cut.planes = kLanes;
  work.channels = static_cast<int>(channels);
  if (!share_items(work, launch, images, wanted_warps)) return launch;
  launch.blocks = ceiling(launch.blocks, warps);
  launch.threads = kLanes * warps;
  launch.shared_bytes = warps * pages * (kLanes * (plane + out_plane) * 4 + 8);
  return launch;
}

}  // namespace lamella::depthwise
