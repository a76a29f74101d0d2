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

/// Shares out items among at most so many blocks, but one for all channels.
inline bool share_items_among(PixelWork& work, Launch& launch, std::int64_t items, std::int64_t most_blocks) {
  if (items > kMostItems) return false;
  const std::int64_t channel_blocks = work.cut.channel_blocks;
  work.items = static_cast<int>(items);
  work.items_per_part =
      static_cast<int>(ceiling(items, std::max<std::int64_t>(1, most_blocks / channel_blocks)));
  launch.parts = ceiling(items, work.items_per_part);
  launch.blocks = launch.parts * channel_blocks;
  return true;
}

inline void cut_float_boxes(PixelCut& cut, std::int64_t images, std::int64_t channels,
                            const FloatTileSizes& tile, std::int64_t columns, std::int64_t rows,
                            std::int64_t strip_rows) {
  cut.channels = static_cast<int>(channels);
  cut.channel_blocks = static_cast<int>(ceiling(channels, tile.channels));
  cut.tiles = static_cast<int>(ceiling(columns, tile.units()));
  cut.strips = static_cast<int>(ceiling(rows, round_up(strip_rows, tile.step_rows())));
  cut.strip_rows = static_cast<int>(round_up(ceiling(rows, cut.strips), tile.step_rows()));
  cut.strips = static_cast<int>(ceiling(rows, cut.strip_rows));
  cut.images = static_cast<int>(images);
}

/// The launch of a kernel of float boxes whose page has these; no blocks: they do not fit.
inline void launch_float_boxes(BoxPlan& plan, PixelWork& work, std::int64_t images,
                               const FloatTileSizes& tile, std::int64_t most_blocks) {
  constexpr int kNumber = 4, kMostThreads = 1024;
  // What a place has of a channel in the end: sums of some taps, or a hook's.
  constexpr int kSumsAtOnce = 5;
  const PixelCut& cut = work.cut;
  plan.launch.threads = 32 * (tile.consumers() + 1);
  const std::int64_t items = std::int64_t{cut.tiles} * cut.strips * work.h.output_step * work.w.output_step *
                             ceiling(images, tile.images);
  if (plan.launch.threads > kMostThreads || !share_items_among(work, plan.launch, items, most_blocks)) return;
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
  cut_float_boxes(work.cut, images, channels, tile, columns, rows, strip_rows);
  BoxPlan plan;
  const int in_rows = (tile.step_rows() - 1) * kernel.stride_h + kernel.kernel_h;
  const int page_rows = tile.whole ? in_rows : tile.step_rows() * kernel.stride_h;
  if ((tile.whole && work.cut.strip_rows > tile.step_rows()) || tile.pages < ceiling(in_rows, page_rows))
    return plan;
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
  cut_float_boxes(work.cut, images, channels, tile, columns.count, rows.count, strip_rows);
  const PixelCut& cut = work.cut;
  const int g_rows = tile.step_rows() + kernel.reach_h() - 1,
            page_rows = tile.whole ? g_rows : tile.step_rows();
  if ((tile.whole && cut.strip_rows > tile.step_rows()) || tile.pages < ceiling(g_rows, page_rows))
    return plan;
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
