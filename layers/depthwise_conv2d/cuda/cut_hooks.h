#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_boxes.h"

/// What a store hook (device/hooks.cuh) adds to a launch: its parts, and the shared memory in which a block's
/// threads meet. For norm sums x is in shared memory: their launch is that of a kernel that makes the
/// weight's gradient, too.
namespace lamella::depthwise {

/// Floats of a part of a channel.
inline constexpr int kMomentFloats = 3, kNormSumFloats = 2;

/// Many parts are added up in two steps: first in so many chunks; 0: at once.
inline std::int64_t hook_chunks(std::int64_t parts) {
  constexpr std::int64_t kAtOnce = 512, kOfChunk = 128, kMostChunks = 64;
  return parts <= kAtOnce ? 0 : std::min(kMostChunks, ceiling(parts, kOfChunk));
}

inline void add_statistics_pixels(const PixelCut& cut, int block_channels, int repeat, Launch& launch) {
  launch.hook_parts = launch.blocks / cut.channel_blocks;
  launch.shared_bytes =
      std::max(launch.shared_bytes, std::int64_t{cut.groups} * block_channels * repeat * kMomentFloats * 4);
}

/// Every plane of an image, or band of one, is a part.
inline void add_statistics_planes(const PlaneCut& cut, std::int64_t images, Launch& launch) {
  launch.hook_parts = images * cut.bands;
  launch.shared_bytes = round_up(launch.shared_bytes, 4) + std::int64_t{launch.threads} * kMomentFloats * 4;
}

/// The sums of a block lie where its pages were.
inline void add_statistics_runs(const PlaneWork& work, int number_bytes, Launch& launch) {
  launch.hook_parts = launch.blocks / ceiling(work.channels, work.cut.planes);
  launch.shared_bytes =
      std::max<std::int64_t>(launch.shared_bytes, std::int64_t{work.cut.zeros} * number_bytes +
                                                      std::int64_t{launch.threads} * kMomentFloats * 4);
}

/// What warps have of each of a block's channels lies where its pages were.
inline void add_statistics_boxes(const BoxTileSizes& tile, Launch& launch) {
  launch.hook_parts = launch.parts;
  launch.parts = 0;
  launch.shared_bytes = std::max<std::int64_t>(
      launch.shared_bytes, 1024 + std::int64_t{tile.blocks} * tile.channels * kMomentFloats * 4);
}
/// Warps that transform pages, and their barriers (forward).
inline void add_transform_boxes(const BoxTileSizes& tile, Launch& launch) {
  launch.threads += 32 * transforming_warps(tile.blocks * tile.warp_groups());
  launch.shared_bytes += 8 * tile.pages;
}
/// Of any family. `weight`: its gradient is really made.
inline void add_norm_sums(bool weight, Launch& launch) {
  launch.hook_parts = launch.parts;
  if (!weight) launch.parts = 0;
}

}  // namespace lamella::depthwise
