#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_phases.h"

/// How planes whose rows roll through registers (device/rolling_planes.cuh) are shared out.
namespace lamella::depthwise {

/// What a thread and a block have. Channels are those of x.
struct RollingPlaneSizes : PhaseShareSizes {
  int rows = 1, columns = 4;  ///< of a thread; rows: of targets, or, for the weight's gradient, of taps
  int strip_rows = 1;         ///< weight gradient: of a class, that a thread walks down at once
  int buffers = 2;            ///< items whose rows are there at a time
  /// How rows lie; targets: of the weight's gradient. See work.cuh.
  int source_form = kShifted, target_form = kShifted;
  /// By how many words rows and planes are longer than they must be, so that lanes meet in few banks, and in
  /// how many wavefronts a warp then loads a number a lane: see pad_rolling_planes(). Of targets, in
  /// vectors as they are stored, and by numbers.
  int more_row = 0, more_plane = 0, wavefronts = 1;
  int more_target = 0, target_wavefronts = 1;
  int more_target_row = 0;  ///< weight gradient: words
};

/// What is between lanes of a warp, in units of what is to be padded.
struct RollingLane {
  int plane = 0, row = 0;
  std::int64_t bytes = 0;  ///< in the row
  friend bool operator==(const RollingLane& a, const RollingLane& b) {
    return a.plane == b.plane && a.row == b.row && a.bytes / 4 == b.bytes / 4;
  }
};

/// The first warp's lanes that do not read the same word.
struct RollingLanes {
  static constexpr int kLanes = 32;
  std::array<RollingLane, kLanes> lanes;
  int count = 0;
  void add(const RollingLane& lane) {
    const auto end = lanes.begin() + count;
    if (std::find(lanes.begin(), end, lane) == end) lanes[static_cast<std::size_t>(count++)] = lane;
  }
  /// Wavefronts in which they read a number each.
  int wavefronts(std::int64_t plane_bytes, std::int64_t row_bytes) const {
    constexpr std::int64_t kBanks = 32;
    std::array<std::int8_t, kBanks> meet{};
    int most = 1;
    for (int i = 0; i < count; ++i) {
      const RollingLane& lane = lanes[static_cast<std::size_t>(i)];
      const std::int64_t word = (lane.plane * plane_bytes + lane.row * row_bytes + lane.bytes) / 4;
      most = std::max<int>(most, ++meet[static_cast<std::size_t>((word % kBanks + kBanks) % kBanks)]);
    }
    return most;
  }
};

/// Settles by how much rows and planes of sources are longer than they must be. `row_bytes`: of one, at
/// least; rows: of a plane.
inline void pad_rolling_planes(const RollingLanes& lanes, int word, std::int64_t row_bytes, int rows,
                               int& more_row, int& more_plane, int& wavefronts) {
  constexpr int kWords = 32, kMostRow = 4;
  const int unit = word / 4;
  more_row = more_plane = wavefronts = 0;
  // Longer rows take more room than longer planes.
  for (int of_row = 0; of_row < kMostRow * unit; of_row += unit)
    for (int of_plane = 0; of_plane < kWords; of_plane += unit) {
      const std::int64_t row = row_bytes + of_row * 4, plane = rows * row + of_plane * 4;
      const int count = lanes.wavefronts(plane, row);
      if (wavefronts > 0 && count >= wavefronts) continue;
      wavefronts = count, more_row = of_row, more_plane = of_plane;
      if (count == 1) return;
    }
}

/// Words of a row that is one piece, and bytes before the first row. With zeros beside it, `before` and
/// `behind` columns are read that do not exist; what is behind a row is before the next, too.
struct RollingRow {
  int words = 0, front = 0;
  RollingRow(const PhaseRaw& raw, int word, bool pads, std::int64_t before, std::int64_t behind,
             int number_bytes) {
    std::int64_t bytes = std::int64_t{raw.piece_words} * word;
    if (pads) {
      bytes = std::max(bytes + before * raw.column_bytes, raw.piece_bytes + behind * raw.column_bytes);
      bytes = round_up(std::max<std::int64_t>(bytes, number_bytes), word);
      front = static_cast<int>(round_up(before * raw.column_bytes, 16));
    }
    words = static_cast<int>(std::min(bytes / 4, kMostPlane));
  }
};
inline RollingRow row_of_sources(const PhaseWork& work, const RollingPlaneSizes& sizes, int number_bytes) {
  const PhaseAxis& w = work.w;
  int before = 0, behind = 0;
  for (int of_class = 0; of_class < w.classes(); ++of_class)
    for (int number = 0; number < w.groups(); ++number) {
      const PhaseAxis::Group group = w.group(of_class, number);
      if (group.taps == 0) continue;
      const auto columns = static_cast<int>(round_up(w.targets_of(of_class), sizes.columns));
      const int last = group.first + (columns + w.most_taps() - 2) * w.step();
      before = std::max(before, -group.first), behind = std::max(behind, last + 1 - w.sources);
    }
  return {work.cut.source_raw, sizes.source_word, sizes.source_form == kPadded, before, behind, number_bytes};
}
inline RollingRow row_of_gradients(const PhaseWork& work, const RollingPlaneSizes& sizes, int number_bytes) {
  const PhaseAxis& w = work.w;
  int behind = 0;
  for (int of_class = 0; of_class < w.classes(); ++of_class) {
    const auto columns = static_cast<int>(round_up(w.targets_of(of_class), sizes.columns));
    behind = std::max(behind, of_class + (columns - 1) * w.classes() + 1 - w.targets);
  }
  return {work.cut.target_raw, sizes.target_word, sizes.target_form == kPadded, 0, behind, number_bytes};
}

/// What both launches begin with; false: it cannot be. targets: channels of targets for one of x; class_rows:
/// of a unit.
inline bool begin_rolling_planes(PhaseWork& work, std::int64_t images, std::int64_t channels, int targets,
                                 const RollingPlaneSizes& sizes, int class_rows, int number_bytes) {
  const PhaseAxis &h = work.h, &w = work.w;
  PhaseCut& cut = work.cut;
  if (!can_cut_phases(work)) return false;
  work.images = static_cast<int>(images);
  work.channels = static_cast<int>(channels * targets);
  cut.channels = sizes.channels * targets, cut.images = sizes.images;
  cut.channel_blocks = static_cast<int>(ceiling(channels, sizes.channels));
  cut.rolling.buffers = sizes.buffers;
  cut_phase_bands(work, sizes.band, cut);
  cut.tiles = static_cast<int>(ceiling(w.targets_of(0), sizes.columns));
  const std::int64_t rows = ceiling(std::min(cut.band, h.targets), h.classes());
  cut.row_groups = static_cast<int>(ceiling(rows, class_rows));
  cut.source_raw = cut_phase_raw(w.sources, w.source_every, 1, false, sizes.source_word,
                                 sizes.source_alignment, number_bytes, sizes.threads);
  const RollingRow row = row_of_sources(work, sizes, number_bytes);
  cut.rolling.source_row = row.words, cut.rolling.source_front = row.front;
  const int of_window =
      (sizes.columns + w.most_taps() - 2) * std::max(w.step() * w.source_every, w.classes());
  const bool pads = sizes.source_form == kPadded || sizes.target_form == kPadded;
  cut.rolling.zero_bytes = pads ? static_cast<int>(round_up((of_window + 1) * number_bytes, 16)) : 0;
  cut.by_images = divisor_of(cut.images);
  set_unit_divisors(work);
  return true;
}
/// Lays out planes of sources, `planes` of an item; false: they are too large.
inline bool lay_rolling_sources(PhaseCut& cut, const RollingPlaneSizes& sizes, std::int64_t planes) {
  RollingPlaneCut& rolling = cut.rolling;
  rolling.source_row += sizes.more_row;
  const std::int64_t plane = std::int64_t{cut.source_rows} * rolling.source_row + sizes.more_plane;
  if (plane * planes * 4 > kMostPlane) return false;
  rolling.source_plane = static_cast<int>(plane);
  cut.source_bytes = static_cast<int>(rolling.source_front + round_up(plane * planes * 4, 16));
  cut.source_list = static_cast<int>(planes * cut.source_rows);
  return true;
}

/// The launch of correlate_rolling_planes. channels: of x. No blocks: it cannot be.
inline Launch cut_correlate_rolling_planes(PhaseWork& work, std::int64_t images, std::int64_t channels,
                                           int repeat, const RollingPlaneSizes& sizes, int number_bytes,
                                           std::int64_t wanted_blocks) {
  const PhaseAxis &h = work.h, &w = work.w;
  PhaseCut& cut = work.cut;
  Launch launch;
  const int sources = w.scatters ? repeat : 1, targets = w.scatters ? 1 : repeat;
  if (!begin_rolling_planes(work, images, channels, targets, sizes, sizes.rows, number_bytes)) return launch;
  const std::int64_t planes = std::int64_t{sizes.images} * sizes.channels;
  if (!lay_rolling_sources(cut, sizes, planes * sources)) return launch;
  const std::int64_t result_plane =
      round_up(std::int64_t{cut.target_rows} * work.target_w, sizes.target_vector) +
      std::int64_t{sizes.more_target} * sizes.target_vector;
  if (result_plane * planes * targets > kMostPlane) return launch;
  cut.rolling.result_plane = static_cast<int>(result_plane);
  cut.target_list = static_cast<int>(planes * targets * cut.target_rows);
  cut.store_lanes = lanes_for(work.target_w / sizes.target_vector, sizes.threads);
  const std::int64_t items = ceiling(images, sizes.images) * work.residues * cut.bands;
  if (!share_items(work, launch, items, wanted_blocks)) return {};
  launch.parts = 0;  // of no sum
  const std::int64_t listed = cut.rolling.zero_bytes / 16 + work.residues * h.classes() * h.groups() +
                              w.classes() * w.groups() + std::int64_t{cut.source_list} + cut.target_list;
  launch.shared_bytes =
      16 * (listed + std::int64_t{sources} * h.kernel * w.sets() * ceiling(w.most_taps(), 4) * cut.channels) +
      std::int64_t{cut.rolling.buffers} * cut.source_bytes +
      round_up(planes * targets * cut.rolling.result_plane * number_bytes, 16);
  launch.threads = sizes.threads;
  return launch;
}

/// Makes rows and planes somewhat longer, so that lanes of correlate_rolling_planes meet in few banks: of
/// sources where they load, of targets where they leave sums.
inline void pad_for_correlation(PhaseWork work, int repeat, RollingPlaneSizes& sizes, int number_bytes) {
  const PhaseAxis &h = work.h, &w = work.w;
  const int sources = w.scatters ? repeat : 1, targets = w.scatters ? 1 : repeat;
  sizes.more_row = sizes.more_plane = sizes.more_target = 0;
  if (!begin_rolling_planes(work, sizes.images, sizes.channels, targets, sizes, sizes.rows, number_bytes))
    return;
  const PhaseCut& cut = work.cut;
  RollingLanes of_sources, of_targets;
  for (int lane = 0; lane < RollingLanes::kLanes; ++lane) {
    int number = lane;
    const int channel = take_digit(number, cut.channels, cut.by_channels);
    const RollingPlaneUnit unit(work, number);
    if (unit.class_h >= h.classes()) break;  // of fewer units than lanes
    const int plane = unit.image * cut.channels + channel;
    const int left = unit.tile * sizes.columns, top = unit.row_group * sizes.rows;
    const std::int64_t column = w.group(unit.class_w, 0).first + std::int64_t{left} * w.step();
    of_sources.add({plane / targets * sources, h.group(unit.class_h, 0).first + top * h.step(),
                    column * w.source_every * number_bytes});
    const std::int64_t to_row = (unit.class_h + top * h.classes()) * h.target_every,
                       to_column = (unit.class_w + left * w.classes()) * w.target_every;
    of_targets.add({plane, 0, (to_row * work.target_w + to_column) * number_bytes});
  }
  pad_rolling_planes(of_sources, sizes.source_word, cut.rolling.source_row * std::int64_t{4}, cut.source_rows,
                     sizes.more_row, sizes.more_plane, sizes.wavefronts);
  const std::int64_t vector = std::int64_t{sizes.target_vector} * number_bytes,
                     plane = round_up(std::int64_t{cut.target_rows} * work.target_w * number_bytes, vector);
  constexpr int kBankBytes = 128;
  sizes.target_wavefronts = 0;
  for (int more = 0; more * vector < kBankBytes; ++more) {
    const int count = of_targets.wavefronts(plane + more * vector, 0);
    if (sizes.target_wavefronts > 0 && count >= sizes.target_wavefronts) continue;
    sizes.target_wavefronts = count, sizes.more_target = more;
  }
}

/// Lays out planes of targets for the weight's gradient, as lay_rolling_sources() does.
inline bool lay_rolling_gradients(PhaseWork& work, const RollingPlaneSizes& sizes, std::int64_t planes,
                                  int number_bytes) {
  const PhaseAxis& w = work.w;
  PhaseCut& cut = work.cut;
  cut.target_raw = cut_phase_raw(w.targets, 1, 1, false, sizes.target_word, sizes.target_alignment,
                                 number_bytes, sizes.threads);
  cut.rolling.target_row = row_of_gradients(work, sizes, number_bytes).words + sizes.more_target_row;
  const std::int64_t plane = std::int64_t{cut.target_rows} * cut.rolling.target_row + sizes.more_target;
  if (plane * planes * 4 > kMostPlane) return false;
  cut.rolling.target_plane = static_cast<int>(plane);
  cut.target_bytes = static_cast<int>(round_up(plane * planes * 4, 16));
  cut.target_list = static_cast<int>(planes * cut.target_rows);
  return true;
}

/// The launch of weigh_rolling_planes; axes are those of the output. channels: of x. No blocks: it cannot be.
inline Launch cut_weigh_rolling_planes(PhaseWork& work, std::int64_t images, std::int64_t channels,
                                       int repeat, bool bias, const RollingPlaneSizes& sizes,
                                       int number_bytes, std::int64_t wanted_blocks) {
  PhaseCut& cut = work.cut;
  Launch launch;
  if (!begin_rolling_planes(work, images, channels, repeat, sizes, sizes.strip_rows, number_bytes))
    return launch;
  cut.strip_rows = sizes.strip_rows;
  const int units = weighing_units(work, sizes.rows) * cut.channels;
  if (units > sizes.threads) return launch;
  cut.splits = sizes.threads / units;
  const std::int64_t planes = std::int64_t{sizes.images} * sizes.channels;
  if (!lay_rolling_sources(cut, sizes, planes) ||
      !lay_rolling_gradients(work, sizes, planes * repeat, number_bytes))
    return launch;
  const std::int64_t items = ceiling(images, sizes.images) * work.residues * cut.bands;
  if (!share_items(work, launch, items, wanted_blocks)) return {};
  const std::int64_t sums =
      (std::int64_t{sizes.rows} * work.w.most_taps() + (bias ? 1 : 0)) * sizes.threads * 4;
  launch.shared_bytes =
      16 * (std::int64_t{cut.source_list} + cut.target_list) +
      std::max(cut.rolling.zero_bytes +
                   std::int64_t{cut.rolling.buffers} * (std::int64_t{cut.source_bytes} + cut.target_bytes),
               sums);
  launch.threads = sizes.threads;
  return launch;
}

/// As pad_for_correlation(), of both tensors that threads of weigh_rolling_planes load.
inline void pad_for_weighing(PhaseWork work, int repeat, RollingPlaneSizes& sizes, int number_bytes) {
  const PhaseAxis &h = work.h, &w = work.w;
  sizes.more_row = sizes.more_plane = sizes.more_target_row = sizes.more_target = 0;
  PhaseCut& cut = work.cut;
  if (!begin_rolling_planes(work, sizes.images, sizes.channels, repeat, sizes, sizes.strip_rows,
                            number_bytes) ||
      !lay_rolling_gradients(work, sizes, 1, number_bytes))
    return;
  cut.splits = std::max(1, sizes.threads / (weighing_units(work, sizes.rows) * cut.channels));
  RollingLanes of_sources, of_targets;
  for (int lane = 0; lane < RollingLanes::kLanes; ++lane) {
    const RollingTapUnit taps(work, lane);
    const RollingPlaneUnit strip(work, taps.split);
    if (strip.class_h >= h.classes()) continue;  // of fewer strips than threads
    const int left = strip.tile * sizes.columns, top = strip.row_group * sizes.strip_rows;
    const std::int64_t column = w.group(strip.class_w, taps.set_w).first + std::int64_t{left} * w.step();
    of_sources.add({strip.image * sizes.channels + taps.channel / repeat,
                    h.group(strip.class_h, taps.set_h).first + (top + taps.round * sizes.rows) * h.step(),
                    column * w.source_every * number_bytes});
    of_targets.add({strip.image * cut.channels + taps.channel, strip.class_h + top * h.classes(),
                    (strip.class_w + std::int64_t{left} * w.classes()) * number_bytes});
  }
  constexpr std::int64_t kWord = 4;
  pad_rolling_planes(of_sources, sizes.source_word, cut.rolling.source_row * kWord, cut.source_rows,
                     sizes.more_row, sizes.more_plane, sizes.wavefronts);
  pad_rolling_planes(of_targets, sizes.target_word, cut.rolling.target_row * kWord, cut.target_rows,
                     sizes.more_target_row, sizes.more_target, sizes.target_wavefronts);
}

}  // namespace lamella::depthwise
