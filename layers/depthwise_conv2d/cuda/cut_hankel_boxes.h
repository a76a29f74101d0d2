#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut_boxes.h"

/// How boxes are shared out among blocks, and moved, for the weight's gradient by products whose results are
/// taps.
namespace lamella::depthwise {

/// A HankelTile, as numbers.
struct HankelTileSizes {
  int columns, blocks, shift_rows, x_blocks, g_blocks, lead, channels, pages;
  bool whole, keeps;
  int images = 1;
  bool late = false;  ///< HankelTile::kLate

  int x_rows() const { return x_blocks * shift_rows; }
  int g_rows() const { return g_blocks * 4; }
  int per_x() const { return shift_rows / 4; }
  /// As of boxes, whose steps are so many rows of x.
  BoxTileSizes box() const {
    return {columns, blocks, x_rows() * columns / 16, channels, 8, 1, pages, whole, 0, images};
  }
  /// As HankelBoxes::kAllLow and on.
  int low() const { return whole ? std::max(all_low(), 1 - g_blocks) : all_low(); }
  int high(int kernel_h) const {
    const int all = Axis::floor(kernel_h - 1 - lead + 3, 4);
    return whole ? std::min(all, per_x() * (x_blocks - 1)) : all;
  }
  int sums(int kernel_h) const { return high(kernel_h) - low() + 1; }
  int blocks_before(int kernel_h) const { return whole ? 0 : high(kernel_h); }
  /// Whose products one sum may have without being kept elsewhere, of whole maps.
  int most_items() const {
    const auto of_item = static_cast<int>(x_blocks * ceiling(box().block_images(), columns == 8 ? 2 : 1));
    return kLongestChain / of_item;
  }

 private:
  int all_low() const { return Axis::floor(4 - lead - shift_rows, 4); }
};

/// How many columns the last of a product's shifts of x is beyond the first.
inline int shift_reach(const KernelSizes& kernel) { return (kernel.kernel_w - 1) / 2 * 2; }

/// Rows of x that products go through, of the widest class; for the bias they have all of g, too.
inline UnitRange product_rows(const Axis& axis, bool bias) { return widest_class(axis, 1, bias, 0); }
/// The same for columns, which begin and end as products' shifts of x want.
inline UnitRange product_columns(const Axis& axis, const KernelSizes& kernel, bool bias) {
  UnitRange range{1 << 30, 1};
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const Units units = product_columns(axis, residue, shift_reach(kernel), bias);
    range.begin = std::min(range.begin, units.begin);
    range.count = std::max(range.count, units.end - units.begin);
  }
  return range;
}

/// Whether a page of whole maps has all rows of both that meet.
inline bool has_all_rows(const Axis& axis, const KernelSizes& kernel, const HankelTileSizes& tile,
                         bool bias) {
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const Units x = units_of(axis, residue, 1, bias, 0);
    const int outputs = axis.outputs(residue), g_begin = x.begin - tile.lead;
    const int first = bias ? 0 : std::max(0, x.begin - kernel.kernel_h + 1),
              last = bias ? outputs : std::min(outputs, x.end);
    if (x.end - x.begin > tile.x_rows()) return false;
    if (first < last && (first < g_begin || last > g_begin + tile.g_rows())) return false;
  }
  return true;
}

/// The launch of backward_hankel_boxes, and its boxes; no blocks: they do not fit.
inline BoxPlan cut_hankel_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                                const KernelSizes& kernel, const HankelTileSizes& tile,
                                std::int64_t strip_rows, bool bias, std::int64_t wanted_blocks) {
  constexpr int kMostWarps = 15;
  BoxPlan plan;
  const BoxTileSizes box = tile.box();
  const int consumers = tile.blocks * tile.channels / 8;
  if (kernel.kernel_w > 32 / tile.shift_rows || consumers > kMostWarps || !box.shares_images()) return plan;
  if (tile.columns == 8 && (!tile.whole || tile.images / tile.blocks % 2 != 0)) return plan;
  if (tile.whole && !has_all_rows(work.h, kernel, tile, bias)) return plan;
  if (!tile.whole && (tile.lead != 0 || tile.g_rows() != tile.x_rows() || tile.pages < 2 ||
                      tile.blocks_before(kernel.kernel_h) > tile.g_blocks || tile.low() <= -tile.per_x()))
    return plan;
  if (tile.sums(kernel.kernel_h) < 1) return plan;
  const UnitRange rows = product_rows(work.h, bias), columns = product_columns(work.w, kernel, bias);
  cut_boxes(work.cut, images, channels, box, columns.count, rows.count, tile.whole ? rows.count : strip_rows);
  plan.x = {tile.channels,     box.units() + 32 / tile.shift_rows - 2,
            tile.x_rows(),     tile.images,
            work.w.input_step, work.h.input_step};
  plan.y = {tile.channels, box.units() + 2,    tile.g_rows(),
            tile.images,   work.w.output_step, work.h.output_step};
  if (!fits(plan.x) || !fits(plan.y)) return plan;
  if (!share_items(work, plan.launch, items_of(work, ceiling(images, tile.images)), wanted_blocks))
    return plan;
  const std::int64_t sums = consumers * (ceiling(kernel.kernel_h, 4) * 32 + 1) * 128,
                     pages = tile.pages * (box_bytes(plan.x) + box_bytes(plan.y));
  if (tile.late && (!tile.whole || work.items_per_part > tile.most_items() || sums > pages)) {
    plan.launch = {};
    return plan;
  }
  plan.launch.threads = 32 * (consumers + 1);
  plan.launch.shared_bytes = 1024 + pages + 16 * tile.pages + (tile.late ? 0 : sums);
  return plan;
}

}  // namespace lamella::depthwise
