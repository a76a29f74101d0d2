#pragma once

#include "boxes.cuh"
#include "boxes_hooks.cuh"

/// The output, from boxes.
namespace lamella::depthwise {

template <class K, class Tile, bool kTransforms>
struct ForwardBoxes {
  static constexpr int kInRows = (Tile::kStepRows - 1) * K::kStrideH + K::kH;
  static constexpr int kPageRows = Tile::kWhole ? kInRows : Tile::kStepRows * K::kStrideH;
  static constexpr int kReach = (kInRows + kPageRows - 1) / kPageRows;  ///< pages that a step reads
  static constexpr int kColumnReach = (K::kW - 1) / K::kStrideW;
  static constexpr int kXColumns = Tile::box_columns(kColumnReach);
  using Load = BoxMove<Tile, kXColumns, kPageRows, Tile::kImages>;
  using Store = BoxMove<Tile, Tile::kColumns, Tile::kStepRows, Tile::kBlockImages>;
  static constexpr int kRowBytes = kXColumns * Tile::kPixelBytes;
  static constexpr int kImageBytes = kPageRows * kRowBytes;  ///< from one image of a page to the next
  static constexpr int kPlaneBytes = Tile::box_bytes(Tile::kImages * kPageRows * kXColumns);
  static constexpr int kPageBytes = K::kStrideW * kPlaneBytes;
  static constexpr int kResultImageBytes = 16 * Tile::kRows * Tile::kPixelBytes;
  static constexpr int kResultBytes = Tile::box_bytes(Tile::kBlockImages * 16 * Tile::kRows);
  static constexpr int kBarriers = Tile::kPages * kPageBytes + 2 * Tile::kBlocks * kResultBytes;
  static constexpr int kSharedBytes = 1024 + kBarriers + (kTransforms ? 24 : 16) * Tile::kPages;
  static constexpr int kConsumers = Tile::kBlocks * Tile::kWarpGroups;
  static constexpr int kTransformers = kTransforms ? transforming_warps(kConsumers) : 0;
  static constexpr int kThreads = 32 * (kConsumers + 1 + kTransformers);
  static_assert(Tile::kPages >= kReach && !(Tile::kByRows && K::kStrideW > 1));
};

/// y of a tile, all steps of all items of a block. kTransforms: pages go through some warps more before they
/// are ready. kStatistics: it leaves the moments of y.
template <class T, class K, class Tile, int kTransforms, bool kStatistics, int kBlocksOfSm>
__global__ void __launch_bounds__((ForwardBoxes<K, Tile, kTransforms != kPlain>::kThreads), kBlocksOfSm)
    forward_boxes(const __grid_constant__ BoxWork boxes) {
  using Sizes = ForwardBoxes<K, Tile, kTransforms != kPlain>;
  constexpr int kEights = Tile::kEights, kPages = Tile::kPages, kReach = Sizes::kReach,
                kTapRows = Tile::kTapRows;
  constexpr int kConsumers = Sizes::kConsumers;
  constexpr bool kLong = kTapRows < K::kH;
  static_assert(K::kRepeat == 1 && !(kLong && Tile::kDown > 1));
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const BoxShare share = BoxShare::of<Tile, false>(work, blockIdx.x);
  const int first_channel = share.first_channel, part = share.part;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned pages = (shared_address(shared) + 1023u) & ~1023u, full = pages + Sizes::kBarriers,
                 empty = full + 8 * kPages, ready = kTransforms != kPlain ? empty + 8 * kPages : full;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) {
      make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
      if (kTransforms != kPlain) make_barrier(ready + 8 * s, Sizes::kTransformers);
    }
  }
  wait_for_stream();
  __syncthreads();
  const int lead = Tile::lead_of(work.w.origin(0), Sizes::kColumnReach);
  PageCursor<kPages> cursor;
  if (warp == kConsumers) {
    if (lane != 0) return;
    each_page<K, Tile, Sizes>(work, share, [&](int column, int row, int image) {
      const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * Sizes::kPageBytes;
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      expect_bytes(barrier, K::kStrideW * Sizes::Load::kBytes);
#pragma unroll
      for (int plane = 0; plane < K::kStrideW; ++plane)
        Sizes::Load::load(to + plane * Sizes::kPlaneBytes, boxes.x, first_channel,
                          column - lead + plane * work.w.input_step, row, image, barrier);
      cursor.next();
    });
    return;
  }
  if constexpr (kTransforms != kPlain) {
    if (warp > kConsumers) {
      BoxTransform<T, Tile, Sizes::kTransformers, kTransforms> transform;
      transform.begin(work.transform, static_cast<int>(threadIdx.x) - 32 * (kConsumers + 1), first_channel,
                      cut.channels);
      each_page<K, Tile, Sizes>(work, share, [&](int column, int row, int image) {
        uint4* const page = shared + (pages - shared_address(shared) + cursor.slot * Sizes::kPageBytes) / 16;
        wait_for_phase(full + 8 * cursor.slot, cursor.parity);
#pragma unroll
        for (int plane = 0; plane < K::kStrideW; ++plane)
          transform.template apply<Sizes::kPageRows, Sizes::kXColumns>(
              page + plane * Sizes::kPlaneBytes / 16,
              {row, work.h.input_step, work.h.input, column - lead + plane * work.w.input_step,
               K::kStrideW * work.w.input_step, work.w.input},
              Tile::kImages > 1 ? min(Tile::kImages, cut.images - image) : 1);
        hand_to_copy_engine();
        synchronize_warp();
        if (lane == 0) arrive(ready + 8 * cursor.slot);
        cursor.next();
      });
      return;
    }
  }

  const int channel = warp % Tile::kWarpGroups * Tile::kWarpChannels, block = warp / Tile::kWarpGroups;
  const bool works = first_channel + channel < cut.channels;
  TapRows<T, K, kTapRows> taps[kEights];
  float bias[kEights][2];
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int eight = first_channel + channel + e * 8;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int out = eight + lane % 4 * 2 + i;
      bias[e][i] = out < cut.channels ? load_bias<T>(work.taps, out) : 0.0f;
    }
    if (!kLong) taps[e].load(work.taps, eight, cut.channels, 0);
  }
  using Places = ShiftPlaces<Tile, K::kW>;
  Places places;
  places.template find<false>(channel / 8, [&](int pixel, int shift, int chunk) {
    const int column = Tile::in_box(Tile::column_of(block) + pixel % Tile::kColumns + shift / K::kStrideW);
    return Tile::at(pixel / Tile::kColumns * K::kStrideH * Sizes::kXColumns + lead + column, chunk) +
           shift % K::kStrideW * Sizes::kPlaneBytes;
  });
  const unsigned results = pages + kPages * Sizes::kPageBytes + 2 * block * Sizes::kResultBytes;
  const unsigned my_result = Tile::at(lane % 16, channel / 8 + (kEights > 1 ? lane / 16 : 0));
  const bool stores = warp % Tile::kWarpGroups == 0 && lane == 0;

  LaneMoments<T, kStatistics, kEights> statistics;
  unsigned result = results;
  PageCursor<kPages> awaited;
  const auto wait_for_page = [&] {
    wait_for_phase(ready + 8 * awaited.slot, awaited.parity);
    awaited.next();
  };
