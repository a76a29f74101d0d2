#pragma once

#include "pixels.cuh"

/// The gradients of pixels (pixels.cuh).
namespace lamella::depthwise {

template <class K, class Tile, int kStages>
inline constexpr int kGradientSlots = kOutputRows<K, Tile> + (kStages - 1) * Tile::kRows;
template <class K, class Tile, int kStages>
inline constexpr int kInputSlots = Tile::kRows* K::kStrideH* kStages;

/// dx, the parts of dw, or both from the same walk. With kBias the sums of g are added up, too: of all rows
/// and columns of the window it is the one `owner_h`, `owner_w` before a unit that counts, so that each g
/// counts once. kTapRows < kH: dx alone takes its taps from shared memory; for dw alone the rows of taps are
/// shared out among groups of threads. kNormSums: dx goes back through it, and blocks leave its sums; x
/// passes through the ring then, too.
template <class T, class K, class Tile, int kChannels, int kTapRows, bool kInput, bool kWeight, bool kBias,
          int kStages, int kChunk, int kTransforms, int kNormSums, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_pixels(const PixelWork work) {
  constexpr int kOut = Tile::kLanes * K::kRepeat, kWidth = Tile::kColumns * K::kStrideW;
  constexpr int kGSlots = kGradientSlots<K, Tile, kStages>, kXSlots = kInputSlots<K, Tile, kStages>;
  constexpr int kXStep = Tile::kRows * K::kStrideH, kWindow = kOutputWindow<K, Tile>;
  constexpr int kOutChannels = kChannels * K::kRepeat, kVectors = kChannels / Tile::kLanes;
  constexpr bool kLong = kTapRows < K::kH;
  static_assert(!kLong || (kInput != kWeight && kTapRows % K::kStrideH == 0));
  static_assert(kNormSums == kPlain || (kInput && !kLong));
  // What a thread has of the kernel for dw.
  using Part = Kernel<kTapRows, K::kW, K::kStrideH, K::kStrideW, K::kRepeat>;
  constexpr int kTapGroups = kWeight ? (K::kH + kTapRows - 1) / kTapRows : 1;
  constexpr int kSums = kWeight ? Part::kTaps : 1;
  // Without x, chunks of g may be wider than a block's channels of x.
  constexpr int kNumber = static_cast<int>(sizeof(T)),
                kXChunk = kChannels * kNumber % kChunk == 0 ? kChunk : kNumber;
  // The group of taps that meets the row of the window whose sum is the bias's.
  const int owner_group = kTapGroups > 1 ? work.owner_h * K::kStrideH / kTapRows : 0;
  extern __shared__ uint4 shared[];
  const PixelCut& cut = work.cut;
  const int first_channel =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(cut.channel_blocks)) * kChannels;
  const int part = static_cast<int>(blockIdx.x / static_cast<unsigned>(cut.channel_blocks));
  const int channels = min(kChannels, cut.channels - first_channel), first_out = first_channel * K::kRepeat;
  const int block_units = cut.groups * Tile::kColumns, g_columns = block_units + K::kReachW - 1;
  const int x_columns = block_units * K::kStrideW;
  T* const g_ring = reinterpret_cast<T*>(shared);
  T* const x_ring = g_ring + (kGSlots * g_columns * kOutChannels * static_cast<int>(sizeof(T)) + 15) / 16 *
                                 16 / static_cast<int>(sizeof(T));
  float* const block_sums = reinterpret_cast<float*>(shared);  // when the rings are not in use

  const int vector = static_cast<int>(threadIdx.x) % kVectors,
            place = static_cast<int>(threadIdx.x) / kVectors;
  const int tap_group = kTapGroups > 1 ? place / cut.groups : 0, group = place - tap_group * cut.groups;
  const int channel = vector * Tile::kLanes, out_channel = channel * K::kRepeat;
  const bool works = group < cut.groups && tap_group < kTapGroups && channel < channels;
  float taps[kInput && !kLong ? K::kTaps : 1][kOut], sums[kSums][kOut], total[kOut];
  float* const block_taps = kLong ? reinterpret_cast<float*>(g_ring) + work.cut.tap_floats : block_sums;
  wait_for_stream();
  if constexpr (kInput)
    fetch_taps<T, K, kOutChannels, kThreads>(work.taps, first_out, channels * K::kRepeat, block_taps);
  if constexpr (kInput && !kLong) {
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K::kTaps; ++k)
#pragma unroll
      for (int o = 0; o < kOut; ++o) taps[k][o] = block_taps[k * kOutChannels + out_channel + o];
  }
