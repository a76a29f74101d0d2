#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "layers/depthwise_conv2d/cuda/device/work.cuh"

/// How problems are shared out among blocks and threads.
namespace lamella::depthwise {

/// What a kernel is launched with.
struct Launch {
  std::int64_t blocks = 0;
  int threads = 0;
  std::int64_t shared_bytes = 0;
  std::int64_t parts = 0;       ///< of a weight gradient
  std::int64_t hook_parts = 0;  ///< of statistics or norm sums: see cut_hooks.h
};

inline constexpr std::int64_t kMostItems = std::int64_t{1} << 30;

/// One axis of a problem, its dilation divided out. Returns the stride that is left.
inline int divide_dilation(Axis& axis, std::int64_t input, std::int64_t output, std::int64_t kernel,
                           std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  if (kernel == 1) dilation = 1;
  const std::int64_t common = std::gcd(stride, dilation);
  axis.input = static_cast<int>(input);
  axis.output = static_cast<int>(output);
  axis.stride = static_cast<int>(stride);
  axis.padding = static_cast<int>(padding);
  axis.input_step = static_cast<int>(dilation);
  axis.output_step = static_cast<int>(dilation / common);
  return static_cast<int>(stride / common);
}

/// Compile-time sizes of a kernel, as numbers.
struct KernelSizes {
  int kernel_h, kernel_w, stride_h, stride_w, repeat;
  int reach_h() const { return (kernel_h + stride_h - 1) / stride_h; }
  int reach_w() const { return (kernel_w + stride_w - 1) / stride_w; }
};
struct TileSizes {
  int rows, columns, lanes;
};

inline std::int64_t ceiling(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceiling(a, b) * b; }

/// The largest number of units that a class has, and where its first begins.
struct UnitRange {
  int begin = 0, count = 0;
};
inline UnitRange widest_class(const Axis& axis, int stride, bool owns, int owner) {
  UnitRange range{1 << 30, 0};
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const Units units = units_of(axis, residue, stride, owns, owner);
    range.begin = std::min(range.begin, units.begin);
    range.count = std::max(range.count, units.end - units.begin);
  }
  range.count = std::max(range.count, 1);  // no output may read any input
  return range;
}

/// All classes together.
inline UnitRange all_classes(const Axis& axis, int stride, bool owns, int owner) {
  UnitRange range{1 << 30, 0};
  int end = -(1 << 30);
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const Units units = units_of(axis, residue, stride, owns, owner);
    range.begin = std::min(range.begin, units.begin);
    end = std::max(end, units.end);
  }
  range.count = std::max(end - range.begin, 1);
  return range;
}

/// The row or column of a unit's window whose sum is the bias's.
inline int owner_of(const Axis& axis, int stride, int reach) {
  const UnitRange range = widest_class(axis, stride, false, 0);
  return std::clamp(range.begin, 0, reach - 1);
}

/// Shares out columns among the blocks' groups and rows among strips.
inline void cut_pixels(PixelCut& cut, std::int64_t images, std::int64_t channels, int block_channels,
                       const TileSizes& tile, int most_threads, std::int64_t columns, std::int64_t rows,
                       std::int64_t strip_rows) {
  const std::int64_t vectors = block_channels / tile.lanes;
  const std::int64_t groups = ceiling(columns, tile.columns);
  cut.channels = static_cast<int>(channels);
  cut.channel_blocks = static_cast<int>(ceiling(channels, block_channels));
  cut.tiles = static_cast<int>(ceiling(groups, std::max<std::int64_t>(1, most_threads / vectors)));
  cut.groups = static_cast<int>(ceiling(groups, cut.tiles));
  cut.strips = static_cast<int>(ceiling(rows, round_up(strip_rows, tile.rows)));
  cut.strip_rows = static_cast<int>(round_up(ceiling(rows, cut.strips), tile.rows));
  cut.strips = static_cast<int>(ceiling(rows, cut.strip_rows));
  cut.images = static_cast<int>(images);
}

/// The launch of forward_pixels.
inline Launch cut_forward_pixels(PixelWork& work, std::int64_t images, std::int64_t channels,
                                 const KernelSizes& kernel, const TileSizes& tile, int block_channels,
                                 int stages, int number_bytes, int threads, std::int64_t strip_rows) {
  const std::int64_t rows = ceiling(work.h.output, work.h.output_step),
                     columns = ceiling(work.w.output, work.w.output_step);
  cut_pixels(work.cut, images, channels, block_channels, tile, threads, columns, rows, strip_rows);
  const PixelCut& cut = work.cut;
  Launch launch;
  launch.threads = threads;
  launch.blocks = std::int64_t{cut.channel_blocks} * cut.tiles * cut.strips * work.h.output_step *
                  work.w.output_step * images;
  const std::int64_t in_columns =
      (std::int64_t{cut.groups} * tile.columns - 1) * kernel.stride_w + kernel.kernel_w;
  const std::int64_t step = std::int64_t{tile.rows} * kernel.stride_h;
  const std::int64_t slots = (tile.rows - 1) * kernel.stride_h + kernel.kernel_h + (stages - 1) * step;
  launch.shared_bytes = round_up(slots * in_columns * block_channels * number_bytes, 16) +
                        std::int64_t{kernel.kernel_h} * kernel.kernel_w * block_channels * kernel.repeat * 4;
  return launch;
}

