#pragma once

#include "float_boxes.cuh"

/// The forward of float boxes (float_boxes.cuh), or the input's gradient at stride 1.
namespace lamella::depthwise {

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
