#pragma once

#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// The launches of direct.cuh: a thread has a tile of a vector of channels.
namespace lamella::depthwise {

/// `vectors`: of channels, that neighbouring threads have. No blocks: there are too many.
inline Launch cut_direct(PixelWork& work, std::int64_t images, std::int64_t channels, const TileSizes& tile,
                         int vectors, int threads, std::int64_t rows, std::int64_t columns) {
  PixelCut& cut = work.cut;
  cut.channels = static_cast<int>(channels);
  cut.images = static_cast<int>(images);
  cut.channel_blocks = static_cast<int>(ceiling(channels, std::int64_t{vectors} * tile.lanes));
  cut.tiles = static_cast<int>(ceiling(columns, tile.columns));
  cut.strips = static_cast<int>(ceiling(rows, tile.rows));
  cut.strip_rows = tile.rows;
  cut.by_channel_blocks = divisor_of(cut.channel_blocks);
  cut.by_tiles = divisor_of(cut.tiles);
  cut.by_strips = divisor_of(cut.strips);
  Launch launch;
  const std::int64_t of_image = items_of(work, 1);
  if (of_image > kMostItems / images) return launch;
  const std::int64_t groups = ceiling(of_image * images, threads / vectors);
  if (groups > kMostItems / cut.channel_blocks) return launch;
  launch.threads = threads;
  launch.blocks = groups * cut.channel_blocks;
  return launch;
}

inline Launch cut_forward_direct(PixelWork& work, std::int64_t images, std::int64_t channels,
                                 const TileSizes& tile, int vectors, int threads) {
  return cut_direct(work, images, channels, tile, vectors, threads,
                    ceiling(work.h.output, work.h.output_step), ceiling(work.w.output, work.w.output_step));
}

inline Launch cut_backward_direct(PixelWork& work, std::int64_t images, std::int64_t channels,
                                  const KernelSizes& kernel, const TileSizes& tile, int vectors,
                                  int threads) {
  return cut_direct(work, images, channels, tile, vectors, threads,
                    widest_class(work.h, kernel.stride_h, false, 0).count,
                    widest_class(work.w, kernel.stride_w, false, 0).count);
}

/// Of weigh_direct: a block has all tiles of its channels.
inline Launch cut_weigh_direct(PixelWork& work, std::int64_t images, std::int64_t channels,
                               const KernelSizes& kernel, const TileSizes& tile, int vectors, bool bias,
                               int threads) {
  Launch launch = cut_forward_direct(work, images, channels, tile, vectors, threads);
  if (launch.blocks == 0) return launch;
  const PixelCut& cut = work.cut;
  work.items = static_cast<int>(items_of(work, images));
  launch.blocks = cut.channel_blocks;
  launch.parts = 1;
  const std::int64_t sums = kernel.kernel_h * kernel.kernel_w + (bias ? 1 : 0);
  launch.shared_bytes = sums * tile.lanes * (threads / vectors + 1) * vectors * 4;
  return launch;
}

}  // namespace lamella::depthwise
