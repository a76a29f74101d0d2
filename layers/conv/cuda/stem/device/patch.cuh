#pragma once

#include "layers/conv/cuda/pointwise/device/point_primitives.cuh"
#include "layers/depthwise_conv2d/cuda/device/vector.cuh"
#include "stem_work.cuh"

/// The image on its way to shared memory.
namespace lamella::stem {

using depthwise::BFloat16;
using depthwise::Float16;
using depthwise::load_parameter;
using depthwise::multiply_add;
using depthwise::narrow;
using depthwise::narrow_pair;
using depthwise::store_global;
using depthwise::widen;
using pointwise::shared_memory;

/// A tile of an item.
struct Tile {
  Int64 image;
  int y, x;           ///< its first output pixel
  int rows, columns;  ///< that exist

  __device__ __forceinline__ Tile(const Sizes& sizes, const Cut& cut, Int64 item) {
    const Int64 line = item / cut.across;
    image = line / cut.down;
    y = static_cast<int>(line - image * cut.down) * cut.rows;
    x = static_cast<int>(item - line * cut.across) * cut.columns;
    rows = min(cut.rows, sizes.out_h - y);
    columns = min(cut.columns, sizes.out_w - x);
  }
};

/// Part `part`'s first item; that of the next part is the one behind its last.
__device__ __forceinline__ Int64 first_item(const Cut& cut, int part) { return cut.items * part / cut.parts; }

/// Walks over pieces of rows, `across` to a row, every kWarps-th for each warp.
struct Pieces {
  int row, piece;

  __device__ __forceinline__ explicit Pieces(int across) : row(0), piece(static_cast<int>(threadIdx.x) / 32) {
    settle(across);
  }
  __device__ __forceinline__ void next(int across) {
    piece += kWarps;
    settle(across);
  }

 private:
  __device__ __forceinline__ void settle(int across) {
    while (piece >= across) piece -= across, ++row;
  }
};

/// Numbers of T from an image of X, rounded where they must be.
template <class T, class X>
struct Rounded {
  __device__ static __forceinline__ unsigned short bits(X number) { return narrow<T>(number).bits; }
};
template <class T>
struct Rounded<T, T> {
  __device__ static __forceinline__ unsigned short bits(T number) { return number.bits; }
};

/// kPacked: the image's rows are as the patch's, number by number.
template <class T, class X, bool kPacked, class Keep>
__device__ __forceinline__ void stage_rows(const Sizes& sizes, const Cut& cut, const Image& image,
                                           const Tile& tile, const Keep& keep) {
  constexpr int kAhead = 8;  // loads that a thread waits for at once
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const X* const from = static_cast<const X*>(image.data) + tile.image * image.image_step;
  const int first_row = tile.y * sizes.stride_h - sizes.pad_h,
            first_column = tile.x * sizes.stride_w - sizes.pad_w;
  const int rows = (tile.rows - 1) * sizes.stride_h + sizes.kernel_h,
            pieces = (cut.row + 32 * kAhead - 1) / (32 * kAhead);
#pragma unroll 1
  for (Pieces at(pieces); at.row < rows; at.next(pieces)) {
    const int y = first_row + at.row, begin = at.piece * 32 * kAhead + lane;
    const bool exists = y >= 0 && y < sizes.in_h;
    const X* const row = from + (exists ? y * image.row_step : 0);
    X number[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int q = begin + 32 * i;
      number[i] = X{};
      if constexpr (kPacked) {
        const int place = first_column * sizes.channels + q;
        if (exists && q < cut.row && place >= 0 && place < sizes.in_w * sizes.channels)
          number[i] = row[place];
      } else {
        // Pixels have one to four numbers; a row is far shorter than what the product is exact for.
        const int pixel =
            cut.pixel == 3 ? static_cast<int>(static_cast<unsigned>(q) * 43691u >> 17) : q >> cut.pixel / 2;
        const int channel = q - pixel * cut.pixel, x = first_column + pixel;
        if (exists && q < cut.row && channel < sizes.channels && x >= 0 && x < sizes.in_w)
          number[i] = row[channel * image.channel_step + x * image.pixel_step];
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (begin + 32 * i < cut.row) keep(at.row, begin + 32 * i, Rounded<T, X>::bits(number[i]));
  }
}

/// Calls keep(row, number of the row, its bits in T) for the tile's patch, by all threads; what is not in the
/// image is zero.
template <class T, class Keep>
__device__ __forceinline__ void stage(const Sizes& sizes, const Cut& cut, const Image& image,
                                      const Tile& tile, const Keep& keep) {
  const bool packed = image.pixel_step == sizes.channels && cut.pixel == sizes.channels &&
                      (image.channel_step == 1 || sizes.channels == 1);
  if (image.is_float32) {
    if (packed)
      stage_rows<T, float, true>(sizes, cut, image, tile, keep);
    else
      stage_rows<T, float, false>(sizes, cut, image, tile, keep);
  } else {
    if (packed)
      stage_rows<T, T, true>(sizes, cut, image, tile, keep);
    else
      stage_rows<T, T, false>(sizes, cut, image, tile, keep);
  }
}

}  // namespace lamella::stem