/// The launch of backward_pixels. Without a weight gradient a block has one item.
inline Launch cut_backward_pixels(PixelWork& work, std::int64_t images, std::int64_t channels,
                                  const KernelSizes& kernel, const TileSizes& tile, int block_channels,
                                  int tap_rows, int stages, int number_bytes, int threads,
                                  std::int64_t strip_rows, bool weight, bool bias,
                                  std::int64_t wanted_blocks) {
  const std::int64_t tap_groups = weight ? ceiling(kernel.kernel_h, tap_rows) : 1;
  work.owner_h = owner_of(work.h, kernel.stride_h, kernel.reach_h());
  work.owner_w = owner_of(work.w, kernel.stride_w, kernel.reach_w());
  const UnitRange rows = widest_class(work.h, kernel.stride_h, bias, work.owner_h);
  const UnitRange columns = widest_class(work.w, kernel.stride_w, bias, work.owner_w);
  cut_pixels(work.cut, images, channels, block_channels, tile, static_cast<int>(threads / tap_groups),
             columns.count, rows.count, strip_rows);
  PixelCut& cut = work.cut;
  Launch launch;
  if (cut.groups * tap_groups * (block_channels / tile.lanes) > threads) return launch;
  launch.threads = threads;
  const std::int64_t items =
      std::int64_t{cut.tiles} * cut.strips * work.h.output_step * work.w.output_step * images;
  if (items > kMostItems) return launch;
  work.items = static_cast<int>(items);
  work.items_per_part = weight
                            ? static_cast<int>(std::max<std::int64_t>(
                                  1, ceiling(std::int64_t{work.items} * cut.channel_blocks, wanted_blocks)))
                            : 1;
  launch.parts = ceiling(work.items, work.items_per_part);
  launch.blocks = launch.parts * cut.channel_blocks;
  const std::int64_t units = std::int64_t{cut.groups} * tile.columns;
  const std::int64_t out_channels = std::int64_t{block_channels} * kernel.repeat;
  const std::int64_t g_slots = tile.rows + kernel.reach_h() - 1 + (stages - 1) * tile.rows;
  std::int64_t bytes = round_up(g_slots * (units + kernel.reach_w() - 1) * out_channels * number_bytes, 16);
  if (weight) {
    bytes += std::int64_t{tile.rows} * kernel.stride_h * stages * units * kernel.stride_w * block_channels *
             number_bytes;
    bytes = std::max(bytes, 5 * tap_groups * cut.groups * out_channels * 4);
  }
  const std::int64_t tap_bytes = kernel.kernel_h * kernel.kernel_w * out_channels * 4;
  if (!weight && tap_rows < kernel.kernel_h) {
    cut.tap_floats = static_cast<int>(round_up(bytes, 16) / 4);
    launch.shared_bytes = round_up(bytes, 16) + tap_bytes;
  } else {
    launch.shared_bytes = std::max(bytes, tap_bytes);
  }
  return launch;
}

/// A BoxTile, as numbers.
struct BoxTileSizes {
  int columns, blocks, rows, channels, warp_channels, tap_rows, pages;
  bool whole;
  int box_columns = 0, images = 1;

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
};
struct BoxPlan {
  Launch launch;
  BoxSizes x, y, dx;
};
inline constexpr int kLargestBox = 256, kLargestBoxStep = 8;

inline bool fits(const BoxSizes& box) {
  return box.pixels * box.pixel_step <= kLargestBox && box.rows * box.row_step <= kLargestBox &&
         box.images <= kLargestBox && box.pixel_step <= kLargestBoxStep && box.row_step <= kLargestBoxStep;
}
inline std::int64_t box_bytes(const BoxSizes& box, int number_bytes = 2) {
  return round_up(std::int64_t{box.channels} * box.pixels * box.rows * box.images * number_bytes, 1024);
}

/// Shares out items among blocks.
inline bool share_items(PixelWork& work, Launch& launch, std::int64_t items, std::int64_t wanted_blocks) {
  if (items > kMostItems) return false;
  const std::int64_t channel_blocks = work.cut.channel_blocks;
  work.items = static_cast<int>(items);
  work.items_per_part =
      static_cast<int>(std::max<std::int64_t>(1, ceiling(items * channel_blocks, wanted_blocks)));
  launch.parts = ceiling(items, work.items_per_part);
  launch.blocks = launch.parts * channel_blocks;
  return true;
}

inline void cut_boxes(PixelCut& cut, std::int64_t images, std::int64_t channels, const BoxTileSizes& tile,
                      std::int64_t columns, std::int64_t rows, std::int64_t strip_rows) {
  cut.channels = static_cast<int>(channels);
  cut.channel_blocks = static_cast<int>(ceiling(channels, tile.channels));
  cut.tiles = static_cast<int>(ceiling(columns, tile.units()));
  cut.strips = static_cast<int>(ceiling(rows, round_up(strip_rows, tile.step_rows())));
  cut.strip_rows = static_cast<int>(round_up(ceiling(rows, cut.strips), tile.step_rows()));
  cut.strips = static_cast<int>(ceiling(rows, cut.strip_rows));
  cut.images = static_cast<int>(images);
}

