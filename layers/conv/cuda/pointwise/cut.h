#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/conv/cuda/pointwise/device/point_work.cuh"

/// How a 1x1 convolution is shared out among blocks, and what its kernels take of a multiprocessor: what
/// PointSizes and WeighSizes say in templates, in numbers. It needs no GPU.
namespace lamella::pointwise {

inline constexpr int ceiling(int a, int b) { return (a + b - 1) / b; }
inline constexpr std::int64_t ceiling(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline constexpr bool has_sums(Hook hook) { return hook == Hook::ClampSums || hook == Hook::HardSwishSums; }

/// Bytes of so many rows in shared memory.
inline constexpr int box_bytes(int channels, int rows) { return ceiling(rows * channels * 2, 1024) * 1024; }

/// The box that one copy moves; no channels: the kernel does not have the tensor. `fold` rows of the tensor
/// are one of the box's: see Box.
struct BoxShape {
  int channels = 0, rows = 0, fold = 1;
};
inline BoxShape box_shape(int channels, int rows, bool folded) {
  const int fold = folded ? 64 / channels : 1;
  return {channels * fold, rows / fold, fold};
}

/// How a kernel is launched, and how many parts of sums it leaves.
struct PointLaunch {
  std::int64_t blocks = 0;
  int threads = 0, shared_bytes = 0, parts = 0;
};

/// The arguments of PointTile.
struct PointTileSizes {
  int inputs, outputs, warps, warp_pixels, box, store_box, pages;
  bool resident, fold_in = false, fold_out = false;
  int pixels() const { return warps * warp_pixels; }
};

struct PointCut {
  PointLaunch launch;
  BoxShape x, weights, y, z;
};

inline int point_shared_bytes(const PointTileSizes& t, bool turned, Load load, Hook hook) {
  const int steps = ceiling(t.inputs, 16), chunks = ceiling(t.inputs, t.box), m = ceiling(t.outputs, 16);
  const int out_boxes = ceiling(t.outputs, t.store_box);
  const int weights = turned ? out_boxes * box_bytes(t.store_box, t.box) : box_bytes(t.box, 16 * m);
  const int page = std::max(box_bytes(t.box, t.pixels()) + (t.resident ? 0 : weights),
                            has_sums(hook) ? box_bytes(t.store_box, t.pixels()) : 0);
  const int kept = has_sums(hook) ? (256 + 128 * t.warps) * m : hook == Hook::Moments ? 192 * m * t.warps : 0;
  const int load_factors = load == Load::Plain ? 0 : steps * 128;
  return 1024 + t.pages * page + (t.resident ? chunks * weights : 0) +
         t.warps * out_boxes * box_bytes(t.store_box, t.warp_pixels) + ceiling(16 * t.pages + 8, 16) * 16 +
         load_factors + kept + 64 * m + 4 * t.warps;
}
/// Shares the work out among about `wanted_blocks` blocks: fills in all of `work` but addresses and maps.
inline PointCut cut_points(PointWork& work, std::int64_t pixels, int outputs, const PointTileSizes& t,
                           bool turned, Load load, Hook hook, std::int64_t wanted_blocks) {
  PointCut cut;
  work.pixels = static_cast<int>(pixels);
  work.outputs = outputs;
  work.slices = ceiling(outputs, t.outputs);
  work.items = static_cast<int>(ceiling(pixels, std::int64_t{t.pixels()}));
  const int parts = std::clamp(static_cast<int>(wanted_blocks / work.slices), 1, work.items);
  work.items_per_part = ceiling(work.items, parts);
  cut.launch.parts = ceiling(work.items, work.items_per_part);
  cut.launch.blocks = std::int64_t{cut.launch.parts} * work.slices;
  cut.launch.threads = 32 * (t.warps + 1);
  cut.launch.shared_bytes = point_shared_bytes(t, turned, load, hook);
  cut.x = box_shape(t.box, t.pixels(), t.fold_in);
  cut.weights = turned ? BoxShape{t.store_box, t.box} : BoxShape{t.box, ceiling(t.outputs, 16) * 16};
  cut.y = box_shape(t.store_box, t.warp_pixels, t.fold_out);
  if (has_sums(hook)) cut.z = box_shape(t.store_box, t.pixels(), t.fold_out);
  return cut;
}

/// The arguments of WeighTile.
struct WeighTileSizes {
  int outputs, inputs, warp_outputs, warp_inputs, depths, pixels, g_box, x_box, pages;
  bool fold_g = false, fold_x = false;
  int across() const { return ceiling(inputs, warp_inputs); }
  int down() const { return ceiling(outputs, warp_outputs); }
  int warps() const { return across() * down() * depths; }
};

struct WeighCut {
  PointLaunch launch;
  BoxShape x, g;
};

inline int weigh_shared_bytes(const WeighTileSizes& t) {
  const int rows = t.down() * t.warp_outputs, columns = t.across() * t.warp_inputs;
  const int page = ceiling(rows, t.g_box) * box_bytes(t.g_box, t.pixels) +
                   ceiling(columns, t.x_box) * box_bytes(t.x_box, t.pixels);
  const int left = t.depths > 1 ? 4 * rows * (columns + 1) : 0;
  return 1024 + ceiling(std::max(t.pages * page, left), 16) * 16 + 16 * t.pages;
}

/// As cut_points().
inline WeighCut cut_weigh(WeighWork& work, std::int64_t pixels, int inputs, int outputs,
                          const WeighTileSizes& t, std::int64_t wanted_blocks) {
  WeighCut cut;
  work.pixels = static_cast<int>(pixels);
  work.inputs = inputs, work.outputs = outputs;
  work.input_tiles = ceiling(inputs, t.inputs), work.output_tiles = ceiling(outputs, t.outputs);
  work.items = static_cast<int>(ceiling(pixels, std::int64_t{t.pixels}));
  const int tiles = work.input_tiles * work.output_tiles;
  const int parts = std::clamp(static_cast<int>(wanted_blocks / tiles), 1, work.items);
  work.items_per_part = ceiling(work.items, parts);
  cut.launch.parts = ceiling(work.items, work.items_per_part);
  cut.launch.blocks = std::int64_t{cut.launch.parts} * tiles;
  cut.launch.threads = 32 * (t.warps() + 1);
  cut.launch.shared_bytes = weigh_shared_bytes(t);
  cut.x = box_shape(t.x_box, t.pixels, t.fold_x), cut.g = box_shape(t.g_box, t.pixels, t.fold_g);
  return cut;
}

}  // namespace lamella::pointwise
