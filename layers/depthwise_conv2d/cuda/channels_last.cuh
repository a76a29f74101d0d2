#pragma once

#include <algorithm>

#include "core/cuda/divisor.cuh"
#include "layers/depthwise_conv2d/cuda/pack.cuh"
#include "layers/depthwise_conv2d/cuda/taps.cuh"
#include "tensor/view.h"

/// Rows of pixels whose channels lie side by side, a vector of channels of a few columns to a thread. With
/// dilation, a thread's rows and columns are those of one residue, among which the kernel is dense.
namespace lamella::cuda::depthwise {

template <class T, int kLanes, int kWindow>
struct PixelRows {
  struct Row {
    Pack<T, kLanes> pixels[kWindow];
  };
  const T* corner;  ///< the thread's channels of the window's first column, in row 0
  int pitch;
  int pixel;        ///< from a column of the window to the next
  int first, step;  ///< row s of the strip is row first + s · step
  int low, count;   ///< rows that exist and are wanted: low … low + count - 1
  unsigned inside;  ///< bit i: column i of the window exists

  /// The window begins at column `at`.
  __device__ void place(int at, int column_step, int width) {
    inside = 0;
#pragma unroll
    for (int i = 0; i < kWindow; ++i) {
      const int where = at + i * column_step;
      inside |= (where >= 0 && where < width ? 1u : 0u) << i;
    }
  }
  /// Rows `begin` to `end` are wanted.
  __device__ void limit(int begin, int end, int height) {
    low = max(begin, 0);
    count = max(min(end, height) - low, 0);
  }
  __device__ Row load(int s) const {
    Row row{};
    const int at = first + s * step;
    if (static_cast<unsigned>(at - low) >= static_cast<unsigned>(count)) return row;
    const T* from = corner + std::int64_t{at} * pitch;
#pragma unroll
    for (int i = 0; i < kWindow; ++i)
      if (inside >> i & 1) row.pixels[i] = load_pack<T, kLanes>(from + i * pixel);
    return row;
  }
  __device__ void unpack(const Row& row, float (&x)[kWindow][kLanes]) const {
#pragma unroll
    for (int i = 0; i < kWindow; ++i)
#pragma unroll
      for (int l = 0; l < kLanes; ++l) x[i][l] = row.pixels[i].at(l);
  }
};

template <class T, int kLanes, int kColumns>
struct PixelTarget {
  T* corner;  ///< the thread's channels of the tile's first column, in row 0
  int pitch, pixel, first, step, height;
  unsigned inside;  ///< bit i: column i of the tile exists
  bool accumulate;

  __device__ void place(int at, int column_step, int width) {
    inside = 0;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const int where = at + i * column_step;
      inside |= (where >= 0 && where < width ? 1u : 0u) << i;
    }
  }
  __device__ void store(int t, const float (&values)[kColumns][kLanes]) const {
    const int at = first + t * step;
    if (at < 0 || at >= height) return;
    T* to = corner + std::int64_t{at} * pitch;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      if (!(inside >> i & 1)) continue;
      float v[kLanes];
#pragma unroll
      for (int l = 0; l < kLanes; ++l) {
        v[l] = values[i][l];
        if (accumulate) v[l] += detail::cuda::to_compute(to[i * pixel + l]);
      }
      store_pack<T, kLanes>(to + i * pixel, v);
    }
  }
};

/// A tensor of pixels.
struct Pixels {
  void* data;
  std::int64_t image;  ///< strides: of images, rows, columns
  int pitch, pixel;
  int height, width;
};

/// Threads of a block, at most: a row of neighbouring channel vectors by several workers.
inline constexpr int kChannelThreads = 128;
inline constexpr int kMostVectors = 32;

/// How channels and other work are shared out among blocks and their threads.
struct ChannelCut {
  detail::cuda::Divisor groups;  ///< blocks side by side for all channels
  detail::cuda::Divisor tiles, dilation_w, strips, dilation_h;
  int vectors = 0;     ///< all channels
  int abreast = 0;     ///< vectors of a block
  int workers = 0;     ///< threads of a block that share its channels
  int rows = 0;        ///< of a strip
  unsigned items = 0;  ///< tiles x residues x strips x residues x images
};

struct ChannelItem {
  int tile, residue_w, strip, residue_h, image;
};
__device__ inline ChannelItem channel_item(const ChannelCut& cut, unsigned item) {
  ChannelItem at;
  unsigned rest = cut.dilation_w.divide(item);
  at.residue_w = static_cast<int>(item - rest * cut.dilation_w.value);
  unsigned outer = cut.tiles.divide(rest);
  at.tile = static_cast<int>(rest - outer * cut.tiles.value);
  rest = cut.strips.divide(outer);
  at.strip = static_cast<int>(outer - rest * cut.strips.value);
  outer = cut.dilation_h.divide(rest);
  at.residue_h = static_cast<int>(rest - outer * cut.dilation_h.value);
  at.image = static_cast<int>(outer);
  return at;
}

