#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_boxes.h"

/// How boxes of float32 are shared out among blocks, and moved.
namespace lamella::depthwise {

/// A FloatTile, as numbers.
struct FloatTileSizes {
  int columns, column_groups, rows, row_groups, lanes, channels, pages;
  bool whole;
  int images = 1, image_groups = 1;

  int step_rows() const { return rows * row_groups; }
  int units() const { return columns * column_groups; }
  int places() const { return column_groups * row_groups * image_groups; }
  int consumers() const { return static_cast<int>(ceiling(channels / lanes * places(), 32)); }
};

/// The launch of a kernel of float boxes whose page has these; no blocks: they do not fit.
inline void launch_float_boxes(BoxPlan& plan, PixelWork& work, std::int64_t images,
                               const FloatTileSizes& tile, std::int64_t most_blocks) {
  constexpr int kNumber = 4, kMostThreads = 1024;
  // What a place has of a channel in the end: sums of some taps, or a hook's.
  constexpr int kSumsAtOnce = 5;
  plan.launch.threads = 32 * (tile.consumers() + 1);
  if (plan.launch.threads > kMostThreads ||
      !share_items_among(work, plan.launch, items_of(work, ceiling(images, tile.images)), most_blocks))
    return;
  std::int64_t page = 16;
  for (const BoxSizes& box : {plan.x, plan.y})
    if (box.channels > 0) page += box_bytes(box, kNumber);
  plan.launch.shared_bytes =
      1024 + std::max(tile.pages * page, std::int64_t{kSumsAtOnce} * tile.places() * tile.channels * kNumber);
}

/// The launch of forward_float_boxes, and its boxes; no blocks: they do not fit.
inline BoxPlan cut_forward_float_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                                       const KernelSizes& kernel, const FloatTileSizes& tile,
                                       std::int64_t strip_rows, std::int64_t most_blocks) {
  const std::int64_t rows = ceiling(work.h.output, work.h.output_step),
                     columns = ceiling(work.w.output, work.w.output_step);
  cut_boxes(work.cut, images, channels, tile, columns, rows, strip_rows);
  BoxPlan plan;
  const int page_rows =
      page_rows_of(work.cut, tile, (tile.step_rows() - 1) * kernel.stride_h + kernel.kernel_h,
                   tile.step_rows() * kernel.stride_h);
  if (page_rows == 0) return plan;
  if ((tile.columns - 1) * kernel.stride_w + kernel.kernel_w > kMostWindow) return plan;
  plan.x = {tile.channels,     (tile.units() - 1) * kernel.stride_w + kernel.kernel_w,
            page_rows,         tile.images,
            work.w.input_step, work.h.input_step};
  if (fits(plan.x)) launch_float_boxes(plan, work, images, tile, most_blocks);
  return plan;
}

/// The launch of backward_float_boxes, and its boxes; no blocks: they do not fit. `reads_input`: pages have
/// x.
inline BoxPlan cut_backward_float_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                                        const KernelSizes& kernel, const FloatTileSizes& tile,
                                        std::int64_t strip_rows, bool reads_input, bool bias,
                                        std::int64_t most_blocks) {
  BoxPlan plan;
  work.owner_h = owner_of(work.h, kernel.stride_h, kernel.reach_h());
  work.owner_w = owner_of(work.w, kernel.stride_w, kernel.reach_w());
  const UnitRange rows = widest_class(work.h, kernel.stride_h, bias, work.owner_h);
  const UnitRange columns = widest_class(work.w, kernel.stride_w, bias, work.owner_w);
  cut_boxes(work.cut, images, channels, tile, columns.count, rows.count, strip_rows);
  const int page_rows =
      page_rows_of(work.cut, tile, tile.step_rows() + kernel.reach_h() - 1, tile.step_rows());
  if (page_rows == 0) return plan;
  if (tile.columns * kernel.stride_w > kMostWindow) return plan;
  plan.y = {tile.channels,      tile.units() + kernel.reach_w() - 1,
            page_rows,          tile.images,
            work.w.output_step, work.h.output_step};
  if (reads_input)
    plan.x = {tile.channels,
              tile.units() * kernel.stride_w,
              tile.step_rows() * kernel.stride_h,
              tile.images,
              work.w.input_step,
              work.h.input_step};
  if (fits(plan.y) && (!reads_input || fits(plan.x)))
    launch_float_boxes(plan, work, images, tile, most_blocks);
  return plan;
}

}  // namespace lamella::depthwise