#pragma unroll 1
  for (int item = share.first; item < share.last; item += share.step) {
    const PixelItem at = box_item<Tile>(work, item);
    const int steps = steps_of<Tile>(work, at);
    if (steps == 0) continue;
    const int image = at.image + Tile::image_of(block), images = Tile::images_of(cut, image);
#pragma unroll
    for (int p = 0; p < kReach - 1; ++p) wait_for_page();
    int out_row = at.class_h + at.strip * cut.strip_rows * work.h.output_step;
    const int out_column =
        at.class_w + (at.tile * Tile::kUnits + Tile::column_of(block)) * work.w.output_step;
    // Of the class, behind the block's and the step's first.
    const int columns_left = work.w.outputs(at.class_w) - at.tile * Tile::kUnits - Tile::column_of(block);
    int rows_left = min(cut.strip_rows, work.h.outputs(at.class_h) - at.strip * cut.strip_rows);
    const int result_count = max(min(columns_left, Tile::kColumns), 0) * rows_left * images;
    unsigned exist_columns[2];
    if constexpr (kStatistics) {
      statistics.item.begin_item();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int pixel = (half * 8 + lane % 4 * 2) % Tile::kColumns;
        exist_columns[half] =
            (pixel < columns_left ? 0xffffu : 0u) | (pixel + 1 < columns_left ? 0xffff0000u : 0u);
      }
    }
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      wait_for_page();
      unsigned y[Tile::kRows][kEights][2];
      const auto add_moments = [&](unsigned first_result) {
        if constexpr (kStatistics) {
          if (statistics.count == 0 && first_result == result && step == 0)
            statistics.begin(reinterpret_cast<const char*>(shared) + (result - shared_address(shared)) +
                             Tile::at(0, channel / 8));
          constexpr int kBelow = Tile::kColumns == 16 ? 0 : 1;
#pragma unroll
          for (int r = 0; r < Tile::kRows; ++r) {
            const unsigned exist[2]{r * Tile::kDown < rows_left ? exist_columns[0] : 0u,
                                    r * Tile::kDown + kBelow < rows_left ? exist_columns[1] : 0u};
            statistics.add(y[r], exist);
          }
        }
      };