/// BoxTile::kBoxColumns for so many columns of the widest class, and `reach` more. are_padding(residue,
/// before, behind): the first `before` columns that a class reads, and all from `behind` on, are zeros.
template <class ArePadding>
int narrow_boxes(const BoxTileSizes& tile, const Axis& axis, std::int64_t columns, int reach,
                 const ArePadding& are_padding) {
  if (columns > tile.units()) return 0;
  const int read = static_cast<int>(columns) + reach, all = static_cast<int>(round_up(read, 8)),
            less = all - 8;
  bool fewer_do = less > 0;
  for (int residue = 0; fewer_do && residue < axis.output_step; ++residue)
    fewer_do = are_padding(residue, read - less, less);
  const int box = fewer_do ? less : all;
  return box < round_up(tile.units() + reach, 8) ? box : 0;
}
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
  const PixelCut& cut = work.cut;
  BoxPlan plan;
  const int in_rows = (tile.step_rows() - 1) * kernel.stride_h + kernel.kernel_h;
  const int page_rows = tile.whole ? in_rows : tile.step_rows() * kernel.stride_h;
  if (!tile.shares_images()) return plan;
  if ((tile.whole && cut.strip_rows > tile.step_rows()) || tile.pages < ceiling(in_rows, page_rows))
    return plan;
  if (tile.blocks > 14) return plan;  // a block has no more barriers, of which statistics take one
  if (tile.box_columns > 0 && tile.box_columns != narrow_forward_boxes(work, kernel, tile)) return plan;
  const int x_columns = tile.columns_of_box((kernel.kernel_w - 1) / kernel.stride_w);
  plan.x = {tile.channels,    x_columns, page_rows, tile.images, kernel.stride_w * work.w.input_step,
            work.h.input_step};
  plan.y = {tile.channels,       tile.columns,       tile.step_rows(),
            tile.block_images(), work.w.output_step, work.h.output_step};
  if (!fits(plan.x) || !fits(plan.y)) return plan;
  const std::int64_t items = std::int64_t{cut.tiles} * cut.strips * work.h.output_step * work.w.output_step *
                             ceiling(images, tile.images);
  if (!share_items(work, plan.launch, items, wanted_blocks)) return plan;
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
  const PixelCut& cut = work.cut;
  const int g_rows = tile.step_rows() + window_h.span - 1, page_rows = tile.whole ? g_rows : tile.step_rows();
  if (!tile.shares_images()) return plan;
  if ((tile.whole && cut.strip_rows > tile.step_rows()) || tile.pages < ceiling(g_rows, page_rows))
    return plan;
  if (tile.blocks > 15) return plan;
  if (tile.box_columns > 0 && tile.box_columns != narrow_backward_boxes(work, kernel, tile, bias))
    return plan;
  const int g_columns = tile.columns_of_box(window_w.span - 1), x_rows = tile.step_rows() * kernel.stride_h;
  plan.y = {tile.channels, g_columns, page_rows, tile.images, work.w.output_step, work.h.output_step};
  plan.x = {tile.channels,    tile.units(), x_rows, tile.images, kernel.stride_w * work.w.input_step,
            work.h.input_step};
  plan.dx = {tile.channels,    tile.columns * kernel.stride_w, x_rows, tile.block_images(), work.w.input_step,
             work.h.input_step};
  if (!fits(plan.y) || (weight && !fits(plan.x)) || (input && !fits(plan.dx))) return plan;
  const std::int64_t items = std::int64_t{cut.tiles} * cut.strips * work.h.output_step * work.w.output_step *
                             ceiling(images, tile.images);
  if (!share_items(work, plan.launch, items, wanted_blocks)) return plan;
  const std::int64_t tap_groups = weight ? ceiling(kernel.kernel_h, tile.tap_rows) : 1;
  plan.launch.threads = static_cast<int>(32 * (tile.blocks * tile.warp_groups() * tap_groups + 1));
  plan.launch.shared_bytes =
      1024 + tile.pages * (box_bytes(plan.y) + (weight ? kernel.stride_w * box_bytes(plan.x) : 0)) +
      (input ? 2 * tile.blocks * box_bytes(plan.dx) : 0) + 16 * tile.pages +
      (weight ? tile.blocks * (kernel.kernel_h * kernel.kernel_w + 1) * tile.channels * 4 : 0);
  if (!weight) plan.launch.parts = 0, plan.x = {};
  if (!input) plan.dx = {};
  return plan;
}

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

/// A RunTile, as numbers.
struct RunTileSizes {
  int columns, rows, vector, vector_out, offset, pages;
};

/// The launch of forward_runs, with the channels of y; no blocks: nothing fits. The kernel's sizes have the
/// strides as they are, with distances of taps beside.
inline Launch cut_forward_runs(PlaneWork& work, std::int64_t images, std::int64_t channels,
                               const KernelSizes& kernel, int spread_h, const RunTileSizes& tile,
                               int number_bytes, int threads, std::int64_t most_bytes,
                               std::int64_t wanted_blocks) {
  PlaneCut& cut = work.cut;
  Launch launch;
  const std::int64_t numbers = 16 / number_bytes, workers = threads - 32;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t column_groups = ceiling(work.w.output, tile.columns),
                     all_row_groups = ceiling(work.h.output, tile.rows);
  if (column_groups > workers) return launch;
  const std::int64_t most_row_groups = std::min(all_row_groups, workers / column_groups);
  cut.planes = cut.bands = 1;
  cut.band_rows = work.h.output;
  std::int64_t in_numbers = in_plane, out_numbers = out_plane;
  if (in_plane * number_bytes <= most_bytes) {
    if (most_row_groups == all_row_groups) {
      // Of x; those of y that read one of them stay together, or go one by one.
      const std::int64_t in_channels = channels / kernel.repeat;
      const std::int64_t together = std::min({workers / (column_groups * all_row_groups) / kernel.repeat,
                                              most_bytes / (in_plane * number_bytes), in_channels});
      if (together > 0)
        cut.planes = static_cast<int>(ceiling(in_channels, ceiling(in_channels, together))) * kernel.repeat;
    }
    in_numbers *= ceiling(cut.planes, kernel.repeat), out_numbers *= cut.planes;
  } else {
    const auto rows_read = [&](std::int64_t rows) {
      return std::min<std::int64_t>(
          work.h.input, (rows - 1) * kernel.stride_h + std::int64_t{kernel.kernel_h - 1} * spread_h + 1);
    };
    const std::int64_t step = most_row_groups * tile.rows;
    std::int64_t rows = step;
    while (rows + step <= work.h.output && rows_read(rows + step) * work.w.input * number_bytes <= most_bytes)
      rows += step;
    if (rows_read(rows) * work.w.input * number_bytes > most_bytes) return launch;
    cut.bands = static_cast<int>(ceiling(work.h.output, rows));
    cut.band_rows = static_cast<int>(round_up(ceiling(work.h.output, cut.bands), tile.rows));
    cut.bands = static_cast<int>(ceiling(work.h.output, cut.band_rows));
    in_numbers = rows_read(cut.band_rows) * work.w.input;
    out_numbers = std::int64_t{cut.band_rows} * work.w.output;
  }
  cut.column_groups = static_cast<int>(column_groups);
  cut.row_groups = static_cast<int>(most_row_groups);
  cut.zeros = static_cast<int>(round_up(work.w.padding + tile.offset + 1, numbers));
  // A run may begin behind sixteen bytes, and a window end behind the run.
  const std::int64_t behind = round_up(
      tile.columns * kernel.stride_w + kernel.kernel_w * std::int64_t{work.w.input_step} + numbers, numbers);
  cut.input_numbers = static_cast<int>(round_up(in_numbers + numbers, numbers) + behind);
  cut.output_numbers = static_cast<int>(round_up(out_numbers + numbers, numbers));
  work.channels = static_cast<int>(channels);
  const std::int64_t groups = ceiling(channels, cut.planes), items = images * cut.bands;
  if (items > kMostItems) return launch;
  work.items = static_cast<int>(items);
  work.items_per_part = static_cast<int>(std::max<std::int64_t>(1, ceiling(items * groups, wanted_blocks)));
  launch.blocks = ceiling(items, work.items_per_part) * groups;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + std::int64_t{cut.input_numbers} * tile.pages + std::int64_t{cut.output_numbers} * 2) *
          number_bytes +
      16 * tile.pages;
  return launch;
}

