#pragma once

#include "boxes_forward.cuh"

/// Channels side by side (NHWC), float32, from boxes that the copy engine moves: for GPUs of compute
/// capability 9 and on. Pages, items and barriers are those of boxes.cuh; but threads multiply, as of
/// pixels.cuh, so that nothing is rounded to fewer digits. A thread has its channels, and its place in a
/// step, of all items of the block; so its sums stay in registers.
namespace lamella::depthwise {

/// What a kernel is made of. A thread has kColumns_ columns of kRows_ rows, of kLanes_ channels; a step is
/// kRowGroups_ by kColumnGroups_ of that. kPages_, kWhole_ and kImages_ are as of BoxTile; images are shared
/// out among kImageGroups_ of threads.
///
/// Boxes lie in shared memory as they are: eight lanes that read four channels each, sixteen of two, or all
/// of one, read 128 neighbouring bytes, of 32 channels or more. Of 16 channels they are two places' halves,
/// which lie in different banks where the places are an odd number of pixels apart.
template <int kColumns_, int kColumnGroups_, int kRows_, int kRowGroups_, int kLanes_, int kChannels_,
          int kPages_, bool kWhole_, int kImages_ = 1, int kImageGroups_ = 1>
struct FloatTile : Tile<kRows_, kColumns_, kLanes_> {
  static constexpr int kColumnGroups = kColumnGroups_, kRowGroups = kRowGroups_;
  static constexpr int kChannels = kChannels_, kPages = kPages_;
  static constexpr bool kWhole = kWhole_;
  static constexpr int kImages = kImages_, kImageGroups = kImageGroups_;
  static constexpr int kStepRows = kRows_ * kRowGroups;
  static constexpr int kUnits = kColumns_ * kColumnGroups;  ///< columns of a block
  static constexpr int kVectors = kChannels / kLanes_;
  static constexpr int kPlaces = kColumnGroups * kRowGroups * kImageGroups;
  static constexpr int kConsumers = (kVectors * kPlaces + 31) / 32;  ///< warps
  static constexpr int kThreads = 32 * (kConsumers + 1);
  static_assert(kChannels % 16 == 0 && kChannels % kLanes_ == 0);
  static_assert(kImages % kImageGroups == 0 && (kImages == 1 || kWhole));

