#pragma once

#include "pixels.cuh"

/// The forward of pixels (pixels.cuh), or the input's gradient at stride 1.
namespace lamella::depthwise {

template <class K, class Tile, int kStages>
inline constexpr int kForwardSlots = kInputRows<K, Tile> + (kStages - 1) * Tile::kRows* K::kStrideH;

/// A block has kChannels of x. kTapRows < kH: taps stay in shared memory. kStatistics: blocks leave moments.
template <class T, class K, class Tile, int kChannels, int kTapRows, int kStages, int kChunk, int kTransforms,
          bool kStatistics, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) forward_pixels(const PixelWork work) {
  constexpr int kOut = Tile::kLanes * K::kRepeat, kStep = Tile::kRows * K::kStrideH;
  constexpr int kSlots = kForwardSlots<K, Tile, kStages>, kVectors = kChannels / Tile::kLanes;
  constexpr int kOutChannels = kChannels * K::kRepeat, kWindow = kInputWindow<K, Tile>;
  constexpr bool kLong = kTapRows < K::kH;
  extern __shared__ uint4 shared[];
  const PixelCut& cut = work.cut;
  const int first_channel =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(cut.channel_blocks)) * kChannels;
  const int channels = min(kChannels, cut.channels - first_channel);
  const unsigned part = blockIdx.x / static_cast<unsigned>(cut.channel_blocks);
  const PixelItem at(work, part);
  const int block_columns = cut.groups * Tile::kColumns;
  const int first_row = at.strip * cut.strip_rows, first_column = at.tile * block_columns;
  const int rows = min(cut.strip_rows, work.h.outputs(at.class_h) - first_row);
  const int columns = work.w.outputs(at.class_w) - first_column;
  Moments* const moments = reinterpret_cast<Moments*>(work.hook.parts) +
                           (static_cast<Int64>(part) * cut.channels + first_channel) * K::kRepeat;
  wait_for_stream();
  if (rows <= 0 || columns <= 0) {
    if constexpr (kStatistics) {
      for (int i = static_cast<int>(threadIdx.x); i < channels * K::kRepeat; i += kThreads)
        moments[i] = {0, 0, 0};
    }
    return;
  }

  T* const ring = reinterpret_cast<T*>(shared);
  const int in_columns = (block_columns - 1) * K::kStrideW + K::kW;
  const int slot_numbers = in_columns * kChannels;
  float* const block_taps =
      reinterpret_cast<float*>(shared) + (kSlots * slot_numbers * static_cast<int>(sizeof(T)) + 15) / 16 * 4;
  const int in_row = work.h.origin(at.class_h) + first_row * K::kStrideH * work.h.input_step;
  const int in_column = work.w.origin(at.class_w) + first_column * K::kStrideW * work.w.input_step;

  PixelCopies<T, kChunk, kChannels, kThreads> copies;
  copies.row_step = work.x.row;
  copies.row = in_row, copies.row_by = work.h.input_step, copies.height = work.h.input;
  copies.share(static_cast<const T*>(work.x.data) + at.image * work.x.image + first_channel, in_column,
               work.w.input_step, work.w.input, work.x.pixel, in_columns, channels);
  const int in_rows = (rows - 1) * K::kStrideH + K::kH;
  const auto fetch = [&](int first, int count, int slot) {
    copies.fetch(ring, kSlots, slot, first, min(count, in_rows - first));
    end_copies();
  };
  fetch(0, kInputRows<K, Tile>, 0);
#pragma unroll
  for (int s = 0; s < kStages - 2; ++s) {
    const int first = kInputRows<K, Tile> + s * kStep;
    fetch(first, kStep, first);
  }
  fetch_taps<T, K, kOutChannels, kThreads>(work.taps, first_channel * K::kRepeat, channels * K::kRepeat,
                                           block_taps);

  const int vector = static_cast<int>(threadIdx.x) % kVectors,
            group = static_cast<int>(threadIdx.x) / kVectors;
  const int channel = vector * Tile::kLanes, out_channel = channel * K::kRepeat;
  const bool works = group < cut.groups && channel < channels;
  const int left =
      works ? min(Tile::kColumns, columns - group * Tile::kColumns) : 0;  // columns of this thread
  float bias[kOut], taps[kLong ? 1 : K::kTaps][kOut];