/// A MatrixTile, as numbers.
struct MatrixTileSizes {
  int columns, read, images, held, warps, pages;
  int rows() const { return 16 / columns; }
  /// Channels of a block.
  int planes(int threads) const { return (threads / 32 - 1) / warps * held; }
  /// As of ForwardMatrices: tiles of a row, those in a product, and images of a product.
  int groups(int width) const { return static_cast<int>(ceiling(width, columns)); }
  int span(int width) const { return groups(width) > 4 ? 8 : groups(width) > 2 ? 4 : groups(width); }
  int together(int width) const { return 8 / span(width); }
};

/// The launch of forward_matrices; no blocks: nothing fits. `strips`: of a band, for as many warps.
inline Launch cut_forward_matrices(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                   const KernelSizes& kernel, const MatrixTileSizes& tile, int threads,
                                   int strips, std::int64_t most_bytes, std::int64_t wanted_blocks) {
  constexpr std::int64_t kNumbers = 8, kNumberBytes = 2, kLanes = 32, kBanks = 64;
  PlaneCut& cut = work.cut;
  Launch launch;
  const int together = tile.together(work.w.output);
  if ((threads / 32 - 1) % tile.warps != 0) return launch;
  if (tile.images > together && tile.images % together != 0) return launch;
  const std::int64_t planes = tile.planes(threads), in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  cut.planes = static_cast<int>(planes);
  cut.images = static_cast<int>(images);
  cut.bands = 1;
  cut.band_rows = static_cast<int>(round_up(work.h.output, tile.rows()));
  std::int64_t runs = tile.images, in_numbers = planes * in_plane, out_numbers = planes * out_plane;
  if (tile.images * in_numbers * kNumberBytes > most_bytes) {
    runs *= planes;
    const auto rows_read = [&](std::int64_t rows) {
      return std::min<std::int64_t>(work.h.input, rows + kernel.kernel_h - 1);
    };
    const std::int64_t row_bytes = runs * work.w.input * kNumberBytes, step = tile.rows();
    std::int64_t rows = step;
    while (rows + step <= work.h.output && rows_read(rows + step) * row_bytes <= most_bytes) rows += step;
    if (rows_read(rows) * row_bytes > most_bytes || rows >= work.h.output) return launch;
    cut.band_rows = static_cast<int>(round_up(ceiling(work.h.output, ceiling(work.h.output, rows)), step));
    cut.bands = static_cast<int>(ceiling(work.h.output, cut.band_rows));
    in_numbers = rows_read(cut.band_rows) * work.w.input;
    out_numbers = std::int64_t{cut.band_rows} * work.w.output;
  }
  if (runs > kLanes) return launch;  // one of a warp asks for each
  cut.strip_rows = static_cast<int>(round_up(ceiling(cut.band_rows, strips), tile.rows()));
  cut.row_groups = static_cast<int>(ceiling(cut.band_rows, cut.strip_rows));
  // Images of a product lie where they share no bank.
  const auto run_numbers = [&](std::int64_t numbers) {
    const std::int64_t all = round_up(numbers + kNumbers, kNumbers);
    if (together == 1 || runs == 1) return all;
    const std::int64_t apart = kBanks / together;
    return all + (apart - all % kBanks + kBanks) % kBanks;
  };
  constexpr std::int64_t kFarTooMany = 1 << 18;  // bytes: no shared memory has them
  if (runs * run_numbers(std::max(in_numbers, out_numbers)) * kNumberBytes > kFarTooMany) return launch;
  cut.run_numbers = static_cast<int>(run_numbers(in_numbers));
  cut.result_numbers = static_cast<int>(run_numbers(out_numbers));
  // A window may begin before a run and end behind it.
  cut.zeros = static_cast<int>(round_up(work.w.padding + 1, kNumbers));
  cut.input_numbers = static_cast<int>(
      runs * cut.run_numbers +
      round_up(round_up(tile.groups(work.w.output), tile.span(work.w.output)) * tile.columns + tile.read,
               kNumbers));
  cut.output_numbers = static_cast<int>(runs * cut.result_numbers);
  work.channels = static_cast<int>(channels);
  const std::int64_t groups = ceiling(channels, planes), items = ceiling(images, tile.images) * cut.bands;
  if (items > kMostItems) return launch;
  work.items = static_cast<int>(items);
  work.items_per_part = static_cast<int>(std::max<std::int64_t>(1, ceiling(items * groups, wanted_blocks)));
  launch.blocks = ceiling(items, work.items_per_part) * groups;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + std::int64_t{cut.input_numbers} * tile.pages + std::int64_t{cut.output_numbers} * 2) *
          kNumberBytes +
      16 * tile.pages;
  return launch;
}

/// A UnitTile, as numbers.
struct UnitTileSizes {
  int columns, rows, vector_x, vector_g, offset, pages;
};

