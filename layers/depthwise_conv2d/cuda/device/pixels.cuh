#pragma once

#include "hooks.cuh"
#include "transform.cuh"
#include "vector.cuh"
#include "walk.cuh"
#include "work.cuh"

/// Channels side by side (NHWC); blocks have kThreads threads. A block takes some channels of some columns
/// and walks down a strip of rows, which pass through a ring in shared memory: while one step is computed,
/// the rows of the next are on their way. A thread has a vector of channels of a few columns.
namespace lamella::depthwise {

/// One strip of one tile of one class of one image.
struct PixelItem {
  int image, class_h, class_w, strip, tile;

  __device__ PixelItem(const PixelWork& work, unsigned item) {
    const auto next = [&](int count) {
      if (count == 1) return 0;  // as most often, and spares two divisions
      const int digit = static_cast<int>(item % static_cast<unsigned>(count));
      item /= static_cast<unsigned>(count);
      return digit;
    };
    tile = next(work.cut.tiles);
    class_w = next(work.w.output_step);
    strip = next(work.cut.strips);
    class_h = next(work.h.output_step);
    image = static_cast<int>(item);
  }
  /// Of items that are whole images.
  __device__ explicit PixelItem(int of_image) : image(of_image), class_h(0), class_w(0), strip(0), tile(0) {}
  /// On to the next item.
  __device__ __forceinline__ void advance(const PixelWork& work) {
    if (++tile < work.cut.tiles) return;
    tile = 0;
    if (++class_w < work.w.output_step) return;
    class_w = 0;
    if (++strip < work.cut.strips) return;
    strip = 0;
    if (++class_h < work.h.output_step) return;
    class_h = 0;
    ++image;
  }
};

/// Copies rows of one class of pixels to shared memory, where they lie without gaps; what does not exist is
/// zero. A thread has the same columns of every row.
template <class T, int kChunk, int kChannels, int kThreads>
struct PixelCopies {
  static constexpr int kNumbers = kChunk / static_cast<int>(sizeof(T)), kPixelChunks = kChannels / kNumbers;
  static constexpr int kPixels = kThreads / kPixelChunks;  ///< copied side by side
  static_assert(kPixels > 0);
  static_assert(kChannels % kNumbers == 0);
  const T* image;           ///< this thread's channels and first column
  Int64 row_step, by;       ///< from row to row of the tensor; from one of the thread's columns to its next
  int row, row_by, height;  ///< row 0 of the strip, in the image; the distance of rows; rows there are
  unsigned exists;          ///< bit k: the thread's column k does
  int count, start, slot_numbers;  ///< columns of the thread; where they lie in a slot

  /// `channels`: how many of the block's exist.
  __device__ void share(const T* block, int column, int column_by, int width, Int64 pixel_step, int columns,
                        int channels) {
    const int thread = static_cast<int>(threadIdx.x);
    const int pixel = thread / kPixelChunks, lane = thread % kPixelChunks * kNumbers;
    count = pixel < kPixels ? max((columns - pixel + kPixels - 1) / kPixels, 0) : 0;
    start = pixel * kChannels + lane;
    slot_numbers = columns * kChannels;
    by = pixel_step * (kPixels * column_by);
    image = block + lane + (column + pixel * column_by) * pixel_step;
    // Column k is at (column + pixel · column_by) + k · kPixels · column_by.
    const int first = column + pixel * column_by, apart = kPixels * column_by;
    exists = lane < channels ? bits_between(Axis::ceiling(-first, apart), Axis::ceiling(width - first, apart))
                             : 0u;
  }
  /// Begins to copy rows first … first + rows - 1 to slots of `ring`, from `slot` on and around.
  __device__ __forceinline__ void fetch(T* ring, int slots, int slot, int first, int rows) const {
    if constexpr (kChunk < 4) return fetch_numbers(ring, slots, slot, first, rows);
    for (int r = first; r < first + rows; ++r) {
      const int y = row + r * row_by;
      unsigned bits = y >= 0 && y < height ? exists : 0u;
      const T* from = image + y * row_step;
      T* to = ring + slot * slot_numbers + start;
      for (int k = 0; k < count; ++k) {
        if constexpr (kChunk >= 4) copy_ahead<kChunk>(to, from, bits & 1);
        bits >>= 1;
        from += by;
        to += kPixels * kChannels;
      }
      if (++slot == slots) slot = 0;
    }
  }
  /// The same by way of registers, for what is too narrow for the hardware's copies: of several rows at once,
  /// so that not every number is waited for.
  __device__ __forceinline__ void fetch_numbers(T* ring, int slots, int slot, int first, int rows) const {
    constexpr int kRows = 4;
    const int end = first + rows;
    for (int r = first; r < end; r += kRows) {
      const T* from[kRows];
      T* to[kRows];
      bool has_row[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int y = row + (r + i) * row_by;
        has_row[i] = r + i < end && y >= 0 && y < height;
        from[i] = image + y * row_step;
        to[i] = ring + slot * slot_numbers + start;
        if (++slot == slots) slot = 0;
      }
      for (int k = 0; k < count; ++k) {
        T numbers[kRows];
#pragma unroll
        for (int i = 0; i < kRows; ++i) numbers[i] = has_row[i] && (exists >> k & 1) ? from[i][k * by] : T{};
#pragma unroll
        for (int i = 0; i < kRows; ++i)
          if (r + i < end) to[i][k * kPixels * kChannels] = numbers[i];
      }
    }
  }
  /// Passes what this thread has copied through a transform, where it lies; padding stays zero.
  template <class Vector>
  __device__ __forceinline__ void transform(const Vector& vector, T* ring, int slots, int slot, int first,
                                            int rows) const {
    for (int r = first; r < first + rows; ++r) {
      const int y = row + r * row_by;
      unsigned bits = y >= 0 && y < height ? exists : 0u;
      T* at = ring + slot * slot_numbers + start;
      for (int k = 0; k < count; ++k) {
        if (bits & 1) vector.apply(at);
        bits >>= 1;
        at += kPixels * kChannels;
      }
      if (++slot == slots) slot = 0;
    }
  }
};

/// The taps of a block's output channels go through shared memory: neighbours there are far apart in a lane's
/// order.
template <class T, class K, int kOutChannels, int kThreads>
__device__ __forceinline__ void fetch_taps(const Parameters& taps, int first_channel, int channels,
                                           float* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kOutChannels * K::kTaps; i += kThreads) {
    const int c = i / K::kTaps, k = i - c * K::kTaps;
    shared[k * kOutChannels + c] = c < channels
                                       ? load_parameter<T>(taps.taps, taps.taps_are_float32,
                                                           static_cast<Int64>(first_channel + c) * K::kTaps +
                                                               (taps.turned ? K::kTaps - 1 - k : k))
                                       : 0.0f;
  }
}

/// Stores a vector of channels, added to what is there if wanted.
template <class T, int kCount>
__device__ __forceinline__ void put(T* to, const float (&values)[kCount], bool accumulate) {
  if (!accumulate) return store<T>(to, values);
  float sums[kCount];
  load<T>(to, sums);
#pragma unroll
  for (int i = 0; i < kCount; ++i) sums[i] += values[i];
  store<T>(to, sums);
}

}  // namespace lamella::depthwise