#pragma unroll
  for (int o = 0; o < kOut; ++o)
    bias[o] = works ? load_bias<T>(work.taps, first_channel * K::kRepeat + out_channel + o) : 0.0f;
  // A thread transforms what it has copied, before the others look at it.
  VectorTransform<T, PixelCopies<T, kChunk, kChannels, kThreads>::kNumbers, kTransforms> vector_transform;
  if constexpr (kTransforms != kPlain)
    vector_transform.begin(
        work.transform, first_channel + static_cast<int>(threadIdx.x) % copies.kPixelChunks * copies.kNumbers,
        cut.channels);

  const T* const mine = ring + group * Tile::kColumns * K::kStrideW * kChannels + channel;
  T* out = static_cast<T*>(work.y.data) + at.image * work.y.image + first_channel * K::kRepeat + out_channel +
           (at.class_w + (first_column + group * Tile::kColumns) * work.w.output_step) * work.y.pixel +
           (at.class_h + first_row * work.h.output_step) * work.y.row;
  const Int64 out_row = work.h.output_step * work.y.row, out_pixel = work.w.output_step * work.y.pixel;

  ThreadMoments<kStatistics, kOut> statistics;
  int slot = 0, ahead = kInputRows<K, Tile> + (kStages - 2) * kStep;
#pragma unroll 1
  for (int first = 0; first < rows; first += Tile::kRows) {
    wait_for_copies<kStages - 2>();
    if constexpr (kTransforms != kPlain) {
      // Rows that have not been here before; less than none are known where the stride leaves rows out.
      const int known = first == 0 ? 0 : kInputRows<K, Tile> - kStep, fresh = first * K::kStrideH + known;
      int at_slot = slot + known;
      at_slot += at_slot < 0 ? kSlots : at_slot >= kSlots ? -kSlots : 0;
      copies.transform(vector_transform, ring, kSlots, at_slot, fresh,
                       min(kInputRows<K, Tile> - known, in_rows - fresh));
    }
    __syncthreads();
    {
      int free = slot + kInputRows<K, Tile> + (kStages - 2) * kStep;
      if (free >= kSlots) free -= kSlots;
      fetch(ahead, kStep, free);
      ahead += kStep;
    }
    if (left > 0) {
      const auto load_row = [&](int i, float(&x)[kWindow][Tile::kLanes]) {
        int at_slot = slot + i;
        if (at_slot >= kSlots) at_slot -= kSlots;
        const T* const row = mine + at_slot * slot_numbers;
#pragma unroll
        for (int j = 0; j < kWindow; ++j) load<T>(row + j * kChannels, x[j]);
      };
      const auto row_done = [&](int r, const float(&y)[Tile::kColumns][kOut]) {
        if (first + r >= rows) return;
        T* to = out + r * out_row;
        statistics.first(y[0]);
#pragma unroll
        for (int c = 0; c < Tile::kColumns; ++c) {
          if (c < left) {
            put<T>(to, y[c], work.accumulate);
            statistics.add(y[c]);
          }
          to += out_pixel;
        }
      };
      if constexpr (kLong) {
        const auto load_taps = [&](int kh, float(&some)[kTapRows * K::kW][kOut]) {
#pragma unroll
          for (int k = 0; k < kTapRows * K::kW; ++k)
#pragma unroll
            for (int o = 0; o < kOut; ++o)
              some[k][o] = kh * K::kW + k < K::kTaps
                               ? block_taps[(kh * K::kW + k) * kOutChannels + out_channel + o]
                               : 0.0f;
        };
        // Rows behind the last meet taps of zero, but must be numbers.
        const int last_row = min(kInputRows<K, Tile>, in_rows - first * K::kStrideH) - 1;
        const auto load_existing_row = [&](int i, float(&x)[kWindow][Tile::kLanes]) {
          load_row(min(i, last_row), x);
        };
        correlate_long<K, Tile, kTapRows>(bias, load_taps, load_existing_row, row_done);
      } else {
        if (first == 0) {
#pragma unroll
          for (int k = 0; k < K::kTaps; ++k)
#pragma unroll
            for (int o = 0; o < kOut; ++o) taps[k][o] = block_taps[k * kOutChannels + out_channel + o];
        }
        correlate<K, Tile>(taps, bias, load_row, row_done);
      }
    }
    out += Tile::kRows * out_row;
    slot += kStep;
    if (slot >= kSlots) slot -= kSlots;
  }
  if constexpr (kStatistics) {
    wait_for_copies<0>();
    __syncthreads();
    Moments* const list = reinterpret_cast<Moments*>(shared);  // [group][channel]
    if (works) {
#pragma unroll
      for (int o = 0; o < kOut; ++o) list[group * kOutChannels + out_channel + o] = statistics.of(o);
    }
    merge_all(list, cut.groups, kOutChannels, channels * K::kRepeat, 1, static_cast<int>(threadIdx.x),
              kThreads, [] { __syncthreads(); });
    for (int i = static_cast<int>(threadIdx.x); i < channels * K::kRepeat; i += kThreads)
      moments[i] = list[i];
  }
}

}  // namespace lamella::depthwise
