#pragma once

#include "transform.cuh"
#include "vector.cuh"
#include "walk.cuh"
#include "work.cuh"

/// Channels side by side (NHWC), for problems so small that the way to memory and back is what takes time. A
/// thread has a vector of channels of one tile. It asks for all that it needs before it computes, and nothing
/// goes through shared memory: what neighbours read twice is in the cache.
namespace lamella::depthwise {

/// Which tile of which class of which image a thread has, and its first channel.
template <class Tile, int kVectors, int kThreads>
struct DirectPlace {
  int channel, tile, strip, class_w = 0, class_h = 0, image;
  bool exists;

  __device__ __forceinline__ explicit DirectPlace(const PixelWork& work) {
    constexpr unsigned kTiles = kThreads / kVectors;  // of a block
    static_assert(kThreads % kVectors == 0);
    const PixelCut& cut = work.cut;
    const unsigned thread = static_cast<unsigned>(threadIdx.x), block = static_cast<unsigned>(blockIdx.x);
    const unsigned group = cut.by_channel_blocks.divide(block);
    const unsigned vectors = (block - group * static_cast<unsigned>(cut.channel_blocks)) * kVectors;
    channel = static_cast<int>(vectors + thread % kVectors) * Tile::kLanes;
    const auto next = [](unsigned& number, const Divisor& divisor, int count) {
      const unsigned whole = divisor.divide(number);
      const int digit = static_cast<int>(number - whole * static_cast<unsigned>(count));
      number = whole;
      return digit;
    };
    unsigned number = group * kTiles + thread / kVectors;
    tile = next(number, cut.by_tiles, cut.tiles);
    strip = next(number, cut.by_strips, cut.strips);
    image = static_cast<int>(number);
    if (work.w.output_step > 1 || work.h.output_step > 1) {
      class_w = image % work.w.output_step;
      image /= work.w.output_step;
      class_h = image % work.h.output_step;
      image /= work.h.output_step;
    }
    exists = channel < cut.channels && image < cut.images;
  }
};

/// Rows and columns of a tensor around a tile; what does not exist is zero.
template <class T, int kLanes, int kRows, int kColumns>
struct DirectWindow {
  static constexpr int kBytes = kLanes * static_cast<int>(sizeof(T));
  T* data;
  Int64 row_step, column_step;
  bool has_row[kRows], has_column[kColumns];
  Words<kBytes> read[kRows][kColumns];  ///< as they lie in memory

  __device__ __forceinline__ DirectWindow(const Pixels& tensor, int image, int channel, int row, int row_by,
                                          int height, int column, int column_by, int width)
      : data(static_cast<T*>(tensor.data) + image * tensor.image + row * tensor.row + column * tensor.pixel +
             channel),
        row_step(row_by * tensor.row),
        column_step(column_by * tensor.pixel) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) has_row[i] = row + i * row_by >= 0 && row + i * row_by < height;
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
      has_column[j] = column + j * column_by >= 0 && column + j * column_by < width;
  }
  __device__ __forceinline__ bool has(int i, int j) const { return has_row[i] && has_column[j]; }
  __device__ __forceinline__ void fetch() {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const T* const from = data + i * row_step + j * column_step;
        read[i][j] = {};
        if (!has(i, j)) continue;
        if constexpr (kBytes < 4)
          read[i][j].word[0] = from->bits;
        else
          read[i][j] = load_words<kBytes>(from);
      }
  }
  __device__ __forceinline__ void numbers(int i, float (&numbers)[kColumns][kLanes]) const {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const Words<kBytes>& words = read[i][j];
      if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int l = 0; l < kLanes; ++l) numbers[j][l] = __uint_as_float(words.word[l]);
      } else if constexpr (kLanes == 1) {
        numbers[j][0] = widen(T{static_cast<unsigned short>(words.word[0])});
      } else {
#pragma unroll
        for (int l = 0; l < kLanes; l += 2)
          widen_pair(words.word[l / 2], T{}, numbers[j][l], numbers[j][l + 1]);
      }
    }
  }
  /// Which columns of a row exist: bits.
  __device__ __forceinline__ unsigned inside(int i) const {
    unsigned bits = 0;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) bits |= has(i, j) ? 1u << j : 0u;
    return bits;
  }
  /// Stores row i, added to what was fetched if wanted.
  __device__ __forceinline__ void put(int i, const float (&values)[kColumns][kLanes], bool accumulate) {
    float sums[kColumns][kLanes];
    if (accumulate) numbers(i, sums);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int l = 0; l < kLanes; ++l) sums[j][l] = accumulate ? sums[j][l] + values[j][l] : values[j][l];
      if (has(i, j)) store<T>(data + i * row_step + j * column_step, sums[j]);
    }
  }
};