/// As UnitReach.
struct UnitReachSizes {
  int low = 0, span = 0;
  UnitReachSizes(int kernel, int stride, int spread, int phase) {
    int high = 0;
    bool any = false;
    for (int a = 0; a < stride; ++a)
      for (int k = 0; k < kernel; ++k) {
        const int from = a + phase - spread * k;
        if (from % stride != 0) continue;
        low = any ? std::min(low, from / stride) : from / stride;
        high = any ? std::max(high, from / stride) : from / stride;
        any = true;
      }
    span = high - low + 1;
  }
};

/// The launch of backward_runs; no blocks: nothing fits, or a unit owns no gradient or two.
inline Launch cut_backward_runs(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                const KernelSizes& kernel, int spread_h, int spread_w,
                                const UnitTileSizes& tile, int number_bytes, int threads,
                                std::int64_t most_bytes, bool input, bool weight, bool bias,
                                std::int64_t wanted_blocks) {
  PlaneCut& cut = work.cut;
  Launch launch;
  const std::int64_t numbers = 16 / number_bytes, workers = threads - 32;
  const UnitReachSizes reach_h(kernel.kernel_h, kernel.stride_h, spread_h, work.h.padding % kernel.stride_h);
  const UnitReachSizes reach_w(kernel.kernel_w, kernel.stride_w, spread_w, work.w.padding % kernel.stride_w);
  const std::int64_t q_h = work.h.padding / kernel.stride_h, q_w = work.w.padding / kernel.stride_w;
  const std::int64_t unit_rows = ceiling(work.h.input, kernel.stride_h),
                     unit_columns = ceiling(work.w.input, kernel.stride_w);
  work.owner_h = static_cast<int>(q_h), work.owner_w = static_cast<int>(q_w);
  cut.owned_columns = work.w.output;
  if (bias &&
      (work.h.output > unit_rows || work.w.output > unit_columns || -q_h < reach_h.low ||
       -q_w < reach_w.low || -q_h >= reach_h.low + reach_h.span || -q_w >= reach_w.low + reach_w.span))
    return launch;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t column_groups = ceiling(unit_columns, tile.columns),
                     all_row_groups = ceiling(unit_rows, tile.rows);
  if (column_groups > workers) return launch;
  const std::int64_t most_row_groups = std::min(all_row_groups, workers / column_groups);
  const auto bytes_of = [&](std::int64_t x, std::int64_t g) {
    return ((weight ? x : 0) + g * kernel.repeat) * number_bytes;
  };
  cut.planes = cut.bands = 1;
  cut.band_rows = static_cast<int>(unit_rows);
  std::int64_t x_numbers = in_plane, g_numbers = out_plane;
  if (bytes_of(in_plane, out_plane) <= most_bytes) {
    if (most_row_groups == all_row_groups) {
      const std::int64_t together = std::min(
          {workers / (column_groups * all_row_groups), most_bytes / bytes_of(in_plane, out_plane), channels});
      cut.planes =
          static_cast<int>(ceiling(channels, ceiling(channels, std::max<std::int64_t>(1, together))));
    }
    x_numbers *= cut.planes, g_numbers *= cut.planes;
  } else {
    const auto of_rows = [&](std::int64_t rows) {
      return bytes_of(rows * kernel.stride_h * work.w.input,
                      std::min<std::int64_t>(work.h.output, rows + reach_h.span - 1) * work.w.output);
    };
    const std::int64_t step = most_row_groups * tile.rows;
    std::int64_t rows = step;
    while (rows + step <= unit_rows && of_rows(rows + step) <= most_bytes) rows += step;
    if (of_rows(rows) > most_bytes) return launch;
    cut.bands = static_cast<int>(ceiling(unit_rows, rows));
    cut.band_rows = static_cast<int>(round_up(ceiling(unit_rows, cut.bands), tile.rows));
    cut.bands = static_cast<int>(ceiling(unit_rows, cut.band_rows));
    x_numbers = std::int64_t{cut.band_rows} * kernel.stride_h * work.w.input;
    g_numbers = std::min<std::int64_t>(work.h.output, cut.band_rows + reach_h.span - 1) * work.w.output;
  }
  cut.column_groups = static_cast<int>(column_groups);
  cut.row_groups = static_cast<int>(most_row_groups);
  cut.zeros =
      static_cast<int>(round_up(std::max<std::int64_t>(0, -(q_w + reach_w.low)) + tile.offset + 1, numbers));
  const std::int64_t behind =
      round_up(tile.columns * kernel.stride_w + reach_w.span + q_w + tile.vector_g + numbers, numbers);
  cut.input_numbers = static_cast<int>(round_up(x_numbers + numbers, numbers) + behind);
  cut.run_numbers = static_cast<int>(round_up(g_numbers + numbers, numbers) + behind);
  cut.output_numbers =
      cut.bands > 1 ? cut.run_numbers * kernel.repeat
                    : static_cast<int>(round_up(g_numbers * kernel.repeat + numbers, numbers) + behind);
  work.channels = static_cast<int>(channels);
  const std::int64_t groups = ceiling(channels, cut.planes), items = images * cut.bands;
  if (items > kMostItems) return launch;
  work.items = static_cast<int>(items);
  work.items_per_part = static_cast<int>(std::max<std::int64_t>(1, ceiling(items * groups, wanted_blocks)));
  launch.parts = weight ? ceiling(items, work.items_per_part) : 0;
  launch.blocks = ceiling(items, work.items_per_part) * groups;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + (cut.output_numbers + (weight ? std::int64_t{cut.input_numbers} : 0)) * tile.pages +
       (input ? std::int64_t{cut.input_numbers} * 2 : 0)) *
          number_bytes +
      16 * tile.pages;
  if (weight)
    launch.shared_bytes =
        std::max<std::int64_t>(launch.shared_bytes, cut.zeros * number_bytes + 8 * workers * 4);
  return launch;
}

