#pragma once

#include "transform.cuh"
#include "vector.cuh"
#include "walk.cuh"
#include "work.cuh"

/// Channels side by side (NHWC), for problems so small that the way to memory and back is what takes time. A
/// thread has a vector of channels of one tile. It asks for all that it needs before it computes, and nothing
/// goes through shared memory but, of a weight's gradient, the sums: what neighbours read twice is in the
/// cache.
namespace lamella::depthwise {

/// One tile of one class of one image, by its number.
struct DirectTile {
  int tile, strip, class_w = 0, class_h = 0, image;

  __device__ __forceinline__ DirectTile(const PixelWork& work, unsigned number) {
    const auto next = [&number](const Divisor& divisor, int count) {
      const unsigned whole = divisor.divide(number);
      const int digit = static_cast<int>(number - whole * static_cast<unsigned>(count));
      number = whole;
      return digit;
    };
    tile = next(work.cut.by_tiles, work.cut.tiles);
    strip = next(work.cut.by_strips, work.cut.strips);
    image = static_cast<int>(number);
    if (work.w.output_step > 1 || work.h.output_step > 1) {
      class_w = image % work.w.output_step;
      image /= work.w.output_step;
      class_h = image % work.h.output_step;
      image /= work.h.output_step;
    }
  }
};

/// What a block has: kVectors vectors of channels from `channel` on, and threads for kTiles tiles of each.
template <class Tile, int kVectors, int kThreads>
struct DirectBlock {
  static constexpr int kTiles = kThreads / kVectors, kChannels = kVectors * Tile::kLanes;
  static_assert(kThreads % kVectors == 0);
  int channel, vector, place;  ///< the block's first channel; the thread's vector and which tile it has
  unsigned group;              ///< of tiles

  __device__ __forceinline__ explicit DirectBlock(const PixelCut& cut) {
    const unsigned block = static_cast<unsigned>(blockIdx.x),
                   count = static_cast<unsigned>(cut.channel_blocks);
    group = cut.by_channel_blocks.divide(block);
    channel = static_cast<int>(block - group * count) * kChannels;
    vector = static_cast<int>(threadIdx.x) % kVectors;
    place = static_cast<int>(threadIdx.x) / kVectors;
  }
};

/// A thread's tile and its first channel.
template <class Tile, int kVectors, int kThreads>
struct DirectPlace : DirectTile {
  int channel;
  bool exists;

  __device__ __forceinline__ explicit DirectPlace(const PixelWork& work)
      : DirectPlace(work, DirectBlock<Tile, kVectors, kThreads>(work.cut)) {}