/// The taps of neighbouring channels as they lie in memory, float32 or T.
template <class T, bool kFloats, int kCount>
struct DirectTaps {
  static constexpr int kNumber = kFloats ? 4 : static_cast<int>(sizeof(T)), kBytes = kCount * kNumber;
  static constexpr int kEven = kBytes & -kBytes, kVector = kEven < 16 ? kEven : 16;
  unsigned word[(kBytes + 3) / 4];

  __device__ __forceinline__ void fetch(const Parameters& parameters, Int64 number) {
    const auto* const from = static_cast<const unsigned char*>(parameters.taps) + number * kNumber;
    if (kVector > kNumber && reinterpret_cast<unsigned long long>(parameters.taps) % kVector == 0) {
      if constexpr (kVector >= 4) {
#pragma unroll
        for (int i = 0; i < kBytes; i += kVector) {
          const Words<kVector> words = load_words<kVector>(from + i);
#pragma unroll
          for (int w = 0; w < kVector / 4; ++w) word[i / 4 + w] = words.word[w];
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if constexpr (kNumber == 4)
          word[i] = reinterpret_cast<const unsigned*>(from)[i];
        else
          word[i / 2] = (i % 2 == 0 ? 0u : word[i / 2]) |
                        static_cast<unsigned>(reinterpret_cast<const unsigned short*>(from)[i]) << i % 2 * 16;
      }
    }
  }
  __device__ __forceinline__ float operator[](int i) const {
    if constexpr (kNumber == 4)
      return __uint_as_float(word[i]);
    else
      return widen(T{static_cast<unsigned short>(word[i / 2] >> i % 2 * 16)});
  }
};

/// Of neighbouring channels.
template <class T, int kLanes>
__device__ __forceinline__ void load_biases(const Parameters& parameters, int channel,
                                            float (&bias)[kLanes]) {
#pragma unroll
  for (int l = 0; l < kLanes; ++l) bias[l] = 0;
  if (parameters.bias == nullptr) return;
  if (parameters.bias_is_float32) {
#pragma unroll
    for (int l = 0; l < kLanes; ++l) bias[l] = static_cast<const float*>(parameters.bias)[channel + l];
  } else {
#pragma unroll
    for (int l = 0; l < kLanes; ++l) bias[l] = widen(static_cast<const T*>(parameters.bias)[channel + l]);
  }
}

/// kVectors: of channels, that neighbouring threads have. kExactTaps: they are float32. kTurned: the last
/// first; Parameters are not asked for either.
template <class T, class K, class Tile, int kVectors, bool kExactTaps, bool kTurned, int kTransforms,
          int kThreads>
__global__ void __launch_bounds__(kThreads) forward_direct(const PixelWork work) {
  static_assert(K::kRepeat == 1);
  constexpr int kLanes = Tile::kLanes, kWindow = kInputWindow<K, Tile>;
  const DirectPlace<Tile, kVectors, kThreads> at(work);
  const int first_row = at.strip * Tile::kRows, first_column = at.tile * Tile::kColumns;
  DirectWindow<T, kLanes, kInputRows<K, Tile>, kWindow> x(
      work.x, at.image, at.channel, work.h.origin(at.class_h) + first_row * K::kStrideH * work.h.input_step,
      work.h.input_step, work.h.input,
      work.w.origin(at.class_w) + first_column * K::kStrideW * work.w.input_step, work.w.input_step,
      work.w.input);
  wait_for_stream();
  if (!at.exists) return;

  DirectTaps<T, kExactTaps, K::kTaps * kLanes> read_taps;
  read_taps.fetch(work.taps, static_cast<Int64>(at.channel) * K::kTaps);
  x.fetch();
  DirectWindow<T, kLanes, Tile::kRows, Tile::kColumns> y(
      work.y, at.image, at.channel, at.class_h + first_row * work.h.output_step, work.h.output_step,
      work.h.output, at.class_w + first_column * work.w.output_step, work.w.output_step, work.w.output);
  Lanes<kTransforms, kLanes> lanes;
  lanes.begin(work.transform, at.channel);
  if (work.accumulate) y.fetch();
  float bias[kLanes], taps[K::kTaps][kLanes];
  load_biases<T>(work.taps, at.channel, bias);
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k)
#pragma unroll
    for (int l = 0; l < kLanes; ++l) taps[k][l] = read_taps[l * K::kTaps + (kTurned ? K::kTaps - 1 - k : k)];

