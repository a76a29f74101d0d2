#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_boxes.h"

/// How boxes that are multiplied by Toeplitz matrices are shared out among blocks, and moved.
namespace lamella::depthwise {

/// A ToeplitzTile, as numbers.
struct ToeplitzTileSizes {
  int tiles, rows, high, wide, across, image_groups, channels, page_rows, pages;
  bool whole;
  int box_columns = 0;
  bool asks = false;  ///< ToeplitzTile::kAsks

  int deep() const { return 16 / (high * wide); }
  int images() const { return image_groups * deep(); }
  int groups() const { return image_groups * across; }
  int step_rows() const { return high * rows; }
  int columns() const { return wide * tiles * 8; }
  int units() const { return across * columns(); }
  int consumers() const { return groups() * channels / 8; }
  int in_rows(const KernelSizes& kernel) const {
    return (step_rows() - 1) * kernel.stride_h + kernel.kernel_h;
  }
  int reach(const KernelSizes& kernel) const {
    return whole ? 1 : static_cast<int>(ceiling(in_rows(kernel), page_rows));
  }
};

/// Eights of columns that a product reads, and the words that a lane has of a row of taps: see
/// ForwardToeplitzBoxes.
inline int toeplitz_window(const KernelSizes& kernel) {
  return std::max(2, (7 * kernel.stride_w + kernel.kernel_w + 7) / 8);
}
inline int toeplitz_words(const KernelSizes& kernel) {
  return kernel.kernel_w <= (kernel.stride_w == 1 ? 7 : 8) ? 1 : toeplitz_window(kernel);
}

/// ToeplitzTile::kBoxColumns.
inline int narrow_toeplitz_boxes(const PixelWork& work, const KernelSizes& kernel,
                                 const ToeplitzTileSizes& tile) {
  const Axis& axis = work.w;
  const auto columns = static_cast<int>(ceiling(axis.output, axis.output_step));
  const auto reads = [&](int results) { return (results - 1) * kernel.stride_w + kernel.kernel_w; };
  if (columns > tile.units()) return 0;
  return narrow_boxes(reads(columns), reads(tile.units()), axis, [&](int residue, int before, int behind) {
    return axis.input_begin(residue) >= before && axis.input_end(residue) <= behind;
  });
}

/// The launch of forward_toeplitz_boxes, and its boxes; no blocks: they do not fit.
inline BoxPlan cut_toeplitz_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                                  const KernelSizes& kernel, const ToeplitzTileSizes& tile,
                                  std::int64_t strip_rows, std::int64_t most_blocks) {
  constexpr int kMostGroups = 14, kMostThreads = 1024;  // a block has no more barriers
  const std::int64_t rows = ceiling(work.h.output, work.h.output_step),
                     columns = ceiling(work.w.output, work.w.output_step);
  cut_boxes(work.cut, images, channels, tile, columns, rows, strip_rows);
  const PixelCut& cut = work.cut;
  BoxPlan plan;
  const int in_rows = tile.in_rows(kernel), step = tile.step_rows() * kernel.stride_h;
  const std::int64_t needed =
      (std::min<std::int64_t>(rows, tile.step_rows()) - 1) * kernel.stride_h + kernel.kernel_h;
  if (tile.whole ? cut.strip_rows > tile.step_rows() || tile.page_rows < needed || tile.page_rows > in_rows
                 : step % tile.page_rows != 0)
    return plan;
  if (tile.channels * kernel.repeat > 64) return plan;
  if (tile.pages < tile.reach(kernel) || tile.groups() > kMostGroups) return plan;
  if (tile.box_columns > 0 && tile.box_columns != narrow_toeplitz_boxes(work, kernel, tile)) return plan;
  const int read = (tile.units() - 1) * kernel.stride_w + kernel.kernel_w;
  plan.x = {tile.channels,     tile.box_columns > 0 ? tile.box_columns : static_cast<int>(round_up(read, 8)),
            tile.page_rows,    tile.images(),
            work.w.input_step, work.h.input_step};
  plan.y = {tile.channels * kernel.repeat,
            tile.columns(),
            tile.step_rows(),
            tile.deep(),
            work.w.output_step,
            work.h.output_step};
  if (!fits(plan.x) || !fits(plan.y)) return plan;
  plan.launch.threads = 32 * (tile.consumers() + (tile.asks ? 0 : 1));
  const std::int64_t unread = std::int64_t{in_rows - tile.page_rows} * plan.x.pixels * tile.channels * 2;
  if (tile.whole && unread > tile.groups() * box_bytes(plan.y)) return plan;
  if (plan.launch.threads > kMostThreads ||
      !share_items_among(work, plan.launch, items_of(work, ceiling(images, tile.images())), most_blocks))
    return plan;
  const int words = toeplitz_words(kernel),
            entries = words == 1 ? 8 : 7 + 7 * kernel.stride_w + 8 * (words - 1);
  const std::int64_t taps =
      round_up(std::int64_t{2} * tile.channels * kernel.repeat * kernel.kernel_h * kernel.kernel_w, 1024);
  plan.launch.shared_bytes =
      1024 + tile.pages * (box_bytes(plan.x) + 16) + std::max(tile.groups() * box_bytes(plan.y), taps) +
      tile.channels / 8 * kernel.repeat * (kernel.kernel_h * 32 * entries + 32) + (tile.asks ? 32 : 0);
  return plan;
}

}  // namespace lamella::depthwise