/// A DiagonalTile, as numbers; whether the kernel knows the sizes of planes; and how many warps share out
/// rows, if not.
struct DiagonalTileSizes {
  int columns, planes, groups, vector, pages;
  bool known;
  int row_groups = 1;
};

/// The launch of backward_diagonals; no blocks: nothing fits, or some gradients would not count for the bias.
inline Launch cut_diagonals(PlaneWork& work, std::int64_t images, std::int64_t channels,
                            const KernelSizes& kernel, int spread_h, int spread_w,
                            const DiagonalTileSizes& tile, int threads, std::int64_t most_bytes, bool bias,
                            std::int64_t wanted_blocks) {
  constexpr std::int64_t kNumber = 2, kNumbers = 16 / kNumber, kRows = 8;
  constexpr std::int64_t kLongestChain = 32;  // products that the matrix units add up, but an item at least
  PlaneCut& cut = work.cut;
  Launch launch;
  const std::int64_t consumers = threads / 32 - 1, reach = std::int64_t{kernel.kernel_h - 1} * spread_h;
  const int per_plane = tile.groups * tile.row_groups;
  const std::int64_t tiles = ceiling(work.w.output, tile.columns), row_blocks = ceiling(work.h.input, kRows);
  if (per_plane > consumers || (tile.known && tile.row_groups > 1)) return launch;
  if (bias && (work.h.output > work.h.input || work.h.padding > reach)) return launch;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  std::int64_t x_numbers = in_plane, g_numbers = out_plane;
  cut.planes = cut.bands = 1;
  cut.band_rows = work.h.input;
  if ((in_plane + out_plane) * kNumber <= most_bytes) {
    const std::int64_t together = std::min(
        {consumers / per_plane * tile.planes, most_bytes / ((in_plane + out_plane) * kNumber), channels});
    cut.planes = static_cast<int>(ceiling(channels, ceiling(channels, together)));
    x_numbers *= round_up(cut.planes, tile.planes), g_numbers *= round_up(cut.planes, tile.planes);
  } else {
    if (tile.known) return launch;
    const auto g_rows = [&](std::int64_t rows) {
      return std::min<std::int64_t>(work.h.output, rows + reach);
    };
    const auto of_rows = [&](std::int64_t rows) {
      return (rows * work.w.input + g_rows(rows) * work.w.output) * kNumber;
    };
    const std::int64_t step = kRows * tile.row_groups;
    std::int64_t rows = step;
    while (rows + step <= work.h.input && of_rows(rows + step) <= most_bytes) rows += step;
    if (of_rows(rows) > most_bytes) return launch;
    cut.bands = static_cast<int>(ceiling(work.h.input, rows));
    cut.band_rows = static_cast<int>(round_up(ceiling(work.h.input, cut.bands), kRows));
    cut.bands = static_cast<int>(ceiling(work.h.input, cut.band_rows));
    x_numbers = std::int64_t{cut.band_rows} * work.w.input;
    g_numbers = g_rows(cut.band_rows) * work.w.output;
  }
  cut.column_groups = tile.groups, cut.row_groups = tile.row_groups;
  const std::int64_t products =
      ceiling(tiles, tile.groups) * ceiling(ceiling(cut.band_rows, kRows), tile.row_groups);
  cut.chain = static_cast<int>(std::max<std::int64_t>(1, kLongestChain / products));
  // What lanes read beside rows: before them up to the padding, behind them up to the end of the last
  // product; and, with known sizes, above and below planes.
  const std::int64_t window = ceiling(tiles, tile.groups) * tile.groups * tile.columns -
                              std::min(work.w.output, work.w.input) + tile.columns +
                              std::int64_t{kernel.kernel_w - 1} * spread_w;
  const std::int64_t above = tile.known ? std::max<std::int64_t>(0, reach - work.h.padding) : 0;
  const std::int64_t x_below = tile.known ? kRows * row_blocks - work.h.input : 0;
  const std::int64_t g_below =
      tile.known
          ? std::max<std::int64_t>(0, kRows * (row_blocks + 1) + work.h.padding - reach - work.h.output)
          : 0;
  cut.zeros =
      static_cast<int>(round_up(above * work.w.output + work.w.padding + window + kNumbers, kNumbers));
  const auto numbers_of = [&](std::int64_t run, std::int64_t below) {
    return static_cast<int>(round_up(run + kNumbers, kNumbers) +
                            round_up(below + window + kNumbers, kNumbers));
  };
  cut.input_numbers = numbers_of(x_numbers, x_below * work.w.input);
  cut.output_numbers = numbers_of(g_numbers, g_below * work.w.output);
  work.channels = static_cast<int>(channels);
  const std::int64_t groups = ceiling(channels, cut.planes), items = images * cut.bands;
  if (items > kMostItems) return launch;
  work.items = static_cast<int>(items);
  work.items_per_part = static_cast<int>(std::max<std::int64_t>(1, ceiling(items * groups, wanted_blocks)));
  launch.parts = ceiling(items, work.items_per_part);
  launch.blocks = launch.parts * groups;
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + (std::int64_t{cut.input_numbers} + cut.output_numbers) * tile.pages) * kNumber +
      16 * tile.pages;
  const std::int64_t sums = consumers * (kernel.kernel_w + (bias ? 1 : 0)) * 64 * 4;
  launch.shared_bytes = std::max(launch.shared_bytes, cut.zeros * kNumber + sums);
  return launch;
}