#pragma unroll 1
      for (int n = 0; works && n < images; ++n) {
        unsigned page[kReach];
#pragma unroll
        for (int p = 0; p < kReach; ++p) {
          const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
          page[p] = pages + slot * Sizes::kPageBytes + (Tile::image_of(block) + n) * Sizes::kImageBytes;
        }
        float sums[Tile::kRows][kEights][4];
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
          for (int e = 0; e < kEights; ++e)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[r][e][i] = bias[e][i % 2];
        constexpr int kRowStep = Tile::kDown * K::kStrideH, kRead = (Tile::kRows - 1) * kRowStep + kTapRows;
        struct Row {
          unsigned pair[Places::kPairs > 0 ? Places::kPairs : 1][kEights][4], last[2 * kEights];
        };
        const auto load = [&](Row& x, unsigned row) {
#pragma unroll
          for (int p = 0; p < Places::kPairs; ++p)
#pragma unroll
            for (int e = 0; e < kEights; ++e) load_matrices(x.pair[p][e], row + places.pair[p][e]);
          if constexpr (Places::kOdd) load_matrices(x.last, row + places.last);
        };
        const auto multiply = [&](const Row& x, int i) {
        // Neighbouring products have sums of their own, so that none waits for another.
#pragma unroll
          for (int p = 0; p < Places::kPairs; ++p)
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r) {
              const int tap_row = i - r * kRowStep;
              if (tap_row < 0 || tap_row >= kTapRows) continue;
#pragma unroll
              for (int e = 0; e < kEights; ++e) {
                const unsigned(&four)[4] = x.pair[p][e];
                multiply_add(sums[r][e], four[0], four[1], four[2], four[3],
                             taps[e].tap[0][tap_row * K::kW + 2 * p],
                             taps[e].tap[0][tap_row * K::kW + 2 * p + 1], T{});
              }
            }
          if constexpr (Places::kOdd) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r) {
              const int tap_row = i - r * kRowStep;
              if (tap_row < 0 || tap_row >= kTapRows) continue;
#pragma unroll
              for (int e = 0; e < kEights; ++e)
                multiply_add(sums[r][e], x.last[2 * e], x.last[2 * e + 1],
                             taps[e].tap[0][(tap_row + 1) * K::kW - 1], T{});
            }
          }
        };
        if constexpr (kLong) {
#pragma unroll 1
          for (int kh = 0; kh < K::kH; kh += kTapRows) {
#pragma unroll
            for (int e = 0; e < kEights; ++e)
              taps[e].load(work.taps, first_channel + channel + e * 8, cut.channels, kh);
#pragma unroll
            for (int i = 0; i < kRead; ++i) {
              // Rows behind the last that is read meet taps of zero.
              const int row = min(kh + i, kReach * Sizes::kPageRows - 1 - (Tile::kDown - 1) * K::kStrideH);
              unsigned from = page[0];
#pragma unroll
              for (int p = 1; p < kReach; ++p) from = row / Sizes::kPageRows == p ? page[p] : from;
              Row x;
              load(x, from + row % Sizes::kPageRows * Sizes::kRowBytes);
              multiply(x, i);
            }
          }
        } else {
          const auto row_at = [&](int i) {
            constexpr int kPageRows = Sizes::kPageRows;
            const unsigned here = page[i / kPageRows] + i % kPageRows * Sizes::kRowBytes;
            if constexpr (Tile::kDown == 1) return here;
            // A product's second row may lie in the next page.
            const int second = i + K::kStrideH;
            if (second / kPageRows == i / kPageRows || second / kPageRows >= kReach ||
                lane % 16 < Tile::kColumns)
              return here;
            return page[second / kPageRows] -
                   static_cast<unsigned>(kPageRows - i % kPageRows) * Sizes::kRowBytes;
          };
          // The next row is on its way while one is multiplied.
          Row x[2];
          load(x[0], row_at(0));
#pragma unroll
          for (int i = 0; i < kRead; ++i) {
            if (i + 1 < kRead) load(x[(i + 1) % 2], row_at(i + 1));
            multiply(x[i % 2], i);
          }
        }
        const unsigned to = result + n * Sizes::kResultImageBytes;
