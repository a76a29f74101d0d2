#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "layers/depthwise_conv2d/cuda/device/work.cuh"

/// How problems are shared out among blocks and threads: what all families need, and pixels.
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

/// `count`: from 1 to 2^31 (T. Granlund, P. L. Montgomery: Division by Invariant Integers using
/// Multiplication).
inline Divisor divisor_of(std::int64_t count) {
  int bits = 0;
  while ((std::int64_t{1} << bits) < count) ++bits;
  return {static_cast<unsigned>((std::uint64_t{1} << (31 + bits)) / static_cast<std::uint64_t>(count) + 1),
          31 + bits};
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

/// Blocks that share out the channels, of those that have the same items. The cut's channels are set before.
inline std::int64_t groups_of(const PixelWork& work) { return work.cut.channel_blocks; }
inline std::int64_t groups_of(const PhaseWork& work) { return work.cut.channel_blocks; }
inline std::int64_t groups_of(const PlaneWork& work) { return ceiling(work.channels, work.cut.planes); }

/// Gives each block so many items; false: there are too many to count.
template <class Work>
bool give_items(Work& work, Launch& launch, std::int64_t items, std::int64_t of_block) {
  if (items > kMostItems) return false;
  work.items = static_cast<int>(items);
  work.items_per_part = static_cast<int>(of_block);
  launch.parts = ceiling(items, of_block);
  launch.blocks = launch.parts * groups_of(work);
  return true;
}
/// Shares out items among about `wanted_blocks` blocks, of which each has at most `most`.
template <class Work>
bool share_items(Work& work, Launch& launch, std::int64_t items, std::int64_t wanted_blocks,
                 std::int64_t most = kMostItems) {
  const std::int64_t of_block = ceiling(items * groups_of(work), wanted_blocks);
  return give_items(work, launch, items, std::clamp<std::int64_t>(of_block, 1, most));
}
/// Among at most so many blocks, but no fewer than one for each group of channels.
template <class Work>
bool share_items_among(Work& work, Launch& launch, std::int64_t items, std::int64_t most_blocks) {
  const std::int64_t parts = std::max<std::int64_t>(1, most_blocks / groups_of(work));
  return give_items(work, launch, items, ceiling(items, parts));
}

/// Shares out rows among strips of whole steps.
inline void cut_strips(PixelCut& cut, std::int64_t rows, int step_rows, std::int64_t strip_rows) {
  cut.strips = static_cast<int>(ceiling(rows, round_up(strip_rows, step_rows)));
  cut.strip_rows = static_cast<int>(round_up(ceiling(rows, cut.strips), step_rows));
  cut.strips = static_cast<int>(ceiling(rows, cut.strip_rows));
}
/// What strips and tiles of all classes come to, of so many images.
inline std::int64_t items_of(const PixelWork& work, std::int64_t images) {
  return std::int64_t{work.cut.tiles} * work.cut.strips * work.h.output_step * work.w.output_step * images;
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
  cut_strips(cut, rows, tile.rows, strip_rows);
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
  launch.blocks = items_of(work, cut.channel_blocks * images);
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
  const std::int64_t items = items_of(work, images);
  const bool can_count =
      weight ? share_items(work, launch, items, wanted_blocks) : give_items(work, launch, items, 1);
  if (!can_count) return launch;
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

/// Calls launch() for each output of a channel that `work` takes apart. `writes_dx`: all after the first add
/// to one dx.
template <class Launch>
void each_output(PlaneWork& work, bool writes_dx, const Launch& launch) {
  for (work.y_first = 0; work.y_first < work.y_step; ++work.y_first) {
    if (work.y_first > 0 && writes_dx) work.accumulate = true;
    launch();
  }
}

}  // namespace lamella::depthwise