/// Whether all groups of columns are full or can begin early, and only the edges of their windows lie
/// outside. The first group reaches the furthest to one side, the last to the other.
inline bool has_edges_alone(const Axis& axis, const KernelSizes& kernel, int columns) {
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const int count = axis.outputs(residue);
    if (count < columns) return false;
    for (const int first : {0, count - columns}) {
      const int begin =
          axis.origin(residue) + axis.input_step * (first * kernel.stride_w + kernel.kernel_w - 1);
      const int end = axis.origin(residue) + axis.input_step * ((first + columns - 1) * kernel.stride_w);
      if (begin < 0 || end >= axis.input || (begin <= end && (begin >= axis.input || end < 0))) return false;
    }
  }
  return true;
}
inline bool has_edges_alone_backward(const Axis& axis, const KernelSizes& kernel, int columns, bool owns,
                                     int owner) {
  for (int residue = 0; residue < axis.output_step; ++residue) {
    const Units units = units_of(axis, residue, kernel.stride_w, owns, owner);
    if (units.end - units.begin < columns) return false;
    for (const int at : {units.begin, units.end - columns}) {
      // Inside are columns reach_w - 1 … columns - 1 of the window, which begins reach_w - 1 before `at`.
      const int begin = at, end = at + columns - kernel.reach_w();
      if (begin <= end && (begin < 0 || end >= axis.outputs(residue))) return false;
    }
  }
  return true;
}

/// The launch of forward_planes for dense planes; no blocks: a band does not fit.
inline Launch cut_forward_planes(PlaneWork& work, std::int64_t planes, const KernelSizes& kernel,
                                 const TileSizes& tile, int number_bytes, int threads,
                                 std::int64_t most_bytes, bool is_double, bool is_long, std::int64_t rounds) {
  PlaneCut& cut = work.cut;
  const std::int64_t numbers = 16 / number_bytes;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t class_rows = ceiling(work.h.output, work.h.output_step);
  const std::int64_t classes = std::int64_t{work.h.output_step} * work.w.output_step;
  cut.column_groups = static_cast<int>(ceiling(ceiling(work.w.output, work.w.output_step), tile.columns));
  const std::int64_t a_row = cut.column_groups * classes;  // threads of a group of rows
  const std::int64_t window = (std::int64_t{tile.columns} - 1) * kernel.stride_w + kernel.kernel_w;
  cut.zeros = static_cast<int>(round_up((window - 1) * work.w.input_step + 1, numbers));
  const auto capacity = [&](std::int64_t in, std::int64_t out) {
    // A window may begin before a run and end behind it: not where results are written meanwhile.
    cut.input_numbers = static_cast<int>(round_up(in + numbers - 1 + window * work.w.input_step, numbers));
    cut.output_numbers = static_cast<int>(round_up(out + numbers - 1, numbers));
    return (cut.zeros + std::int64_t{cut.input_numbers} * (is_double ? 2 : 1) + cut.output_numbers) *
           number_bytes;
  };
  const auto band_rows_of_input = [&](std::int64_t rows) {
    return std::min<std::int64_t>(work.h.input, (rows * work.h.output_step - 1) * work.h.stride +
                                                    std::int64_t{kernel.kernel_h - 1} * work.h.input_step +
                                                    1);
  };
  Launch launch;
  if (a_row * kernel.repeat > threads) return launch;
  std::int64_t row_groups = ceiling(class_rows, tile.rows);
  cut.planes = 1;
  cut.bands = 1;
  cut.band_rows = static_cast<int>(class_rows);
  if (a_row * row_groups * kernel.repeat <= threads &&
      capacity(in_plane, out_plane * kernel.repeat) <= most_bytes) {
    std::int64_t together = work.y_step > 1 ? 1 : threads / (a_row * row_groups * kernel.repeat);
    while (together > 1 && capacity(together * in_plane, together * out_plane * kernel.repeat) > most_bytes)
      --together;
    cut.planes = static_cast<int>(std::min(together, planes));
    // Few rounds of planes for all blocks alike.
    cut.planes = static_cast<int>(ceiling(planes, ceiling(planes, cut.planes)));
    capacity(cut.planes * in_plane, cut.planes * out_plane * kernel.repeat);
  } else {
    if (kernel.repeat > 1) return launch;
    std::int64_t most = std::min(row_groups, threads / a_row);
    while (most > 0 && capacity(band_rows_of_input(most * tile.rows) * work.w.input,
                                most * tile.rows * work.h.output_step * work.w.output) > most_bytes)
      --most;
    if (most == 0) return launch;
    cut.bands = static_cast<int>(ceiling(row_groups, most));
    row_groups = ceiling(row_groups, cut.bands);
    cut.band_rows = static_cast<int>(row_groups * tile.rows);
    cut.bands = static_cast<int>(ceiling(class_rows, cut.band_rows));
    if (cut.bands == 1)  // all of the plane is copied
      capacity(in_plane, out_plane);
    else
      capacity(band_rows_of_input(cut.band_rows) * work.w.input,
               std::int64_t{cut.band_rows} * work.h.output_step * work.w.output);
  }
  cut.row_groups = static_cast<int>(row_groups);
  work.input_planes = static_cast<int>(planes);
  work.items = static_cast<int>(ceiling(planes, cut.planes) * cut.bands);
  work.items_per_part = static_cast<int>(rounds);
  launch.blocks = ceiling(work.items, rounds);
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + std::int64_t{cut.input_numbers} * (is_double ? 2 : 1) + cut.output_numbers) *
          number_bytes +
      (is_long ? std::int64_t{cut.planes} * kernel.repeat * kernel.kernel_h * kernel.kernel_w * 4 : 0);
  return launch;
}

/// Calls launch() for each output of a channel that `work` takes apart. `writes_dx`: all after the first add
/// to one dx.
template <class Launch>
void each_output(PlaneWork& work, bool writes_dx, const Launch& launch) {
  for (work.y_first = 0; work.y_first < work.y_step; ++work.y_first) {
    if (work.y_first > 0 && writes_dx) work.accumulate = true;
    launch();
  }
}

