#pragma once

#include "float_boxes.cuh"

/// The gradients of float boxes (float_boxes.cuh).
namespace lamella::depthwise {

template <class K, class Tile, bool kReadsInput>
struct BackwardFloatBoxes {
  static constexpr int kGRows = Tile::kStepRows + K::kReachH - 1;
  static constexpr int kPageRows = Tile::kWhole ? kGRows : Tile::kStepRows;  ///< of g
  static constexpr int kReach = (kGRows + kPageRows - 1) / kPageRows;
  static constexpr int kXRows = Tile::kStepRows * K::kStrideH;
  static constexpr int kGColumns = Tile::kUnits + K::kReachW - 1, kXColumns = Tile::kUnits * K::kStrideW;
  // From one row, and one image, of a page to the next, in numbers.
  static constexpr int kGRow = kGColumns * Tile::kChannels, kXRow = kXColumns * Tile::kChannels;
  static constexpr int kGImage = kPageRows * kGRow, kXImage = kXRows * kXRow;
  static constexpr int kGBytes = Tile::box_bytes(Tile::kImages * kPageRows * kGColumns);
  static constexpr int kPageBytes =
      kGBytes + (kReadsInput ? Tile::box_bytes(Tile::kImages * kXRows * kXColumns) : 0);
  static constexpr int kBarriers = Tile::kPages * kPageBytes;
  static_assert(Tile::kPages >= kReach);
};

/// Sums of taps that are added up at once when a block ends, of all its places.
inline constexpr int kSumsAtOnce = 5;

/// dx of a tile, the parts of dw, or both, in units of the stride: backward_pixels(), from boxes.
template <class T, class K, class Tile, bool kInput, bool kWeight, bool kBias, int kTransforms, int kNormSums,
          int kBlocksOfSm>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksOfSm)
    backward_float_boxes(const __grid_constant__ BoxWork boxes) {
  constexpr bool kReadsInput = kWeight || kNormSums != kPlain;
  using Sizes = BackwardFloatBoxes<K, Tile, kReadsInput>;
  constexpr int kLanes = Tile::kLanes, kChannels = Tile::kChannels, kPages = Tile::kPages;
  constexpr int kReach = Sizes::kReach, kWidth = Tile::kColumns * K::kStrideW;
  constexpr int kWindow = kOutputWindow<K, Tile>, kAll = K::kTaps + 1;
  static_assert(sizeof(T) == 4 && K::kRepeat == 1 && (kInput || kNormSums == kPlain));
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const int first_channel =
      static_cast<int>(blockIdx.x % static_cast<unsigned>(cut.channel_blocks)) * kChannels;
  const int part = static_cast<int>(blockIdx.x / static_cast<unsigned>(cut.channel_blocks));
  const int parts = parts_of(work), channels = min(kChannels, cut.channels - first_channel);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;

  const unsigned base = shared_address(shared), pages = (base + 1023u) & ~1023u;
  const unsigned full = pages + Sizes::kBarriers, empty = full + 8 * kPages;
  float* const numbers = reinterpret_cast<float*>(reinterpret_cast<char*>(shared) + (pages - base));
  if (thread == 0) {
    for (int s = 0; s < kPages; ++s)
      make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, Tile::kConsumers);
  }
  wait_for_stream();
  __syncthreads();

  struct Item {
    int image, class_h, class_w, row, column, steps;  ///< the first units
  };
  // Mostly there is one class, and every item is whole maps: nothing to divide.
  Units rows{}, columns{};
  int of_class_h = -1, of_class_w = -1;
  const bool are_maps = work.items == (cut.images + Tile::kImages - 1) / Tile::kImages;
  const auto item_of = [&](int number) {
    PixelItem at(number);
    if (!are_maps) at = PixelItem(work, static_cast<unsigned>(number));
    if (at.class_h != of_class_h)
      rows = units_of(work.h, of_class_h = at.class_h, K::kStrideH, kBias, work.owner_h);
    if (at.class_w != of_class_w)
      columns = units_of(work.w, of_class_w = at.class_w, K::kStrideW, kBias, work.owner_w);
    const int row = rows.begin + at.strip * cut.strip_rows, column = columns.begin + at.tile * Tile::kUnits;
    const int count = column < columns.end ? max(min(cut.strip_rows, rows.end - row), 0) : 0;
    return Item{at.image * Tile::kImages,
                at.class_h,
                at.class_w,
                row,
                column,
                (count + Tile::kStepRows - 1) / Tile::kStepRows};
  };

  const int vector = thread % Tile::kVectors, place = thread / Tile::kVectors, channel = vector * kLanes;
  const bool works = place < Tile::kPlaces && channel < channels;
  float taps[kInput ? K::kTaps : 1][kLanes], sums[kWeight ? K::kTaps : 1][kLanes], total[kLanes];
