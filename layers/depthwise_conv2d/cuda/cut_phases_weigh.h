#pragma once

#include "layers/depthwise_conv2d/cuda/cut_phases.h"

/// How the weight's gradient of planes sorted by residue (device/phases_weigh.cuh) is shared out.
namespace lamella::depthwise {

/// What else weigh_phases is compiled for, and how its threads share out strips.
struct PhaseWeighSizes : PhaseShareSizes {
  int columns = 4, tap_rows = 1;  ///< of a unit
  int strip_rows = 0;             ///< of a class, that a thread walks down at once; 0: see strip_rows_for()
  int splits = 0;                 ///< threads of the same taps; 0: as many as fit
};

/// How many rows of a class a strip has, so that threads are done first. There are `count` strips for each
/// group of rows, shared out among `splits` threads; short strips cost more a row, as their first and last
/// rows of x meet fewer rows of taps.
inline int strip_rows_for(int class_rows, std::int64_t count, int splits, int tap_rows) {
  std::int64_t best = class_rows, least = 0;
  // Of each count of rows that is the least for its count of strips.
  for (std::int64_t rows = class_rows; rows > 0;) {
    const std::int64_t strips = count * ceiling(class_rows, rows);
    const std::int64_t cost = ceiling(strips, splits) * (10 * rows + 2 * tap_rows + 1);
    if (least == 0 || cost < least) least = cost, best = rows;
    rows = rows > 1 ? ceiling(class_rows, ceiling(class_rows, rows - 1)) : 0;
  }
  return static_cast<int>(best);
}

/// The least pitch, in floats, at which `neighbours` planes begin in different banks (of other counts than 1,
/// 2 and 4: seldom in the same).
inline std::int64_t apart_in_banks(std::int64_t floats, int neighbours) {
  constexpr int kVector = 4, kBanks = 32;
  const int odd = neighbours == 2 || neighbours == 4 ? kBanks / neighbours : kVector;
  return neighbours == 1 ? round_up(floats, kVector) : round_up(floats - odd, kBanks) + odd;
}

/// The launch of weigh_phases; axes are those of the output. channels: of x. No blocks: it cannot be.
inline Launch cut_weigh_phases(PhaseWork& work, std::int64_t images, std::int64_t channels,
                               bool channels_last, int repeat, bool bias, const PhaseWeighSizes& sizes,
                               int number_bytes, std::int64_t wanted_blocks) {
  constexpr int kVector = 4;
  const PhaseAxis &h = work.h, &w = work.w;
  PhaseCut& cut = work.cut;
  Launch launch;
  if (!can_cut_phases(work)) return launch;
  // Threads.
  const int outputs = sizes.channels * repeat, units = weighing_units(work, sizes.tap_rows) * outputs;
  cut.splits = sizes.splits > 0 ? sizes.splits : std::max(1, sizes.threads / units);
  if (std::int64_t{units} * cut.splits > sizes.threads) return launch;

  work.images = static_cast<int>(images);
  work.channels = static_cast<int>(channels);
  cut.channels = sizes.channels, cut.images = sizes.images;
  cut.channel_blocks = static_cast<int>(ceiling(channels, sizes.channels));
  // Planes.
  cut_phase_columns(w, sizes.columns, phase_window(sizes.columns, w.most_taps()), cut);
  const auto odd = [](int floats) { return static_cast<int>((ceiling(floats, kVector) | 1) * kVector); };
  cut.row = odd(w.step() * cut.phase);
  cut.target_phase = cut.tiles * sizes.columns;
  cut.target_row = odd(w.classes() * cut.target_phase);
  cut_phase_bands(work, sizes.band, cut);
  if (std::max(std::int64_t{cut.source_rows} * cut.row, std::int64_t{cut.target_rows} * cut.target_row) >
      kMostPlane)
    return launch;
  cut.plane = static_cast<int>(apart_in_banks(std::int64_t{cut.source_rows} * cut.row, sizes.channels));
  cut.target_plane =
      static_cast<int>(apart_in_banks(std::int64_t{cut.target_rows} * cut.target_row, outputs));
  const int class_rows = static_cast<int>(ceiling(cut.target_rows, h.classes()));
  const std::int64_t strips = std::int64_t{sizes.images} * h.classes() * w.classes() * cut.tiles;
  cut.row_groups = static_cast<int>(ceiling(
      class_rows, sizes.strip_rows > 0 ? sizes.strip_rows
                                       : strip_rows_for(class_rows, strips, cut.splits, sizes.tap_rows)));
  cut.strip_rows = static_cast<int>(ceiling(class_rows, cut.row_groups));

  const int of_row = channels_last ? sizes.channels : 1;
  cut.source_raw = cut_phase_raw(w.sources, w.source_every, of_row, sizes.source_pieces, sizes.source_word,
                                 sizes.source_alignment, number_bytes, sizes.threads);
  cut.target_raw =
      cut_phase_raw(w.targets, 1, std::int64_t{of_row} * (channels_last ? repeat : 1), sizes.target_pieces,
                    sizes.target_word, sizes.target_alignment, number_bytes, sizes.threads);
  cut.by_tiles = divisor_of(cut.tiles), cut.by_row_groups = divisor_of(cut.row_groups);
  cut.by_channels = divisor_of(outputs);
  cut.by_step_w = divisor_of(w.step());
  cut.by_classes_h = divisor_of(h.classes()), cut.by_classes_w = divisor_of(w.classes());
  const std::int64_t items = ceiling(images, sizes.images) * work.residues * cut.bands;
  if (!share_items(work, launch, items, wanted_blocks)) return launch;
  const std::int64_t planes = std::int64_t{sizes.images} * (std::int64_t{sizes.channels} * cut.plane +
                                                            std::int64_t{outputs} * cut.target_plane);
  const std::int64_t sums = (std::int64_t{sizes.tap_rows} * w.most_taps() + (bias ? 1 : 0)) * sizes.threads;
  cut.source_list = (channels_last ? 1 : sizes.channels) * sizes.images * cut.source_rows;
  cut.target_list = (channels_last ? 1 : outputs) * sizes.images * cut.target_rows;
  const std::int64_t x_raw = bytes_of(cut.source_raw, cut.source_list, sizes.source_word),
                     g_raw = bytes_of(cut.target_raw, cut.target_list, sizes.target_word);
  if (std::max(x_raw, g_raw) > kMostPlane) return {};
  cut.source_bytes = static_cast<int>(x_raw), cut.target_bytes = static_cast<int>(g_raw);
  launch.shared_bytes =
      (std::int64_t{cut.source_list} + cut.target_list) * 16 + x_raw + g_raw + std::max(planes, sums) * 4;
  launch.threads = sizes.threads;
  return launch;
}

}  // namespace lamella::depthwise
