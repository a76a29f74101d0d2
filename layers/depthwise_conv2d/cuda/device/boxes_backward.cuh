#pragma once

#include "boxes_hooks.cuh"
#include "boxes_sums.cuh"

/// The gradients, from boxes.
namespace lamella::depthwise {

/// The work of a block: dx of a tile, a part of dw, or both, in units of the stride. kNormSums: dx goes back
/// through it, and blocks leave its sums; pages have x then, too, which stays as it is. BoxShare has kInRow.
template <class T, class K, class Tile, bool kInput, bool kWeight, bool kBias, int kPhaseH, int kPhaseW,
          int kTransforms, int kNormSums, bool kInRow>
__device__ __forceinline__ void walk_boxes(const BoxWork& boxes, int number_of_block) {
  constexpr bool kReadsInput = kWeight || kNormSums != kPlain;
  constexpr int kTransformsX = kWeight ? kTransforms : kPlain;
  using Sizes = BackwardBoxes<K, Tile, kInput, kReadsInput, kPhaseH, kPhaseW>;
  using WindowH = typename Sizes::WindowH;
  using WindowW = typename Sizes::WindowW;
  constexpr int kStrideH = K::kStrideH, kStrideW = K::kStrideW, kSpan = WindowW::kSpan;
  constexpr int kEights = Tile::kEights, kPages = Tile::kPages, kReach = Sizes::kReach;
  constexpr int kTapGroups = Sizes::kTapGroups, kConsumers = Sizes::kConsumers, kAll = K::kTaps + 1;
  constexpr int kResultRowBytes = Sizes::kResultColumns * Tile::kPixelBytes;
  constexpr int kRepeat = K::kRepeat, kGChannels = Sizes::kGChannels, kDown = Tile::kDown;
  static_assert(kInput || kNormSums == kPlain);
  static_assert(!kBias || Tile::kBoxColumns == 0);  // it adds up gradients of columns that do not exist, too
  extern __shared__ uint4 shared[];
  const PixelWork& work = boxes.work;
  const PixelCut& cut = work.cut;
  const BoxShare share = BoxShare::of<Tile, kInRow>(work, static_cast<unsigned>(number_of_block));
  const int first_channel = share.first_channel, part = share.part;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;

  const unsigned base = shared_address(shared), pages = (base + 1023u) & ~1023u;
  const unsigned full = pages + Sizes::kBarriers, empty = full + 8 * kPages;
  float* const tap_sums =
      reinterpret_cast<float*>(reinterpret_cast<char*>(shared) + (pages - base) + Sizes::kTapSums);
  if (threadIdx.x == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  if constexpr (kWeight) {
    for (int i = static_cast<int>(threadIdx.x); i < Tile::kBlocks * kAll * kGChannels; i += Sizes::kThreads)
      tap_sums[i] = 0;
  }
  wait_for_stream();
  synchronize_block(Sizes::kThreads);

  const auto item_of = [&](int number) { return unit_item<K, Tile, kPhaseH, kPhaseW, kBias>(work, number); };
  const int lead = Tile::lead_of(item_of(0).column + WindowW::kLow, kSpan - 1);
  const int channel = warp % Tile::kWarpGroups * Tile::kWarpChannels;
  const int block = warp / (Tile::kWarpGroups * kTapGroups);
  LaneNormSums<T, kNormSums, kEights> norm;
  PageCursor<kPages> cursor;
  if (warp == kConsumers) {
#pragma unroll 1
    for (int number = share.first; lane == 0 && number < share.last; number += share.step) {
      const UnitItem item = item_of(number);
      if (item.steps == 0) continue;
      int g_row = item.class_h + (item.row + WindowH::kLow) * work.h.output_step;
      const int g_column = item.class_w + (item.column + WindowW::kLow) * work.w.output_step - lead;
      int x_row = work.h.origin(item.class_h) + (item.row * kStrideH + kPhaseH) * work.h.input_step;
      const int x_column =
          work.w.origin(item.class_w) + (item.column * kStrideW + kPhaseW) * work.w.input_step;
#pragma unroll 1
      for (int page = 0; page < item.steps + kReach - 1; ++page) {
        const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * Sizes::kPageBytes;
        const bool has_x = kReadsInput && page < item.steps;
        wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
        expect_bytes(barrier, Sizes::LoadG::kBytes + (has_x ? kStrideW * Sizes::LoadX::kBytes : 0));
        Sizes::LoadG::load(to, boxes.y, first_channel * kRepeat, g_column, g_row, item.image, barrier);
        if (has_x) {
#pragma unroll
          for (int plane = 0; plane < kStrideW; ++plane)
            Sizes::LoadX::load(to + Sizes::kGBytes + plane * Sizes::kPlaneBytes, boxes.x, first_channel,
                               x_column + plane * work.w.input_step, x_row, item.image, barrier);
        }
        g_row += Sizes::kPageRows * work.h.output_step;
        x_row += Sizes::kXRows * work.h.input_step;
        cursor.next();
      }
    }
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int chunk = channel / 8;
    const int tap_group = kTapGroups > 1 ? warp / Tile::kWarpGroups % kTapGroups : 0;
    const bool works = first_channel + channel < cut.channels;
    const auto g_place = [&](int pixel, int shift, int of) {
      const int column =
          Tile::in_box(Tile::column_of(block) + pixel % Tile::kColumns + min(shift, kSpan - 1));
      return Sizes::Gradients::at(pixel / Tile::kColumns * Sizes::kGColumns + lead + column, of);
    };
    using InputSums = BoxInputSums<T, K, Tile, Sizes>;
    using TapSums = BoxTapSums<T, K, Tile, Sizes, kPhaseH, kBias>;
    SomeBoxSums<InputSums, kInput> of_input;
    SomeBoxSums<TapSums, kWeight> of_weight;
    if constexpr (kInput) of_input.begin(work.taps, first_channel, channel, cut.channels, g_place);
    if constexpr (kWeight) of_weight.begin(work, chunk, tap_group, g_place);
    int down = 0;  // the row of the window that a warp's part of the taps begins with
    if constexpr (kWeight) down = of_weight.down;
    const int mate = lane % 16;
    const unsigned my_x = Tile::at(
        mate / Tile::kColumns * kStrideH * Sizes::kXColumns + Tile::column_of(block) + mate % Tile::kColumns,
        chunk + (kEights > 1 ? lane / 16 : 0));
    unsigned my_result[kStrideW];
#pragma unroll
    for (int b = 0; b < kStrideW; ++b)
      my_result[b] = Tile::at(
          mate / Tile::kColumns * kStrideH * Sizes::kResultColumns + mate % Tile::kColumns * kStrideW + b,
          chunk + (kEights > 1 ? lane / 16 : 0));
    const unsigned results = pages + kPages * Sizes::kPageBytes + 2 * block * Sizes::kResultBytes;
    const bool stores = kInput && warp % Tile::kWarpGroups == 0 && lane == 0;

    unsigned result = results;
    if constexpr (kNormSums != kPlain)
      norm.begin(work.transform, work.hook, first_channel + channel, cut.channels);
    LaneTransform<T, kTransformsX, kEights> transform;
    transform.begin(work.transform, first_channel + channel, cut.channels);
    PageCursor<kPages> awaited;
    const auto wait_for_page = [&] {
      wait_for_phase(full + 8 * awaited.slot, awaited.parity);
      awaited.next();
    };
#pragma unroll 1
    for (int number = share.first; number < share.last; number += share.step) {
      const UnitItem item = item_of(number);
      if (item.steps == 0) continue;
      const int image = item.image + Tile::image_of(block), images = Tile::images_of(cut, image);
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) wait_for_page();
      if constexpr (kWeight) of_weight.clear();
      int out_row = work.h.origin(item.class_h) + (item.row * kStrideH + kPhaseH) * work.h.input_step;
      const int out_column =
          work.w.origin(item.class_w) +
          ((item.column + Tile::column_of(block)) * kStrideW + kPhaseW) * work.w.input_step;
      // All bits of the lane's pixels, as the transform and the norm's sums have them, whose columns exist.
      unsigned x_columns[kStrideW][2], dx_columns[kStrideW][2];
      if constexpr (kTransformsX != kPlain || kNormSums != kPlain) {
        const auto exists = [&](int pixel, int b) {
          const int column = out_column + (pixel % Tile::kColumns * kStrideW + b) * work.w.input_step;
          return column >= 0 && column < work.w.input;
        };
#pragma unroll
        for (int b = 0; b < kStrideW; ++b)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int pixel = half * 8 + lane % 4 * 2;
            x_columns[b][half] =
                (exists(pixel, b) ? 0xffffu : 0u) | (exists(pixel + 1, b) ? 0xffff0000u : 0u);
            dx_columns[b][half] = exists(half * 8 + lane / 4, b) ? ~0u : 0u;
          }
      }
      if constexpr (kNormSums != kPlain) norm.item.begin_item();
      // The same of those whose rows exist, too: of the two rows of a product, which may be one.
      const auto existing = [&](const unsigned(&columns)[2], int r, int a, unsigned(&exist)[2]) {
        const int first = out_row + (r * kDown * kStrideH + a) * work.h.input_step;
        const int second = first + (kDown - 1) * kStrideH * work.h.input_step;
        exist[0] = first >= 0 && first < work.h.input ? columns[0] : 0u;
        exist[1] = second >= 0 && second < work.h.input ? columns[1] : 0u;
      };
#pragma unroll 1
      for (int step = 0; step < item.steps; ++step) {
        wait_for_page();
#pragma unroll 1
        for (int n = 0; works && n < images; ++n) {
          const int of_page = Tile::image_of(block) + n;
          GradientRows<Sizes> rows;
#pragma unroll
          for (int p = 0; p < kReach; ++p) {
            const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
            rows.page[p] = pages + slot * Sizes::kPageBytes + (of_page - p) * Sizes::kGImageBytes;
          }
          const unsigned to = result + n * Sizes::kResultImageBytes,
                         from_x = pages + cursor.slot * Sizes::kPageBytes + Sizes::kGBytes +
                                  of_page * Sizes::kXImageBytes + my_x;
          unsigned x[kWeight ? Tile::kRows : 1][kStrideH][kStrideW][2 * kEights];
          if constexpr (kWeight) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int b = 0; b < kStrideW; ++b) {
                  load_matrices_transposed(x[r][a][b], from_x + b * Sizes::kPlaneBytes +
                                                           (r * kDown * kStrideH + a) * Sizes::kXRowBytes);
                  if constexpr (kTransformsX != kPlain) {
                    unsigned exist[2];
                    existing(x_columns[b], r, a, exist);
                    transform.apply(x[r][a][b], exist);
                  }
                }
          }
          float dx[kInput ? Tile::kRows : 1][kStrideH][kStrideW][kEights][4];
          if constexpr (kInput) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int b = 0; b < kStrideW; ++b)
#pragma unroll
                  for (int e = 0; e < kEights; ++e)
#pragma unroll
                    for (int i = 0; i < 4; ++i) dx[r][a][b][e][i] = 0;
          }
#pragma unroll
          for (int j = 0; j < (Tile::kRows - 1) * kDown + TapSums::PartH::kSpan; ++j) {
            rows.row = j + down;
            if (kTapGroups > 1 && rows.row + (TapSums::kOdd && j % 2 == 0 ? 1 : 0) < 0) continue;
            if constexpr (kInput) of_input.add(j, rows, dx);
            if constexpr (kWeight) of_weight.add(j, rows, x);
          }
          if constexpr (kInput) {
#pragma unroll
            for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int b = 0; b < kStrideW; ++b) {
                  unsigned pairs[kEights][2];
                  if constexpr (kNormSums != kHardSwish) narrow_sums<T>(dx[r][a][b], pairs);
                  if constexpr (kNormSums != kPlain) {
                    const unsigned from =
                        from_x + b * Sizes::kPlaneBytes + (r * kDown * kStrideH + a) * Sizes::kXRowBytes;
                    unsigned z[2 * kEights], transposed_z[2 * kEights], g[2 * kEights], exist[2];
                    load_matrices(z, from);
                    load_matrices_transposed(transposed_z, from);
                    existing(dx_columns[b], r, a, exist);
                    if constexpr (kNormSums == kHardSwish)
                      norm.multiply(dx[r][a][b], z, exist, pairs);
                    else
                      norm.mask(pairs, z, exist);
                    transpose_pairs(pairs, g);
                    norm.item.add(transposed_z, g);
                  }
                  store_pairs(pairs, to + my_result[b] + (r * kDown * kStrideH + a) * kResultRowBytes);
                }
          }
        }
        if constexpr (kInput) hand_to_copy_engine();
        if (stores) wait_until_stores_have_read();  // the other place for results is free
        synchronize_warp();
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
        if constexpr (kInput) {
          if constexpr (Tile::kWarpGroups > 1) synchronize_some(1 + block, 32 * Tile::kWarpGroups);
          if (stores && images > 0 && out_row < work.h.input && out_column < work.w.input) {
            Sizes::Store::store(boxes.dx, result, first_channel, out_column, out_row, image, work.w.input,
                                work.h.input, cut.images);
            end_stores();
          }
          if constexpr (Tile::kByRows) synchronize_warp();  // one lane was away, for some pieces
          result = result == results ? results + Sizes::kResultBytes : results;
        }
        out_row += Sizes::kXRows * work.h.input_step;
      }
