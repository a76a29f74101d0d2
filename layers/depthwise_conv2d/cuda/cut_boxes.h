#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How problems are shared out among blocks of boxes, and what the copy engine moves for them.
namespace lamella::depthwise {

/// A BoxTile, as numbers.
struct BoxTileSizes {
  int columns, blocks, rows, channels, warp_channels, tap_rows, pages;
  bool whole;
  int box_columns = 0, images = 1;
  bool by_rows = false;

  int down() const { return 16 / columns; }
  int step_rows() const { return rows * down(); }
  int units() const { return (images > 1 ? 1 : blocks) * columns; }
  int block_images() const { return images > 1 ? images / blocks : 1; }
  bool shares_images() const { return images == 1 || (whole && images % blocks == 0); }
  int columns_of_box(int reach) const {
    return box_columns > 0 ? box_columns : static_cast<int>(round_up(units() + reach, 8));
  }
  int warp_groups() const { return channels / warp_channels; }
};

/// A box that the copy engine moves: its sizes, and the distance of its pixels and rows in the tensor.
struct BoxSizes {
  int channels = 0, pixels = 0, rows = 0, images = 0;
  int pixel_step = 1, row_step = 1;
  bool by_rows = false;  ///< in pieces of rows: see BoxMove
};
struct BoxPlan {
  Launch launch;
  BoxSizes x, y, dx;
};
inline constexpr int kLargestBox = 256, kLargestBoxStep = 8;

/// Whether the copy engine takes such a box.
inline bool fits(const BoxSizes& box) {
  return box.pixels * box.pixel_step <= kLargestBox && box.rows * box.row_step <= kLargestBox &&
         box.images <= kLargestBox && box.pixel_step <= kLargestBoxStep && box.row_step <= kLargestBoxStep;
}
/// Whether such a box may be moved by rows, of pixels of so many channels without gaps.
inline bool has_whole_rows(const BoxSizes& box, std::int64_t channels) {
  return box.channels == channels && channels % 8 == 0 && box.pixel_step == 1 && box.row_step == 1;
}
/// What a box takes of shared memory, where each begins a swizzle's period.
inline std::int64_t box_bytes(const BoxSizes& box, int number_bytes = 2) {
  return round_up(std::int64_t{box.channels} * box.pixels * box.rows * box.images * number_bytes, 1024);
}

/// Shares out columns among tiles, rows among strips of whole steps, and channels among blocks. `tile`: of
/// any kind of boxes.
template <class Tile>
void cut_boxes(PixelCut& cut, std::int64_t images, std::int64_t channels, const Tile& tile,
               std::int64_t columns, std::int64_t rows, std::int64_t strip_rows) {
  cut.channels = static_cast<int>(channels);
  cut.channel_blocks = static_cast<int>(ceiling(channels, tile.channels));
  cut.tiles = static_cast<int>(ceiling(columns, tile.units()));
  cut_strips(cut, rows, tile.step_rows(), strip_rows);
  cut.images = static_cast<int>(images);
}

/// Rows of a page, where a step reads `read` and is `step` behind the one before: all that an item reads, or
/// those of a step; 0: an item reads more than a page, or a step more than all pages.
template <class Tile>
int page_rows_of(const PixelCut& cut, const Tile& tile, int read, int step) {
  if (tile.whole) return cut.strip_rows > tile.step_rows() || tile.pages < 1 ? 0 : read;
  return tile.pages < ceiling(read, step) ? 0 : step;
}

/// BoxTile::kBoxColumns where so many columns are read of the widest class, and `most` of any; 0: as many as
/// those. are_padding(residue, before, behind): the first `before` columns that a class reads, and all from
/// `behind` on, are zeros.
template <class ArePadding>
int narrow_boxes(int read, int most, const Axis& axis, const ArePadding& are_padding) {
  const int all = static_cast<int>(round_up(read, 8)), less = all - 8;
  bool fewer_do = less > 0;
  for (int residue = 0; fewer_do && residue < axis.output_step; ++residue)
    fewer_do = are_padding(residue, read - less, less);
  const int box = fewer_do ? less : all;
  return box < round_up(most, 8) ? box : 0;
}
/// The same for so many columns of the widest class and a tile's, and `reach` more.
template <class ArePadding>
int narrow_boxes(const BoxTileSizes& tile, const Axis& axis, std::int64_t columns, int reach,
                 const ArePadding& are_padding) {
  if (columns > tile.units()) return 0;
  return narrow_boxes(static_cast<int>(columns) + reach, tile.units() + reach, axis, are_padding);
}
/// BoxTile::kBoxColumns of forward_boxes.
inline int narrow_forward_boxes(const PixelWork& work, const KernelSizes& kernel, const BoxTileSizes& tile) {
  const Axis& axis = work.w;
  return narrow_boxes(tile, axis, ceiling(axis.output, axis.output_step),
                      (kernel.kernel_w - 1) / kernel.stride_w, [&](int residue, int before, int behind) {
                        return kernel.stride_w == 1 && axis.input_begin(residue) >= before &&
                               axis.input_end(residue) <= behind;
                      });
}

/// The launch of forward_boxes, and its boxes; no blocks: they do not fit.
inline BoxPlan cut_forward_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                                 const KernelSizes& kernel, const BoxTileSizes& tile, std::int64_t strip_rows,
                                 std::int64_t wanted_blocks) {
  const std::int64_t rows = ceiling(work.h.output, work.h.output_step),
                     columns = ceiling(work.w.output, work.w.output_step);
  cut_boxes(work.cut, images, channels, tile, columns, rows, strip_rows);
  BoxPlan plan;
  const int page_rows =
      page_rows_of(work.cut, tile, (tile.step_rows() - 1) * kernel.stride_h + kernel.kernel_h,
                   tile.step_rows() * kernel.stride_h);
  if (page_rows == 0 || !tile.shares_images()) return plan;
  if (tile.blocks > 14) return plan;  // a block has no more barriers, of which statistics take one
  if (tile.box_columns > 0 && tile.box_columns != narrow_forward_boxes(work, kernel, tile)) return plan;
  const int x_columns = tile.columns_of_box((kernel.kernel_w - 1) / kernel.stride_w);
  plan.x = {tile.channels,    x_columns, page_rows, tile.images, kernel.stride_w * work.w.input_step,
            work.h.input_step};
  plan.y = {tile.channels,       tile.columns,       tile.step_rows(),
            tile.block_images(), work.w.output_step, work.h.output_step};
  plan.x.by_rows = plan.y.by_rows = tile.by_rows;
  if (!fits(plan.x) || !fits(plan.y)) return plan;
  if (tile.by_rows && !(has_whole_rows(plan.x, channels) && has_whole_rows(plan.y, channels))) return plan;
  if (!share_items(work, plan.launch, items_of(work, ceiling(images, tile.images)), wanted_blocks))
    return plan;
  plan.launch.threads = 32 * (tile.blocks * tile.warp_groups() + 1);
  plan.launch.shared_bytes = 1024 + tile.pages * kernel.stride_w * box_bytes(plan.x) +
                             2 * tile.blocks * box_bytes(plan.y) + 16 * tile.pages;
  return plan;
}