#pragma unroll
  for (int l = 0; l < kLanes; ++l) {
    total[l] = 0;
#pragma unroll
    for (int k = 0; k < (kWeight ? K::kTaps : 1); ++k) sums[k][l] = 0;
  }
  ThreadNormSums<kNormSums, kLanes> norm;
  PageCursor<kPages> cursor;
  if (warp == Tile::kConsumers) {
#pragma unroll 1
    for (int number = part; lane == 0 && number < work.items; number += parts) {
      const Item item = item_of(number);
      int g_row = item.class_h + (item.row - (K::kReachH - 1)) * work.h.output_step;
      const int g_column = item.class_w + (item.column - (K::kReachW - 1)) * work.w.output_step;
      int x_row = work.h.origin(item.class_h) + item.row * K::kStrideH * work.h.input_step;
      const int x_column = work.w.origin(item.class_w) + item.column * K::kStrideW * work.w.input_step;
      const int count = item.steps == 0 ? 0 : item.steps + kReach - 1;
#pragma unroll 1
      for (int page = 0; page < count; ++page) {
        const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * Sizes::kPageBytes;
        const bool has_x = kReadsInput && page < item.steps;
        wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
        expect_bytes(barrier, 4 * Tile::kImages * (Sizes::kGImage + (has_x ? Sizes::kXImage : 0)));
        load_box(to, boxes.y, first_channel, g_column, g_row, item.image, barrier);
        if (has_x)
          load_box(to + Sizes::kGBytes, boxes.x, first_channel, x_column, x_row, item.image, barrier);
        g_row += Sizes::kPageRows * work.h.output_step;
        x_row += Sizes::kXRows * work.h.input_step;
        cursor.next();
      }
    }
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int column_group = place % Tile::kColumnGroups,
              row_group = place / Tile::kColumnGroups % Tile::kRowGroups,
              image_group = place / (Tile::kColumnGroups * Tile::kRowGroups);
    const Int64 of_tensor = first_channel + (works ? channel : 0);
    if constexpr (kInput) {
#pragma unroll
      for (int l = 0; l < kLanes; ++l) {
        float of_channel[K::kTaps];
        load_taps<T>(work.taps, static_cast<int>(of_tensor) + l, of_channel);
#pragma unroll
        for (int k = 0; k < K::kTaps; ++k) taps[k][l] = of_channel[k];
      }
    }
    Lanes<kWeight ? kTransforms : kPlain, kLanes> lanes;
    lanes.begin(work.transform, of_tensor);
    norm.begin(work.transform, work.hook, of_tensor);
    const int own_column = K::kReachW - 1 - work.owner_w;
    const int my_g =
                  (row_group * Tile::kRows * Sizes::kGColumns + column_group * Tile::kColumns) * kChannels +
                  channel,
              my_x = Sizes::kGBytes / 4 +
                     (row_group * Tile::kRows * K::kStrideH * Sizes::kXColumns + column_group * kWidth) *
                         kChannels +
                     channel;
    PageCursor<kPages> awaited;
    const auto wait_for_page = [&] {
      wait_for_phase(full + 8 * awaited.slot, awaited.parity);
      awaited.next();
    };
#pragma unroll 1
    for (int number = part; number < work.items; number += parts) {
      const Item item = item_of(number);
      if (item.steps == 0) continue;
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) wait_for_page();
      const int images = min(Tile::kImages, cut.images - item.image);
      // Of the thread's first row and column in x, the step's and those of its columns that exist.
      int in_row = work.h.origin(item.class_h) +
                   (item.row + row_group * Tile::kRows) * K::kStrideH * work.h.input_step;
      const int in_column = work.w.origin(item.class_w) +
                            (item.column + column_group * Tile::kColumns) * K::kStrideW * work.w.input_step;
      unsigned x_inside = 0;
      if constexpr (kInput || kTransforms != kPlain)
        x_inside = bits_between(Axis::ceiling(-in_column, work.w.input_step),
                                Axis::ceiling(work.w.input - in_column, work.w.input_step));
#pragma unroll 1
      for (int step = 0; step < item.steps; ++step) {
        wait_for_page();
        int page[kReach];  // where row 0 of the thread's window would be, if its page had all rows
#pragma unroll
        for (int p = 0; p < kReach; ++p) {
          const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
          page[p] = slot * (Sizes::kPageBytes / 4) - p * Sizes::kGImage + my_g;
        }
#pragma unroll 1
        for (int n = image_group; works && n < images; n += Tile::kImageGroups) {
          const float* const x_rows =
              numbers + cursor.slot * (Sizes::kPageBytes / 4) + n * Sizes::kXImage + my_x;
          const auto row_exists = [&](int i) {
            const int y = in_row + i * work.h.input_step;
            return y >= 0 && y < work.h.input;
          };
          const auto load_gradient = [&](int j, float(&g)[kWindow][kLanes]) {
            int from = page[0] + n * Sizes::kGImage;
#pragma unroll
            for (int p = 1; p < kReach; ++p)
              if (row_group * Tile::kRows + j >= p * Sizes::kPageRows) from = page[p];
            const float* const row = numbers + from + j * Sizes::kGRow;
#pragma unroll
            for (int i = 0; i < kWindow; ++i) load<T>(row + i * kChannels, g[i]);
            if constexpr (kBias) {
              const int own = j - (K::kReachH - 1) + work.owner_h;  // the unit whose it is
              if (own >= 0 && own < Tile::kRows) {
#pragma unroll
                for (int i = 0; i < kWindow; ++i)
#pragma unroll
                  for (int l = 0; l < kLanes; ++l)
                    if (i >= own_column && i < own_column + Tile::kColumns) total[l] += g[i][l];
              }
            }
          };
          const auto load_input = [&](int i, float(&x)[kWidth][kLanes]) {
#pragma unroll
            for (int j = 0; j < kWidth; ++j) load<T>(x_rows + i * Sizes::kXRow + j * kChannels, x[j]);
            if constexpr (kTransforms != kPlain) lanes.apply(x, row_exists(i) ? x_inside : 0u);
          };
          T* const out = static_cast<T*>(work.dx.data) + (item.image + n) * work.dx.image + of_tensor +
                         in_row * work.dx.row + in_column * work.dx.pixel;
          const auto store_row = [&](int i, const float(&dx)[kWidth][kLanes]) {
            if (!row_exists(i)) return;
            T* to = out + i * work.h.input_step * work.dx.row;
#pragma unroll
            for (int j = 0; j < kWidth; ++j) {
              if (x_inside >> j & 1) {
                if constexpr (kNormSums != kPlain) {
                  float masked[kLanes], z[kLanes];
#pragma unroll
                  for (int l = 0; l < kLanes; ++l) masked[l] = dx[j][l];
                  load<T>(x_rows + i * Sizes::kXRow + j * kChannels, z);
                  norm.pass(masked, z);
                  put<T>(to, masked, work.accumulate);
                } else {
                  put<T>(to, dx[j], work.accumulate);
                }
              }
              to += work.w.input_step * work.dx.pixel;
            }
          };
          if constexpr (kInput && kWeight)
            propagate<K, Tile, true, true>(taps, sums, load_gradient, load_input, store_row);
          else if constexpr (kInput)
            propagate<K, Tile, true, false>(taps, taps, load_gradient, load_input, store_row);
          else
            propagate<K, Tile, false, true>(sums, sums, load_gradient, load_input, store_row);
        }
        synchronize_warp();
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
        in_row += Sizes::kXRows * work.h.input_step;
      }
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) {
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
      }
    }
  }

  // All pages have been read: what the places have of a channel meets there.
  if constexpr (kWeight) {
    float* const to = work.parts + (static_cast<Int64>(part) * cut.channels + first_channel) * kAll;
#pragma unroll
    for (int k0 = 0; k0 < kAll; k0 += kSumsAtOnce) {
      __syncthreads();
      if (works && warp < Tile::kConsumers) {
#pragma unroll
        for (int k = k0; k < kAll && k < k0 + kSumsAtOnce; ++k)
#pragma unroll
          for (int l = 0; l < kLanes; ++l)
            numbers[((k - k0) * Tile::kPlaces + place) * kChannels + channel + l] =
                k == K::kTaps ? total[l] : sums[k == K::kTaps ? 0 : k][l];
      }
      __syncthreads();
      constexpr int kLast = kAll - 1;
      const int some = min(kSumsAtOnce, kLast + 1 - k0);
      for (int i = thread; i < channels * some; i += Tile::kThreads) {
        const int k = i / channels, c = i - k * channels;
        float sum = 0;
        for (int p = 0; p < Tile::kPlaces; ++p) sum += numbers[(k * Tile::kPlaces + p) * kChannels + c];
        to[c * kAll + k0 + k] = sum;
      }
    }
  }
  if constexpr (kNormSums != kPlain) {
    __syncthreads();
    NormSums* const list = reinterpret_cast<NormSums*>(numbers);  // [place][channel]
    if (works && warp < Tile::kConsumers) {
#pragma unroll
      for (int l = 0; l < kLanes; ++l) list[place * kChannels + channel + l] = norm.of(l);
    }
    merge_all(list, Tile::kPlaces, kChannels, channels, 1, thread, Tile::kThreads, [] { __syncthreads(); });
    NormSums* const to = reinterpret_cast<NormSums*>(work.hook.parts) +
                         static_cast<Int64>(part) * cut.channels + first_channel;
    for (int i = thread; i < channels; i += Tile::kThreads) to[i] = list[i];
  }
}

}  // namespace lamella::depthwise