  __host__ __device__ static constexpr int box_bytes(int pixels) {
    return (pixels * kChannels * 4 + 1023) / 1024 * 1024;
  }
};

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

template <class K, class Tile>
struct ForwardFloatBoxes {
  static constexpr int kInRows = (Tile::kStepRows - 1) * K::kStrideH + K::kH;
  static constexpr int kPageRows = Tile::kWhole ? kInRows : Tile::kStepRows * K::kStrideH;
  static constexpr int kReach = (kInRows + kPageRows - 1) / kPageRows;
  static constexpr int kXColumns = (Tile::kUnits - 1) * K::kStrideW + K::kW;
  // From one row, and one image, of a page to the next, in numbers.
  static constexpr int kRow = kXColumns * Tile::kChannels, kImage = kPageRows * kRow;
  static constexpr int kPageBytes = Tile::box_bytes(Tile::kImages * kPageRows * kXColumns);
  static constexpr int kBarriers = Tile::kPages * kPageBytes;
  static_assert(Tile::kPages >= kReach);
};

/// y of a tile, all steps of all items of a block: forward_pixels(), from boxes. Numbers of x pass through
/// the transform whenever a thread reads them.
template <class T, class K, class Tile, int kTransforms, bool kStatistics, int kBlocksOfSm>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksOfSm)
    forward_float_boxes(const __grid_constant__ BoxWork boxes) {
  using Sizes = ForwardFloatBoxes<K, Tile>;
  constexpr int kLanes = Tile::kLanes, kChannels = Tile::kChannels, kPages = Tile::kPages;
  constexpr int kReach = Sizes::kReach, kWindow = kInputWindow<K, Tile>;
  static_assert(sizeof(T) == 4 && K::kRepeat == 1);
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const BoxShare share = BoxShare::of<Tile, false>(work, blockIdx.x);
  const int first_channel = share.first_channel, part = share.part,
            channels = min(kChannels, cut.channels - first_channel);
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

  const int vector = thread % Tile::kVectors, place = thread / Tile::kVectors, channel = vector * kLanes;
  const bool works = place < Tile::kPlaces && channel < channels;
  ThreadMoments<kStatistics, kLanes> statistics{};
  PageCursor<kPages> cursor;
  if (warp == Tile::kConsumers) {
    if (lane == 0)
      each_page<K, Tile, Sizes>(work, share, [&](int column, int row, int image) {
        const unsigned barrier = full + 8 * cursor.slot;
        wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
        expect_bytes(barrier, 4 * Tile::kImages * Sizes::kImage);
        load_box(pages + cursor.slot * Sizes::kPageBytes, boxes.x, first_channel, column, row, image,
                 barrier);
        cursor.next();
      });
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int column_group = place % Tile::kColumnGroups,
              row_group = place / Tile::kColumnGroups % Tile::kRowGroups,
              image_group = place / (Tile::kColumnGroups * Tile::kRowGroups);
    const int of_tensor = first_channel + (works ? channel : 0);
    float taps[K::kTaps][kLanes], bias[kLanes];
#pragma unroll
    for (int l = 0; l < kLanes; ++l) {
      float of_channel[K::kTaps];
      load_taps<T>(work.taps, of_tensor + l, of_channel);
#pragma unroll
      for (int k = 0; k < K::kTaps; ++k) taps[k][l] = of_channel[k];
      bias[l] = load_bias<T>(work.taps, of_tensor + l);
    }
    Lanes<kTransforms, kLanes> lanes;
    lanes.begin(work.transform, of_tensor);
    const int my_x = (row_group * Tile::kRows * K::kStrideH * Sizes::kXColumns +
                      column_group * Tile::kColumns * K::kStrideW) *
                         kChannels +
                     channel;
    const bool are_maps = work.items == (cut.images + Tile::kImages - 1) / Tile::kImages;
    PageCursor<kPages> awaited;
    const auto wait_for_page = [&] {
      wait_for_phase(full + 8 * awaited.slot, awaited.parity);
      awaited.next();
    };
#pragma unroll 1
    for (int number = share.first; number < share.last; number += share.step) {
      PixelItem at(number);
      if (!are_maps) at = PixelItem(work, static_cast<unsigned>(number));
      const int steps = steps_of<Tile>(work, at);
      if (steps == 0) continue;
      at.image *= Tile::kImages;
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) wait_for_page();
      const int images = min(Tile::kImages, cut.images - at.image);
      // Of the thread: its first row and column, and how many there are from these on.
      int row = at.strip * cut.strip_rows + row_group * Tile::kRows;
      const int column = at.tile * Tile::kUnits + column_group * Tile::kColumns;
      int rows_left = min((at.strip + 1) * cut.strip_rows, work.h.outputs(at.class_h)) - row;
      const int columns_left = works ? min(Tile::kColumns, work.w.outputs(at.class_w) - column) : 0;
      unsigned x_inside = 0;
      if constexpr (kTransforms != kPlain) {
        const int first = work.w.origin(at.class_w) + column * K::kStrideW * work.w.input_step;
        x_inside = bits_between(Axis::ceiling(-first, work.w.input_step),
                                Axis::ceiling(work.w.input - first, work.w.input_step));
      }
#pragma unroll 1
      for (int step = 0; step < steps; ++step) {
        wait_for_page();
        int page[kReach];  // where row 0 of the thread's window would be, if its page had all rows
#pragma unroll
        for (int p = 0; p < kReach; ++p) {
          const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
          page[p] = slot * (Sizes::kPageBytes / 4) - p * Sizes::kImage + my_x;
        }
#pragma unroll 1
        for (int n = image_group; columns_left > 0 && rows_left > 0 && n < images; n += Tile::kImageGroups) {
          const auto load_row = [&](int i, float(&x)[kWindow][kLanes]) {
            int from = page[0] + n * Sizes::kImage;
#pragma unroll
            for (int p = 1; p < kReach; ++p)
              if (row_group * Tile::kRows * K::kStrideH + i >= p * Sizes::kPageRows) from = page[p];
            const float* const numbers_of = numbers + from + i * Sizes::kRow;
#pragma unroll
            for (int j = 0; j < kWindow; ++j) load<T>(numbers_of + j * kChannels, x[j]);
            if constexpr (kTransforms != kPlain) {
              const int y = work.h.origin(at.class_h) + (row * K::kStrideH + i) * work.h.input_step;
              lanes.apply(x, y >= 0 && y < work.h.input ? x_inside : 0u);
            }
          };
          T* const out = static_cast<T*>(work.y.data) + (at.image + n) * work.y.image + of_tensor +
                         (at.class_h + row * work.h.output_step) * work.y.row +
                         (at.class_w + column * work.w.output_step) * work.y.pixel;
          const auto row_done = [&](int r, const float(&y)[Tile::kColumns][kLanes]) {
            if (r >= rows_left) return;
            T* to = out + r * work.h.output_step * work.y.row;
            statistics.first(y[0]);
#pragma unroll
            for (int c = 0; c < Tile::kColumns; ++c) {
              if (c < columns_left) {
                put<T>(to, y[c], work.accumulate);
                statistics.add(y[c]);
              }
              to += work.w.output_step * work.y.pixel;
            }
          };
          correlate<K, Tile>(taps, bias, load_row, row_done);
        }
        synchronize_warp();
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
        row += Tile::kStepRows, rows_left -= Tile::kStepRows;
      }
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) {
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
      }
    }
  }

  if constexpr (kStatistics) {
    __syncthreads();                                            // all pages have been read
    Moments* const list = reinterpret_cast<Moments*>(numbers);  // [place][channel]
    if (works && warp < Tile::kConsumers) {
#pragma unroll
      for (int l = 0; l < kLanes; ++l) list[place * kChannels + channel + l] = statistics.of(l);
    }
    merge_all(list, Tile::kPlaces, kChannels, channels, 1, thread, Tile::kThreads, [] { __syncthreads(); });
    Moments* const to =
        reinterpret_cast<Moments*>(work.hook.parts) + static_cast<Int64>(part) * cut.channels + first_channel;
    for (int i = thread; i < channels; i += Tile::kThreads) to[i] = list[i];
  }
}

}  // namespace lamella::depthwise