/// What all classes of an axis have before their first whole unit, as backward_boxes wants it; -1: they
/// differ.
inline int phase_of(const Axis& axis, int stride) {
  const auto phase = [&](int residue) { return axis.input_begin(residue) % stride; };
  for (int residue = 1; residue < axis.output_step; ++residue)
    if (phase(residue) != phase(0)) return -1;
  return phase(0);
}
/// As WindowH::kLow and kSpan of backward_boxes.
struct WindowSizes {
  int low, span;
  WindowSizes(int kernel, int stride, int phase) {
    const int low1 = -((kernel - 1 - phase) / stride), low2 = 1 - (kernel - 1) / stride;
    low = kernel - 1 < phase ? low2 : phase > 0 ? std::min(low1, low2) : low1;
    span = (phase > 0 ? 1 : 0) - low + 1;
  }
};
/// The widest class's units, and the output of a unit's window whose sum is the bias's.
inline UnitRange box_units(const Axis& axis, int stride, int phase, int low, bool owns, int& owner) {
  const auto widest = [&](bool with_owner) {
    UnitRange range{1 << 30, 0};
    for (int residue = 0; residue < axis.output_step; ++residue) {
      const int first = Axis::floor(axis.input_begin(residue) - phase, stride), count = axis.outputs(residue);
      const int begin = with_owner ? std::min(first, owner) : first;
      const int end = Axis::ceiling(axis.input_end(residue) - phase, stride);
      range.begin = std::min(range.begin, begin);
      range.count = std::max(range.count, (with_owner ? std::max(end, count + owner) : end) - begin);
    }
    range.count = std::max(range.count, 1);
    return range;
  };
  owner = 0;
  owner = std::clamp(widest(false).begin, 0, -low);
  return widest(owns);
}

/// BoxTile::kBoxColumns of backward_boxes.
inline int narrow_backward_boxes(const PixelWork& work, const KernelSizes& kernel, const BoxTileSizes& tile,
                                 bool bias) {
  const Axis& axis = work.w;
  const int phase = phase_of(axis, kernel.stride_w);
  if (bias || phase < 0) return 0;
  const WindowSizes window(kernel.kernel_w, kernel.stride_w, phase);
  int owner = 0;
  const UnitRange columns = box_units(axis, kernel.stride_w, phase, window.low, false, owner);
  return narrow_boxes(tile, axis, columns.count, window.span - 1, [&](int residue, int before, int behind) {
    const int first = Axis::floor(axis.input_begin(residue) - phase, kernel.stride_w) + window.low;
    return first + before <= 0 && axis.outputs(residue) <= first + behind;
  });
}