/// The launch of backward_planes. Several outputs a channel (kernel.repeat) are for dx alone.
inline Launch cut_backward_planes(PlaneWork& work, std::int64_t images, std::int64_t channels,
                                  const KernelSizes& kernel, const TileSizes& tile, int tap_rows,
                                  int number_bytes, int threads, std::int64_t most_bytes, bool is_double,
                                  bool input, bool weight, bool bias, bool direct,
                                  std::int64_t wanted_blocks) {
  PlaneCut& cut = work.cut;
  const int tap_groups = weight ? static_cast<int>(ceiling(kernel.kernel_h, tap_rows)) : 1;
  const std::int64_t most_threads = threads / tap_groups;
  work.owner_h = owner_of(work.h, kernel.stride_h, kernel.reach_h());
  work.owner_w = owner_of(work.w, kernel.stride_w, kernel.reach_w());
  const UnitRange rows = all_classes(work.h, kernel.stride_h, bias, work.owner_h);
  const UnitRange columns = widest_class(work.w, kernel.stride_w, bias, work.owner_w);
  const std::int64_t numbers = 16 / number_bytes;
  const std::int64_t in_plane = std::int64_t{work.h.input} * work.w.input,
                     out_plane = std::int64_t{work.h.output} * work.w.output;
  const std::int64_t classes = std::int64_t{work.h.output_step} * work.w.output_step;
  cut.column_groups = static_cast<int>(ceiling(columns.count, tile.columns));
  const std::int64_t a_row = cut.column_groups * classes;
  const std::int64_t window = tile.columns + kernel.reach_w() - 1;
  cut.zeros = static_cast<int>(
      round_up(window * work.w.output_step + kernel.reach_w() * work.w.output_step, numbers));
  // A window of y may begin before its run, but not where dx is written meanwhile.
  const std::int64_t before = input && !direct ? kernel.reach_w() * work.w.output_step : 0;
  const bool several = kernel.repeat > 1;
  const auto capacity = [&](std::int64_t planes, std::int64_t in, std::int64_t out) {
    cut.input_numbers = static_cast<int>(
        weight || (input && !direct) ? round_up(planes * in + numbers - 1 + before, numbers) : 0);
    // Planes of one output of neighbouring channels are no neighbours.
    cut.run_numbers = static_cast<int>(several ? round_up(out + numbers - 1, numbers) : 0);
    const std::int64_t of_g = several ? planes * cut.run_numbers : planes * out + numbers - 1;
    cut.output_numbers = static_cast<int>(round_up(of_g + window * work.w.output_step, numbers));
    return (cut.zeros + (std::int64_t{cut.input_numbers} + cut.output_numbers) * (is_double ? 2 : 1)) *
           number_bytes;
  };
  const auto band_capacity = [&](std::int64_t units) {
    const std::int64_t spread = std::int64_t{work.h.output_step - 1} * work.h.stride;
    const std::int64_t x_rows =
        std::min<std::int64_t>(work.h.input, (units * kernel.stride_h - 1) * work.h.input_step + spread + 1);
    const std::int64_t g_rows = std::min<std::int64_t>(
        work.h.output, (units + kernel.reach_h() - 2) * work.h.output_step + work.h.output_step - 1 + 1);
    return capacity(1, x_rows * work.w.input, g_rows * work.w.output);
  };
  Launch launch;
  if (a_row > most_threads) return launch;
  std::int64_t row_groups = ceiling(rows.count, tile.rows);
  cut.planes = cut.bands = 1;
  if (a_row * row_groups <= most_threads && capacity(1, in_plane, out_plane) <= most_bytes) {
    std::int64_t together = work.y_step > 1 ? 1 : most_threads / (a_row * row_groups);
    while (together > 1 && capacity(together, in_plane, out_plane) > most_bytes) --together;
    cut.planes = static_cast<int>(std::min(together, channels));
    cut.planes = static_cast<int>(ceiling(channels, ceiling(channels, cut.planes)));
    capacity(cut.planes, in_plane, out_plane);
    cut.band_rows = static_cast<int>(row_groups * tile.rows);
  } else {
    // A band's rows must be a run, and all be written.
    const bool all_are_read = work.h.stride == kernel.stride_h && work.w.stride == kernel.stride_w;
    if (input && !direct && (work.h.output_step > 1 || !all_are_read)) return launch;
    std::int64_t most = std::min(row_groups, most_threads / a_row);
    while (most > 0 && band_capacity(most * tile.rows) > most_bytes) --most;
    if (most == 0) return launch;
    cut.bands = static_cast<int>(ceiling(row_groups, most));
    row_groups = ceiling(row_groups, cut.bands);
    cut.band_rows = static_cast<int>(row_groups * tile.rows);
    cut.bands = static_cast<int>(ceiling(rows.count, cut.band_rows));
    if (cut.bands == 1)
      capacity(1, in_plane, out_plane);
    else
      band_capacity(cut.band_rows);
  }
  cut.row_groups = static_cast<int>(row_groups);
  work.channels = static_cast<int>(channels);
  if (images * cut.bands > kMostItems / kernel.repeat) return launch;
  work.items = static_cast<int>(images * cut.bands);
  const std::int64_t channel_blocks = ceiling(channels, cut.planes);
  work.items_per_part =
      static_cast<int>(std::max<std::int64_t>(1, ceiling(work.items * channel_blocks, wanted_blocks)));
  launch.parts = ceiling(work.items, work.items_per_part);
  launch.blocks = launch.parts * channel_blocks;
  cut.members = static_cast<int>(a_row * row_groups * cut.planes);
  launch.threads = threads;
  launch.shared_bytes =
      (cut.zeros + (std::int64_t{cut.input_numbers} + cut.output_numbers) * (is_double ? 2 : 1)) *
      number_bytes;
  if (!weight && (several || tap_rows < kernel.kernel_h))
    launch.shared_bytes = round_up(launch.shared_bytes, 16) +
                          std::int64_t{cut.planes} * kernel.repeat * kernel.kernel_h * kernel.kernel_w * 4;
  if (weight)
    launch.shared_bytes =
        std::max<std::int64_t>(launch.shared_bytes, cut.zeros * number_bytes + 8 * 4 * launch.threads);
  return launch;
}

}  // namespace lamella::depthwise