 private:
  using Block = DirectBlock<Tile, kVectors, kThreads>;
  __device__ __forceinline__ DirectPlace(const PixelWork& work, const Block& block)
      : DirectTile(work, block.group * Block::kTiles + static_cast<unsigned>(block.place)),
        channel(block.channel + block.vector * Tile::kLanes),
        exists(channel < work.cut.channels && image < work.cut.images) {}
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
__global__ void __launch_bounds__(kThreads, 1) forward_direct(const PixelWork work) {
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
__global__ void __launch_bounds__(kThreads, 1) backward_direct(const PixelWork work) {
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

/// Writes sum k of a channel, rounded once.
template <class T>
__device__ __forceinline__ void write_gradient(const GradientTarget& to, Int64 at, float sum) {
  if (to.is_float32) {
    float* const number = static_cast<float*>(to.data) + at;
    *number = to.add ? *number + sum : sum;
  } else {
    T* const number = static_cast<T*>(to.data) + at;
    *number = narrow<T>(to.add ? widen(*number) + sum : sum);
  }
}

/// dw, and with kBias the sums of g, of all tiles: a block has all of some channels', so that it writes them
/// itself where work.dw or work.db says so. Threads add up every so many-th tile, and then the block what its
/// threads have, in their order.
template <class T, class K, class Tile, int kVectors, bool kBias, int kTransforms, int kThreads>
__global__ void __launch_bounds__(kThreads, 1) weigh_direct(const PixelWork work) {
  static_assert(K::kRepeat == 1);
  constexpr int kLanes = Tile::kLanes, kWindow = kInputWindow<K, Tile>, kRows = kInputRows<K, Tile>;
  constexpr int kAll = K::kTaps + 1, kSums = kBias ? kAll : K::kTaps;
  using Block = DirectBlock<Tile, kVectors, kThreads>;
  constexpr int kGroups = Block::kTiles, kStep = (kGroups + 1) * kVectors;  // from sum to sum
  extern __shared__ uint4 shared[];
  float* const list = reinterpret_cast<float*>(shared);  // [sum][group][vector]
  const Block block(work.cut);
  const int channel = block.channel + block.vector * kLanes;
  float sums[kSums][kLanes];
#pragma unroll
  for (int k = 0; k < kSums; ++k)
#pragma unroll
    for (int l = 0; l < kLanes; ++l) sums[k][l] = 0;
  wait_for_stream();

  if (channel < work.cut.channels) {
    Lanes<kTransforms, kLanes> lanes;
    lanes.begin(work.transform, channel);
#pragma unroll 1
    for (int item = block.place; item < work.items; item += kGroups) {
      const DirectTile at(work, static_cast<unsigned>(item));
      const int first_row = at.strip * Tile::kRows, first_column = at.tile * Tile::kColumns;
      DirectWindow<T, kLanes, kRows, kWindow> x(
          work.x, at.image, channel, work.h.origin(at.class_h) + first_row * K::kStrideH * work.h.input_step,
          work.h.input_step, work.h.input,
          work.w.origin(at.class_w) + first_column * K::kStrideW * work.w.input_step, work.w.input_step,
          work.w.input);
      DirectWindow<T, kLanes, Tile::kRows, Tile::kColumns> g(
          work.y, at.image, channel, at.class_h + first_row * work.h.output_step, work.h.output_step,
          work.h.output, at.class_w + first_column * work.w.output_step, work.w.output_step, work.w.output);
      x.fetch();
      g.fetch();
      float gradient[Tile::kRows][Tile::kColumns][kLanes];
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) g.numbers(r, gradient[r]);
      if constexpr (kBias) {
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
          for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
            for (int l = 0; l < kLanes; ++l) sums[K::kTaps][l] += gradient[r][c][l];
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        float row[kWindow][kLanes];
        x.numbers(i, row);
        if constexpr (kTransforms != kPlain) lanes.apply(row, x.inside(i));
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r) {
          const int kh = i - r * K::kStrideH;
          if (kh < 0 || kh >= K::kH) continue;
#pragma unroll
          for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
            for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
              for (int l = 0; l < kLanes; ++l)
                sums[kh * K::kW + kw][l] += row[c * K::kStrideW + kw][l] * gradient[r][c][l];
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kSums; ++k)
#pragma unroll
    for (int l = 0; l < kLanes; ++l)
      list[(k * kLanes + l) * kStep + block.place * kVectors + block.vector] = sums[k][l];
  __syncthreads();

  const bool writes = work.dw.data != nullptr || work.db.data != nullptr;
  for (int i = static_cast<int>(threadIdx.x); i < kSums * Block::kChannels; i += kThreads) {
    const int sum_of = i / kVectors, k = sum_of / kLanes;
    const int c = block.channel + i % kVectors * kLanes + sum_of % kLanes;
    if (c >= work.cut.channels) continue;
    const float* const of_groups = list + sum_of * kStep + i % kVectors;
    float sum = 0;
#pragma unroll 8
    for (int g = 0; g < kGroups; ++g) sum += of_groups[g * kVectors];
    if (!writes)
      work.parts[static_cast<Int64>(c) * kAll + k] = sum;
    else if (k < K::kTaps && work.dw.data != nullptr)
      write_gradient<T>(work.dw, c * work.dw.channel + k / K::kW * work.dw.row + k % K::kW * work.dw.column,
                        sum);
    else if (k == K::kTaps && work.db.data != nullptr)
      write_gradient<T>(work.db, c * work.db.channel, sum);
  }
}

}  // namespace lamella::depthwise