/// Whether backward_boxes has pixels of g of so many outputs for each of the tile's channels.
inline bool moves_gradients(const BoxTileSizes& tile, int repeat) {
  constexpr int kMostChannels = 64;  // that a box has swizzled
  return repeat == 1 ||
         (repeat == 2 && !tile.by_rows && tile.channels % 16 == 0 && 2 * tile.channels <= kMostChannels);
}

/// The launch of backward_boxes, and its boxes; no blocks: they do not fit.
inline BoxPlan cut_backward_boxes(PixelWork& work, std::int64_t images, std::int64_t channels,
                                  const KernelSizes& kernel, const BoxTileSizes& tile,
                                  std::int64_t strip_rows, bool input, bool weight, bool bias,
                                  std::int64_t wanted_blocks) {
  BoxPlan plan;
  const int phase_h = phase_of(work.h, kernel.stride_h), phase_w = phase_of(work.w, kernel.stride_w);
  if (phase_h < 0 || phase_w < 0) return plan;
  const WindowSizes window_h(kernel.kernel_h, kernel.stride_h, phase_h),
      window_w(kernel.kernel_w, kernel.stride_w, phase_w);
  // No output meets an input of some units, or a box would begin before dx.
  if (window_h.low > 0 || window_w.low > 0) return plan;
  const UnitRange rows = box_units(work.h, kernel.stride_h, phase_h, window_h.low, bias, work.owner_h);
  const UnitRange columns = box_units(work.w, kernel.stride_w, phase_w, window_w.low, bias, work.owner_w);
  for (int residue = 0; input && residue < work.h.output_step; ++residue)
    if (rows.begin * kernel.stride_h + phase_h < work.h.input_begin(residue)) return plan;
  for (int residue = 0; input && residue < work.w.output_step; ++residue)
    if (columns.begin * kernel.stride_w + phase_w < work.w.input_begin(residue)) return plan;
  cut_boxes(work.cut, images, channels, tile, columns.count, rows.count, strip_rows);
  const int page_rows = page_rows_of(work.cut, tile, tile.step_rows() + window_h.span - 1, tile.step_rows());
  if (page_rows == 0 || !tile.shares_images()) return plan;
  if (tile.blocks > 15 || !moves_gradients(tile, kernel.repeat)) return plan;
  if (tile.box_columns > 0 && tile.box_columns != narrow_backward_boxes(work, kernel, tile, bias))
    return plan;
  const int g_columns = tile.columns_of_box(window_w.span - 1), x_rows = tile.step_rows() * kernel.stride_h;
  const int g_channels = tile.channels * kernel.repeat;
  plan.y = {g_channels, g_columns, page_rows, tile.images, work.w.output_step, work.h.output_step};
  plan.x = {tile.channels,    tile.units(), x_rows, tile.images, kernel.stride_w * work.w.input_step,
            work.h.input_step};
  plan.dx = {tile.channels,    tile.columns * kernel.stride_w, x_rows, tile.block_images(), work.w.input_step,
             work.h.input_step};
  plan.x.by_rows = plan.y.by_rows = plan.dx.by_rows = tile.by_rows;
  if (!fits(plan.y) || (weight && !fits(plan.x)) || (input && !fits(plan.dx))) return plan;
  if (tile.by_rows && !(has_whole_rows(plan.y, channels) && has_whole_rows(plan.x, channels) &&
                        has_whole_rows(plan.dx, channels)))
    return plan;
  if (!share_items(work, plan.launch, items_of(work, ceiling(images, tile.images)), wanted_blocks))
    return plan;
  const std::int64_t tap_groups = weight ? ceiling(kernel.kernel_h, tile.tap_rows) : 1;
  plan.launch.threads = static_cast<int>(32 * (tile.blocks * tile.warp_groups() * tap_groups + 1));
  plan.launch.shared_bytes =
      1024 + tile.pages * (box_bytes(plan.y) + (weight ? kernel.stride_w * box_bytes(plan.x) : 0)) +
      (input ? 2 * tile.blocks * box_bytes(plan.dx) : 0) + 16 * tile.pages +
      (weight ? tile.blocks * (kernel.kernel_h * kernel.kernel_w + 1) * g_channels * 4 : 0);
  if (!weight) plan.launch.parts = 0, plan.x = {};
  if (!input) plan.dx = {};
  return plan;
}

}  // namespace lamella::depthwise
