#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"
#include "layers/depthwise_conv2d/cuda/device/position_sizes.cuh"

/// How small planes are shared out among blocks that multiply them by matrix units, a number of images at
/// once.
namespace lamella::depthwise {

/// A PositionTile, as numbers, but for its planes, which PositionSizes have.
struct PositionTileSizes {
  int units, image_steps, pages;
  int images() const { return 16 * image_steps; }
};

/// What one copy moves of planes that lie one after the other, of each of some images: bytes from a multiple
/// of sixteen on. Without images each image's run is moved by itself.
struct ImageRuns {
  int bytes = 0, images = 0;
};
/// Those of a page whose images' runs have so many chunks.
inline ImageRuns image_runs(const PositionSizes& sizes, const PositionTileSizes& tile, int pitch) {
  if (!PositionLayout::moves_at_once(sizes.periodic, pitch)) return {};
  return {16 * pitch, tile.images()};
}

/// Shares out images and groups of planes; of images a block has at most so many items. False: there are too
/// many.
inline bool cut_positions(PlaneWork& work, Launch& launch, std::int64_t images, std::int64_t channels,
                          int planes, const PositionTileSizes& tile, std::int64_t most_items,
                          std::int64_t wanted_blocks) {
  work.cut.planes = planes;
  work.cut.images = static_cast<int>(images);
  work.channels = static_cast<int>(channels);
  return share_items(work, launch, ceiling(images, tile.images()), wanted_blocks, most_items);
}

/// The launch of forward_positions or backward_positions, of a layout of eights in steps of two; no blocks:
/// it has too many warps.
inline Launch cut_correlate_positions(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                      const PositionSizes& sizes, const PositionLayout& layout,
                                      const PositionTileSizes& tile, std::int64_t wanted_blocks) {
  constexpr std::int64_t kChunk = 16, kNumber = 2;
  Launch launch;
  if (layout.warps >= PositionLayout::kMostWarps ||
      layout.source_pitch > layout.result_pitch * tile.images() ||
      !cut_positions(work, launch, images, channels, sizes.planes, tile, kMostItems, wanted_blocks))
    return launch;
  launch.parts = 0;
  launch.threads = 32 * (layout.warps + 1);
  launch.shared_bytes =
      tile.images() * kChunk * (std::int64_t{layout.source_pitch} * tile.pages + 2 * layout.result_pitch) +
      16 * tile.pages + round_up(sizes.planes * (4 + kNumber * (sizes.tap_places() + 1)), kChunk);
  return launch;
}

/// The launch of weigh_positions, of a layout of sixteens in single steps.
inline Launch cut_weigh_positions(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                  const PositionSizes& sizes, const PositionLayout& layout,
                                  const PositionTileSizes& tile, bool bias, std::int64_t wanted_blocks) {
  constexpr std::int64_t kChunk = 16, kWord = 4, kShares = 8;
  constexpr std::int64_t kLongestChain = 32;  // products that the matrix units add up, but an item at least
  const std::int64_t of_item = std::int64_t{tile.image_steps} * layout.periods;
  Launch launch;
  if (layout.warps >= PositionLayout::kMostWarps ||
      !cut_positions(work, launch, images, channels, sizes.planes, tile,
                     std::max<std::int64_t>(1, kLongestChain / of_item), wanted_blocks))
    return launch;
  launch.threads = 32 * (layout.warps + 1);
  const std::int64_t units = std::int64_t{layout.warps} * tile.units;
  const std::int64_t pages =
      tile.images() * kChunk * (std::int64_t{layout.source_pitch} + layout.result_pitch) * tile.pages +
      16 * tile.pages;
  const std::int64_t sums =
      kWord * (128 * std::int64_t{layout.warps} * layout.products + (bias ? 16 : 0) * units +
               kShares * sizes.planes * (sizes.h.kernel * sizes.w.kernel + 1) + units);
  launch.shared_bytes = std::max(pages, sums);
  return launch;
}

}  // namespace lamella::depthwise