  const auto load_row = [&](int i, float(&row)[kWindow][kLanes]) {
    x.numbers(i, row);
    if constexpr (kTransforms != kPlain) lanes.apply(row, x.inside(i));
  };
  const auto row_done = [&](int r, const float(&row)[Tile::kColumns][kLanes]) {
    y.put(r, row, work.accumulate);
  };
  correlate<K, Tile>(taps, bias, load_row, row_done);
}

/// dx by its definition, for strides above one. A tile is one of x in units of the stride.
template <class T, class K, class Tile, int kVectors, bool kExactTaps, int kThreads>
__global__ void __launch_bounds__(kThreads) backward_direct(const PixelWork work) {
  static_assert(K::kRepeat == 1);
  constexpr int kLanes = Tile::kLanes, kWindow = kOutputWindow<K, Tile>;
  constexpr int kWidth = Tile::kColumns * K::kStrideW;
  const DirectPlace<Tile, kVectors, kThreads> at(work);
  const auto begin = [](const Axis& axis, int residue, int stride) {
    const int before = -axis.origin(residue);
    return Axis::floor(axis.input_step == 1 ? before : Axis::ceiling(before, axis.input_step), stride);
  };
  const int row = begin(work.h, at.class_h, K::kStrideH) + at.strip * Tile::kRows,
            column = begin(work.w, at.class_w, K::kStrideW) + at.tile * Tile::kColumns;
  DirectWindow<T, kLanes, kOutputRows<K, Tile>, kWindow> g(
      work.y, at.image, at.channel, at.class_h + (row - (K::kReachH - 1)) * work.h.output_step,
      work.h.output_step, work.h.output, at.class_w + (column - (K::kReachW - 1)) * work.w.output_step,
      work.w.output_step, work.w.output);
  wait_for_stream();
  if (!at.exists) return;

  DirectTaps<T, kExactTaps, K::kTaps * kLanes> read_taps;
  read_taps.fetch(work.taps, static_cast<Int64>(at.channel) * K::kTaps);
  g.fetch();
  DirectWindow<T, kLanes, Tile::kRows * K::kStrideH, kWidth> dx(
      work.dx, at.image, at.channel, work.h.origin(at.class_h) + row * K::kStrideH * work.h.input_step,
      work.h.input_step, work.h.input, work.w.origin(at.class_w) + column * K::kStrideW * work.w.input_step,
      work.w.input_step, work.w.input);
  if (work.accumulate) dx.fetch();
  float taps[K::kTaps][kLanes];
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k)
#pragma unroll
    for (int l = 0; l < kLanes; ++l) taps[k][l] = read_taps[l * K::kTaps + k];
  const auto load_gradient = [&](int j, float(&some)[kWindow][kLanes]) { g.numbers(j, some); };
  const auto load_input = [](int, float(&)[kWidth][kLanes]) {};
  const auto store_row = [&](int i, const float(&some)[kWidth][kLanes]) { dx.put(i, some, work.accumulate); };
  propagate<K, Tile, true, false>(taps, taps, load_gradient, load_input, store_row);
}

}  // namespace lamella::depthwise
