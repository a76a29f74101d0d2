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

/// Whether number q of a patch's row that begins at pixel `first_column` is in a row of the image of `width`
/// pixels, and where. kPacked: the image's rows are as the patch's, number by number.
template <bool kPacked>
__device__ __forceinline__ bool find_number(const Sizes& sizes, const Cut& cut, const Image& image,
                                            int first_column, int width, int q, int& place) {
  // What is negative is far too large without its sign.
  if constexpr (kPacked) {
    place = first_column * sizes.channels + q;
    return static_cast<unsigned>(place) < static_cast<unsigned>(width * sizes.channels);
  } else {
    // Pixels have one to four numbers; a row is far shorter than what the product is exact for.
    const int pixel =
        cut.pixel == 3 ? static_cast<int>(static_cast<unsigned>(q) * 43691u >> 17) : q >> cut.pixel / 2;
    const int channel = q - pixel * cut.pixel, x = first_column + pixel;
    place = channel * image.channel_step + x * image.pixel_step;
    return (channel < sizes.channels) & (static_cast<unsigned>(x) < static_cast<unsigned>(width));
  }
}
/// Whether the image's rows are as the patch's.
__device__ __forceinline__ bool is_packed(const Sizes& sizes, const Cut& cut, const Image& image) {
  return image.pixel_step == sizes.channels && cut.pixel == sizes.channels &&
         (image.channel_step == 1 || sizes.channels == 1);
}

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
      int place;
      number[i] = X{};
      const int q = begin + 32 * i;
      if (find_number<kPacked>(sizes, cut, image, first_column, exists ? sizes.in_w : 0, q, place) &&
          q < cut.row)
        number[i] = row[place];
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
  const bool packed = is_packed(sizes, cut, image);
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

template <bool kPacked>
__device__ __forceinline__ void copy_rows(const Sizes& sizes, const Cut& cut, const Image& image,
                                          const Tile& tile, float* patch) {
  constexpr int kAhead = 8;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float* const from = static_cast<const float*>(image.data) + tile.image * image.image_step;
  const int first_row = tile.y * sizes.stride_h - sizes.pad_h,
            first_column = tile.x * sizes.stride_w - sizes.pad_w;
  const int rows = (tile.rows - 1) * sizes.stride_h + sizes.kernel_h,
            pieces = (cut.row + 32 * kAhead - 1) / (32 * kAhead);
#pragma unroll 1
  for (Pieces at(pieces); at.row < rows; at.next(pieces)) {
    const int y = first_row + at.row, begin = at.piece * 32 * kAhead + lane;
    const bool in_image = y >= 0 && y < sizes.in_h;
    const float* const row = from + (in_image ? y * image.row_step : 0);
    float* const to = patch + at.row * cut.pitch;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int q = begin + 32 * i;
      int place;
      const bool exists =
          find_number<kPacked>(sizes, cut, image, first_column, in_image ? sizes.in_w : 0, q, place);
      if (q < cut.row) depthwise::copy_ahead<4>(to + q, row + (exists ? place : 0), exists);
    }
  }
}

/// stage() of a float32 image as it is, without waiting: the group of copies is the caller's to end.
__device__ __forceinline__ void copy(const Sizes& sizes, const Cut& cut, const Image& image, const Tile& tile,
                                     float* patch) {
  if (is_packed(sizes, cut, image))
    copy_rows<true>(sizes, cut, image, tile, patch);
  else
    copy_rows<false>(sizes, cut, image, tile, patch);
}

}  // namespace lamella::stem