#pragma unroll
  for (int o = 0; o < kOut; ++o) total[o] = 0;
  if constexpr (kWeight) {
#pragma unroll
    for (int k = 0; k < kSums; ++k)
#pragma unroll
      for (int o = 0; o < kOut; ++o) sums[k][o] = 0;
  }
  Lanes<kTransforms, Tile::kLanes> lanes;
  lanes.begin(work.transform, first_channel + (works ? channel : 0));
  ThreadNormSums<kNormSums, Tile::kLanes> norm;
  norm.begin(work.transform, work.hook, first_channel + (works ? channel : 0));

  const int last = min(work.items, (part + 1) * work.items_per_part);
#pragma unroll 1
  for (int item = part * work.items_per_part; item < last; ++item) {
    const PixelItem at(work, static_cast<unsigned>(item));
    const Units class_rows = units_of(work.h, at.class_h, K::kStrideH, kBias, work.owner_h);
    const Units class_columns = units_of(work.w, at.class_w, K::kStrideW, kBias, work.owner_w);
    const int first_row = class_rows.begin + at.strip * cut.strip_rows;
    const int rows = min(cut.strip_rows, class_rows.end - first_row);
    const int first_column = class_columns.begin + at.tile * block_units;
    if (rows <= 0 || first_column >= class_columns.end) continue;
    const int in_row = work.h.origin(at.class_h) + first_row * K::kStrideH * work.h.input_step;
    const int in_column = work.w.origin(at.class_w) + first_column * K::kStrideW * work.w.input_step;
    PixelCopies<T, kChunk, kOutChannels, kThreads> g_copies;
    g_copies.row_step = work.y.row, g_copies.row_by = work.h.output_step, g_copies.height = work.h.output;
    g_copies.row = at.class_h + (first_row - (K::kReachH - 1)) * work.h.output_step;
    g_copies.share(static_cast<const T*>(work.y.data) + at.image * work.y.image + first_out,
                   at.class_w + (first_column - (K::kReachW - 1)) * work.w.output_step, work.w.output_step,
                   work.w.output, work.y.pixel, g_columns, channels * K::kRepeat);
    PixelCopies<T, kXChunk, kChannels, kThreads> x_copies;
    x_copies.row_step = work.x.row, x_copies.row_by = work.h.input_step, x_copies.height = work.h.input;
    x_copies.row = in_row;
    x_copies.share(static_cast<const T*>(work.x.data) + at.image * work.x.image + first_channel, in_column,
                   work.w.input_step, work.w.input, work.x.pixel, x_columns, channels);

    // A step is kRows units: so many new rows of g, and `stride` times as many of x.
    const auto fetch = [&](int g_first, int g_count, int g_slot, int x_first, int x_slot) {
      g_copies.fetch(g_ring, kGSlots, g_slot, g_first, min(g_count, rows + K::kReachH - 1 - g_first));
      if constexpr (kWeight || kNormSums != kPlain)
        x_copies.fetch(x_ring, kXSlots, x_slot, x_first, min(kXStep, rows * K::kStrideH - x_first));
      end_copies();
    };
    __syncthreads();  // the rings are free: of the item before, or of the taps
    fetch(0, kOutputRows<K, Tile>, 0, 0, 0);
#pragma unroll
    for (int s = 1; s < kStages - 1; ++s) {
      const int first = kOutputRows<K, Tile> + (s - 1) * Tile::kRows;
      fetch(first, Tile::kRows, first, s * kXStep, s * kXStep);
    }

    const int unit = first_column + group * Tile::kColumns;  // the thread's first
    const int x_column = in_column + group * kWidth * work.w.input_step;
    const unsigned x_inside = bits_between(Axis::ceiling(-x_column, work.w.input_step),
                                           Axis::ceiling(work.w.input - x_column, work.w.input_step));
    const int own_column = K::kReachW - 1 - work.owner_w;
    const T* const my_g = g_ring + group * Tile::kColumns * kOutChannels + out_channel;
    const T* const my_x = x_ring + group * kWidth * kChannels + channel;
    T* const out = static_cast<T*>(work.dx.data) + at.image * work.dx.image + first_channel + channel +
                   x_column * work.dx.pixel;
    const bool active = works && unit < class_columns.end;

    int g_slot = 0, x_slot = 0, g_ahead = kOutputRows<K, Tile> + (kStages - 2) * Tile::kRows,
        x_ahead = (kStages - 1) * kXStep;
#pragma unroll 1
    for (int first = 0; first < rows; first += Tile::kRows) {
      wait_for_copies<kStages - 2>();
      __syncthreads();
      {
        int g_free = g_slot + kOutputRows<K, Tile> + (kStages - 2) * Tile::kRows,
            x_free = x_slot + (kStages - 1) * kXStep;
        if (g_free >= kGSlots) g_free -= kGSlots;
        if (x_free >= kXSlots) x_free -= kXSlots;
        fetch(g_ahead, Tile::kRows, g_free, x_ahead, x_free);
        g_ahead += Tile::kRows, x_ahead += kXStep;
      }
      if (active) {
        const auto load_gradient = [&](int j, float(&g)[kWindow][kOut]) {
          int slot = g_slot + (kLong ? max(j, 0) : j);
          if (slot >= kGSlots) slot -= kGSlots;
          const T* const row = my_g + slot * g_columns * kOutChannels;
          // Behind the strip there is what an earlier step left, perhaps no number.
          if ((!kLong || j >= 0) && first + j < rows + K::kReachH - 1) {
#pragma unroll
            for (int i = 0; i < kWindow; ++i) load<T>(row + i * kOutChannels, g[i]);
          } else {
#pragma unroll
            for (int i = 0; i < kWindow; ++i)
#pragma unroll
              for (int o = 0; o < kOut; ++o) g[i][o] = 0;
          }
          if constexpr (kBias) {
            const int own = j - (K::kReachH - 1) + work.owner_h;  // the unit whose it is
            if (own >= 0 && own < Tile::kRows && first + own < rows && tap_group == owner_group) {
#pragma unroll
              for (int i = 0; i < kWindow; ++i)
#pragma unroll
                for (int o = 0; o < kOut; ++o)
                  if (i >= own_column && i < own_column + Tile::kColumns) total[o] += g[i][o];
            }
          }
        };
        const auto load_input = [&](int i, float(&x)[kWidth][Tile::kLanes]) {
          const T* const row = my_x + (x_slot + i) * x_columns * kChannels;
          if (first * K::kStrideH + i < rows * K::kStrideH) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) load<T>(row + j * kChannels, x[j]);
            const int y = in_row + (first * K::kStrideH + i) * work.h.input_step;
            lanes.apply(x, y >= 0 && y < work.h.input ? x_inside : 0u);
          } else {
#pragma unroll
            for (int j = 0; j < kWidth; ++j)
#pragma unroll
              for (int l = 0; l < Tile::kLanes; ++l) x[j][l] = 0;
          }
        };
        const auto store_row = [&](int i, const float(&dx)[kWidth][Tile::kLanes]) {
          const int y = in_row + (first * K::kStrideH + i) * work.h.input_step;
          if (first * K::kStrideH + i >= rows * K::kStrideH || y < 0 || y >= work.h.input) return;
          T* to = out + y * work.dx.row;
          const T* const z_row = my_x + (x_slot + i) * x_columns * kChannels;
#pragma unroll
          for (int j = 0; j < kWidth; ++j) {
            if (x_inside >> j & 1) {
              if constexpr (kNormSums != kPlain) {
                float masked[Tile::kLanes], z[Tile::kLanes];
#pragma unroll
                for (int l = 0; l < Tile::kLanes; ++l) masked[l] = dx[j][l];
                load<T>(z_row + j * kChannels, z);
                norm.pass(masked, z);
                put<T>(to, masked, work.accumulate);
              } else {
                put<T>(to, dx[j], work.accumulate);
              }
            }
            to += work.w.input_step * work.dx.pixel;
          }
        };
        if constexpr (kInput && kLong) {
          const auto load_taps = [&](int kh, float(&some)[kTapRows * K::kW][kOut]) {
#pragma unroll
            for (int k = 0; k < kTapRows * K::kW; ++k)
#pragma unroll
              for (int o = 0; o < kOut; ++o)
                some[k][o] = kh * K::kW + k < K::kTaps
                                 ? block_taps[(kh * K::kW + k) * kOutChannels + out_channel + o]
                                 : 0.0f;
          };
          TileSums<K, Tile> dx;
          dx.clear();
          propagate_long<K, Tile, kTapRows>(load_taps, load_gradient, dx);
          dx.store(store_row);
        } else if constexpr (kInput && kWeight) {
          propagate<K, Tile, true, true>(taps, sums, load_gradient, load_input, store_row);
        } else if constexpr (kInput) {
          propagate<K, Tile, true, false>(taps, taps, load_gradient, load_input, store_row);
        } else {
          // Row 0 of the part's window is this row of the whole one's.
          const int shift = K::kReachH - Part::kReachH - tap_group * (kTapRows / K::kStrideH);
          const auto load_part = [&](int j, float(&g)[kWindow][kOut]) { load_gradient(j + shift, g); };
          propagate<Part, Tile, false, true>(sums, sums, load_part, load_input, store_row);
        }
      }
      g_slot += Tile::kRows;
      if (g_slot >= kGSlots) g_slot -= kGSlots;
      x_slot += kXStep;
      if (x_slot >= kXSlots) x_slot -= kXSlots;
    }
  }

  if constexpr (kWeight) {
    // Over the groups of columns in their order, so many taps of each group of taps at a time.
    constexpr int kAll = K::kTaps + 1, kOwn = kSums + 1, kAtOnce = 5;
    wait_for_copies<0>();
    const Int64 row = static_cast<Int64>(part) * cut.channels * K::kRepeat + first_out;
    float* const to = work.parts + row * kAll;
    const int a_tap = cut.groups * kOutChannels;
#pragma unroll
    for (int k0 = 0; k0 < kOwn; k0 += kAtOnce) {
      __syncthreads();
      if (works) {
#pragma unroll
        for (int k = k0; k < kOwn && k < k0 + kAtOnce; ++k)
#pragma unroll
          for (int o = 0; o < kOut; ++o)
            block_sums[((tap_group * kAtOnce + k - k0) * cut.groups + group) * kOutChannels + out_channel +
                       o] = k == kSums ? total[o] : sums[k == kSums ? 0 : k][o];
      }
      __syncthreads();
      const int some = min(kAtOnce, kOwn - k0), of_group = channels * K::kRepeat * some;
      for (int i = static_cast<int>(threadIdx.x); i < of_group * kTapGroups; i += kThreads) {
        const int taps_of = i / of_group, rest = i - taps_of * of_group, c = rest / some, k = rest - c * some;
        const int tap = k0 + k == kSums ? K::kTaps : taps_of * kSums + k0 + k;
        if (k0 + k == kSums ? taps_of != owner_group : tap >= K::kTaps) continue;
        float sum = 0;
        for (int g = 0; g < cut.groups; ++g)
          sum += block_sums[(taps_of * kAtOnce + k) * a_tap + g * kOutChannels + c];
        to[c * kAll + tap] = sum;
      }
    }
  }
  if constexpr (kNormSums != kPlain) {
    wait_for_copies<0>();
    __syncthreads();
    NormSums* const list = reinterpret_cast<NormSums*>(shared);  // [group][channel]
    if (works) {
#pragma unroll
      for (int l = 0; l < Tile::kLanes; ++l) list[group * kChannels + channel + l] = norm.of(l);
    }
    merge_all(list, cut.groups, kChannels, channels, 1, static_cast<int>(threadIdx.x), kThreads,
              [] { __syncthreads(); });
    NormSums* const to = reinterpret_cast<NormSums*>(work.hook.parts) +
                         static_cast<Int64>(part) * cut.channels + first_channel;
    for (int i = static_cast<int>(threadIdx.x); i < channels; i += kThreads) to[i] = list[i];
  }
}

}  // namespace lamella::depthwise