#pragma unroll
      for (int p = 0; p < kReach - 1; ++p) {
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
      }
      if constexpr (kNormSums != kPlain) norm.end_item();
      if constexpr (kWeight) {
        // The matrix units do not round sums to nearest: long sums are kept elsewhere.
        if (works) of_weight.keep(tap_sums + block * kAll * kGChannels + channel * kRepeat);
      }
    }
    if (stores) wait_until_stores_have_read();
    synchronize_warp();  // one lane was away; the block meets below
  }

  if constexpr (kWeight) {
    synchronize_block(Sizes::kThreads);
    const int channels = min(Tile::kChannels, cut.channels - first_channel) * kRepeat;
    float* const to = work.parts + (static_cast<Int64>(part) * cut.channels + first_channel) * kRepeat * kAll;
    for (int i = static_cast<int>(threadIdx.x); i < channels * kAll; i += Sizes::kThreads) {
      const int c = i / kAll, k = i - c * kAll;
      float sum = 0;
#pragma unroll
      for (int p = 0; p < Tile::kBlocks; ++p) sum += tap_sums[(p * kAll + k) * kGChannels + c];
      to[i] = sum;
    }
  }
  if constexpr (kNormSums != kPlain) {
    NormSums* const to = reinterpret_cast<NormSums*>(work.hook.parts) +
                         static_cast<Int64>(part) * cut.channels + first_channel;
    leave_part<Tile>(norm, reinterpret_cast<NormSums*>(reinterpret_cast<char*>(shared) + (pages - base)),
                     warp < kConsumers, block, channel, to,
                     min(Tile::kChannels, cut.channels - first_channel), Sizes::kThreads,
                     [] { synchronize_block(Sizes::kThreads); });
  }
}

template <class T, class K, class Tile, bool kInput, bool kWeight, bool kBias, int kPhaseH, int kPhaseW,
          int kTransforms, int kNormSums, int kBlocksOfSm>
__global__ void __launch_bounds__(
    (BackwardBoxes<K, Tile, kInput, kWeight || kNormSums != kPlain, kPhaseH, kPhaseW>::kThreads), kBlocksOfSm)
    backward_boxes(const __grid_constant__ BoxWork boxes) {
  walk_boxes<T, K, Tile, kInput, kWeight, kBias, kPhaseH, kPhaseW, kTransforms, kNormSums, false>(
      boxes, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
