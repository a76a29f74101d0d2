#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_phases.h"

/// How problems of rows that roll through registers (device/rolling.cuh) are shared out.
namespace lamella::depthwise {

/// What a thread and a block have.
struct RollingSizes {
  int threads = 256;
  int channels = 1;           ///< of targets, or of y, of a block
  int rows = 1, columns = 4;  ///< of a thread; rows: of targets, or, for the weight's gradient, of taps
  int strip_rows = 1;         ///< weight gradient: of a class, that a thread walks down at once
};

/// What both launches begin with. False: it cannot be.
inline bool begin_rolling(PhaseWork& work, std::int64_t images, std::int64_t channels,
                          const RollingSizes& sizes, int class_rows) {
  const PhaseAxis &h = work.h, &w = work.w;
  PhaseCut& cut = work.cut;
  if (!can_cut_phases(work)) return false;
  work.images = static_cast<int>(images);
  work.channels = static_cast<int>(channels);
  cut.channels = sizes.channels;
  cut.channel_blocks = static_cast<int>(ceiling(channels, sizes.channels));
  cut.tiles = static_cast<int>(ceiling(w.targets_of(0), sizes.columns));
  cut.row_groups = static_cast<int>(ceiling(h.targets_of(0), class_rows));
  set_unit_divisors(work);
  return true;
}
/// Tiles of all classes and images.
inline std::int64_t rolling_units(const PhaseWork& work) {
  return std::int64_t{work.cut.tiles} * work.cut.row_groups * work.w.classes() * work.h.classes() *
         work.images;
}

/// The launch of correlate_rolling. channels: of targets; sources: channels that one of them reads. No
/// blocks: it cannot be.
inline Launch cut_correlate_rolling(PhaseWork& work, std::int64_t images, std::int64_t channels, int sources,
                                    const RollingSizes& sizes, std::int64_t wanted_blocks) {
  const PhaseAxis &h = work.h, &w = work.w;
  Launch launch;
  if (!begin_rolling(work, images, channels, sizes, sizes.rows)) return launch;
  if (!share_items(work, launch, rolling_units(work), wanted_blocks)) return launch;
  constexpr std::int64_t kMostNumbers = std::int64_t{1} << 30;  // that threads of a block count
  if (std::int64_t{work.items_per_part} * sizes.channels > kMostNumbers) return {};
  launch.parts = 0;  // of no sum
  const std::int64_t groups = std::int64_t{h.classes()} * h.groups() + std::int64_t{w.classes()} * w.groups();
  launch.shared_bytes = 16 * (groups + std::int64_t{sources} * h.kernel * w.sets() *
                                           ceiling(w.most_taps(), 4) * sizes.channels);
  launch.threads = sizes.threads;
  return launch;
}

/// The launch of weigh_rolling; axes are those of the output. channels: of y. No blocks: it cannot be.
inline Launch cut_weigh_rolling(PhaseWork& work, std::int64_t images, std::int64_t channels, bool bias,
                                const RollingSizes& sizes, std::int64_t wanted_blocks) {
  PhaseCut& cut = work.cut;
  Launch launch;
  if (!begin_rolling(work, images, channels, sizes, sizes.strip_rows)) return launch;
  cut.strip_rows = sizes.strip_rows;
  const int units = weighing_units(work, sizes.rows) * sizes.channels;
  if (units > sizes.threads) return launch;
  cut.splits = sizes.threads / units;
  if (!share_items(work, launch, rolling_units(work), wanted_blocks)) return launch;
  launch.shared_bytes = (std::int64_t{sizes.rows} * work.w.most_taps() + (bias ? 1 : 0)) * sizes.threads * 4;
  launch.threads = sizes.threads;
  return launch;
}

}  // namespace lamella::depthwise
