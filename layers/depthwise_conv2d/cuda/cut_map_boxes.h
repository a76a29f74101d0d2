#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_boxes.h"

/// How boxes of whole maps are shared out among blocks, and moved.
namespace lamella::depthwise {

/// A MapTile, as numbers.
struct MapTileSizes {
  int width, in_rows, out_rows, lead, bands, channels, warp_channels, turns, groups, pages;

  int units() const { return width; }
  int step_rows() const { return out_rows; }
  int rows_at_once() const { return 16 / width; }
  int images() const { return groups * 8 / bands; }
  int band_rows() const { return static_cast<int>(ceiling(out_rows, bands)); }
  int consumers() const { return groups * channels / (warp_channels * turns); }
  int page_rows(const KernelSizes& kernel) const {
    return bands == 1 ? static_cast<int>(round_up(std::max(in_rows, out_rows), rows_at_once()))
                      : bands * band_rows() + kernel.kernel_h - 1;
  }
  /// As MapBoxes has them: sixteens of results and of sources, and the matrices that they meet in.
  int results() const { return static_cast<int>(ceiling(band_rows(), rows_at_once())); }
  int sources(const KernelSizes& kernel) const {
    return bands == 1 ? static_cast<int>(ceiling(in_rows, rows_at_once()))
                      : band_rows() + kernel.kernel_h - 1;
  }
  int shift() const { return bands == 1 ? lead : 0; }
  int lowest() const { return std::max(-((shift() + rows_at_once() - 1) / rows_at_once()), 1 - results()); }
  int highest(const KernelSizes& kernel) const {
    return std::min((kernel.kernel_h + rows_at_once() - 2 - shift()) / rows_at_once(), sources(kernel) - 1);
  }
  int matrices(const KernelSizes& kernel) const { return highest(kernel) - lowest() + 1; }
};

/// Whether a problem is of maps of so many rows, with so much padding above, and not more columns; without
/// steps, and with less padding than would leave a result without inputs.
inline bool is_whole_map(const Axis& h, const Axis& w, int in_rows, int out_rows, int lead, int columns,
                         const KernelSizes& kernel) {
  const bool has_steps = std::max({h.output_step, w.output_step, h.input_step, w.input_step, kernel.stride_h,
                                   kernel.stride_w}) > 1;
  return !has_steps && h.input == in_rows && h.output == out_rows && -h.origin(0) == lead && lead >= 0 &&
         lead < kernel.kernel_h && -w.origin(0) >= 0 && -w.origin(0) < kernel.kernel_w &&
         std::max(w.input, w.output) <= columns;
}

/// The launch of forward_map_boxes, and its boxes; no blocks: they do not fit.
inline BoxPlan cut_map_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                             const KernelSizes& kernel, const MapTileSizes& tile, std::int64_t most_blocks) {
  constexpr int kMostThreads = 1024;
  const Axis &h = work.h, &w = work.w;
  cut_boxes(work.cut, images, channels, tile, w.output, h.output, tile.out_rows);
  BoxPlan plan;
  if (!is_whole_map(h, w, tile.in_rows, tile.out_rows, tile.lead, tile.width, kernel)) return plan;
  plan.x = {tile.channels, tile.width, tile.page_rows(kernel), tile.images()};
  plan.y = tile.bands == 1 ? plan.x : BoxSizes{tile.channels, tile.width, tile.out_rows, 1};
  if (!fits(plan.x) || !fits(plan.y)) return plan;
  plan.launch.threads = 32 * (tile.consumers() + 1);
  if (plan.launch.threads > kMostThreads ||
      !share_items_among(work, plan.launch, items_of(work, ceiling(images, tile.images())), most_blocks))
    return plan;
  plan.launch.shared_bytes = 1024 + tile.pages * (box_bytes(plan.x) + 16) +
                             tile.channels * (kernel.kernel_h * (2 * tile.width - 2) * 4 + 4 +
                                              kernel.kernel_h * kernel.kernel_w * 2);
  return plan;
}

}  // namespace lamella::depthwise