#pragma unroll
        for (int r = 0; r < Tile::kRows; ++r) {
          narrow_sums<T>(sums[r], y[r]);
          store_pairs(y[r], to + my_result + r * 16 * Tile::kPixelBytes);
        }
        if constexpr (kStatistics && Tile::kImages > 1) {
          synchronize_warp();
          if (columns_left > 0) add_moments(to);
        }
      }
      hand_to_copy_engine();
      if (stores) wait_until_stores_have_read();  // the other place for results is free
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
      if constexpr (Tile::kWarpGroups > 1) synchronize_some(1 + block, 32 * Tile::kWarpGroups);
      if (stores && images > 0 && out_column < work.w.output) {
        Sizes::Store::store(boxes.y, result, first_channel, out_column, out_row, image, work.w.output,
                            work.h.output, cut.images);
        end_stores();
      }
      if constexpr (Tile::kByRows) synchronize_warp();  // one lane was away, for some pieces
      if constexpr (kStatistics) {
        if (Tile::kImages == 1 && works && columns_left > 0) add_moments(result);
        rows_left -= Tile::kStepRows;
      }
      result = result == results ? results + Sizes::kResultBytes : results;
      out_row += Tile::kStepRows * work.h.output_step;
    }
    if constexpr (kStatistics) {
      if (works && result_count > 0) statistics.end_item(result_count);
    }
#pragma unroll
    for (int p = 0; p < kReach - 1; ++p) {
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
    }
  }
  if (stores) wait_until_stores_have_read();
  synchronize_warp();  // one lane was away; the others meet below
  if constexpr (kStatistics) {
    Moments* const list =
        reinterpret_cast<Moments*>(reinterpret_cast<char*>(shared) + (pages - shared_address(shared)));
    Moments* const to =
        reinterpret_cast<Moments*>(work.hook.parts) + static_cast<Int64>(part) * cut.channels + first_channel;
    leave_part<Tile>(statistics, list, true, block, channel, to,
                     min(Tile::kChannels, cut.channels - first_channel), 32 * kConsumers,
                     [] { synchronize_some(1 + Tile::kBlocks, 32 * kConsumers); });
  }
}

}  // namespace lamella::depthwise