/// Whether vectors of `lanes` channels can be loaded and stored everywhere, and 32 bits hold every position
/// in rows, columns and the distances within a window of columns this far apart.
inline bool has_channel_vectors(const detail::ConstTensorView& view, std::int64_t lanes, std::int64_t apart) {
  constexpr std::int64_t kMost = std::int64_t{1} << 28, kMostApart = std::int64_t{1} << 24;
  if (view.shape[2] >= kMost || view.shape[3] >= kMost || apart >= kMostApart) return false;
  if (view.strides[2] >= kMost * 4 || view.strides[3] >= kMost / 8 / apart) return false;
  const auto bytes = static_cast<std::uintptr_t>(lanes) * size_of(view.dtype);
  bool fits = view.strides[1] == 1 && view.shape[1] % lanes == 0 &&
              reinterpret_cast<std::uintptr_t>(view.data) % bytes == 0;
  for (const int axis : {0, 2, 3}) fits = fits && (view.shape[axis] == 1 || view.strides[axis] % lanes == 0);
  return fits;
}

inline Pixels pixels_of(const detail::ConstTensorView& view) {
  return {const_cast<void*>(view.data),      view.strides[0],
          static_cast<int>(view.strides[2]), static_cast<int>(view.strides[3]),
          static_cast<int>(view.shape[2]),   static_cast<int>(view.shape[3])};
}

/// Shares out `rows` by `columns` of each image (of one residue, where there is dilation), tiles of so many
/// columns and strips of about `wanted` rows; false where there is too much to count.
inline bool cut_channels(ChannelCut& cut, std::int64_t channels, int lanes, std::int64_t images,
                         std::int64_t rows, std::int64_t columns, int tile, std::int64_t wanted,
                         const Size2& dilation) {
  using detail::cuda::Divisor;
  constexpr std::int64_t kMost = std::int64_t{1} << 30, kThreads = 300000, kShortest = 7;
  if (dilation.w >= kMost || dilation.h >= kMost) return false;
  const std::int64_t vectors = channels / lanes;
  const std::int64_t groups = (vectors + kMostVectors - 1) / kMostVectors;
  const std::int64_t tiles = (columns + tile - 1) / tile;
  const std::int64_t a_row = vectors * tiles * dilation.w * dilation.h * images;
  std::int64_t strips = (rows + wanted - 1) / wanted;
  strips =
      std::max(strips, std::min((kThreads + a_row - 1) / a_row, std::max<std::int64_t>(1, rows / kShortest)));
  cut.rows = static_cast<int>((rows + strips - 1) / strips);
  strips = (rows + cut.rows - 1) / cut.rows;
  const std::int64_t items = tiles * dilation.w * strips * dilation.h * images;
  if (items >= kMost || vectors >= kMost) return false;
  cut.vectors = static_cast<int>(vectors);
  cut.abreast = static_cast<int>((vectors + groups - 1) / groups);
  cut.workers = kChannelThreads / cut.abreast;
  cut.groups = Divisor(static_cast<std::uint32_t>(groups));
  cut.tiles = Divisor(static_cast<std::uint32_t>(tiles));
  cut.strips = Divisor(static_cast<std::uint32_t>(strips));
  cut.dilation_w = Divisor(static_cast<std::uint32_t>(dilation.w));
  cut.dilation_h = Divisor(static_cast<std::uint32_t>(dilation.h));
  cut.items = static_cast<unsigned>(items);
  return true;
}

/// How many lanes, columns and rows a thread takes: what fits into registers.
template <class T, class K>
struct ChannelTile {
  static constexpr bool kSmall = K::kTaps <= 9;
  static constexpr int kLanes = kSmall ? 4 : 2;
  static constexpr int kGatherColumns = kSmall || K::kStride == 2 ? 2 : 4;
  static constexpr int kScatterColumns = 2;
  static constexpr int kWeighColumns = 2;
  static constexpr int kRows = kSmall && K::kStride == 1 && sizeof(T) < 4 ? 2 : 1;
  /// Blocks that a multiprocessor should hold at once.
  static constexpr int kBlocks = K::kTaps == 9 ? 4 : 1;
  static constexpr int kWeighBlocks = K::kTaps == 9 && K::kStride == 1 ? 4 : 1;
};

}  // namespace lamella::cuda::depthwise
