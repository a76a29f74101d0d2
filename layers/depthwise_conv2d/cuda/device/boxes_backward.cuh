#pragma once

#include "boxes_hooks.cuh"
#include "boxes_units.cuh"

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
  constexpr int kEights = Tile::kEights, kPages = Tile::kPages, kReach = Sizes::kReach,
                kTapRows = Tile::kTapRows;
  constexpr int kTapGroups = Sizes::kTapGroups, kConsumers = Sizes::kConsumers, kAll = K::kTaps + 1;
  constexpr int kResultRowBytes = Sizes::kResultColumns * Tile::kPixelBytes;
  constexpr int kRepeat = K::kRepeat, kGChannels = Sizes::kGChannels, kDown = Tile::kDown;
  // Products of a row: of two shifts of g, or of one where there are two outputs a channel.
  constexpr int kShifts = 2 / kRepeat, kPairs = kSpan / kShifts, kPlaces = (kSpan + kShifts - 1) / kShifts;
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
    // Of a part of the taps' rows: the row of the window that is row 0 of the part's.
    using PartH = UnitWindow<kTapRows, kStrideH, kPhaseH>;
    // Of an odd number of shifts, those of the last one of two rows of g make a product, where a pair begins
    // with an even row: so there are sums for each place of a pair among the rows that one of x meets.
    constexpr bool kOdd = kWeight && kPlaces > kPairs;
    constexpr int kLasts = !kOdd ? 1 : kDown == 1 ? PartH::kSpan + 1 : (PartH::kSpan + 1) / 2;
    constexpr int kSums = kPairs > 0 ? kPairs : 1;
    const int down = PartH::kLow - WindowH::kLow - tap_group * (kTapRows / kStrideH);
    const int owner_row = -work.owner_h - WindowH::kLow;  // of the window
    const int owner_group = kTapGroups > 1 ? work.owner_h * kStrideH / kTapRows : 0;
    TapRows<T, K, kInput ? K::kH : 1> taps[kInput ? kEights : 1];
    if constexpr (kInput) {
#pragma unroll
      for (int e = 0; e < kEights; ++e)
        taps[e].load(work.taps, first_channel + channel + e * 8, cut.channels, 0);
    }
    const auto g_place = [&](int pixel, int shift, int of) {
      const int column =
          Tile::in_box(Tile::column_of(block) + pixel % Tile::kColumns + min(shift, kSpan - 1));
      return Sizes::Gradients::at(pixel / Tile::kColumns * Sizes::kGColumns + lead + column, of);
    };
    ShiftPlaces<Tile, kSpan, kRepeat> to_input, to_weight;
    if constexpr (kInput) to_input.template find<false>(chunk, g_place);
    if constexpr (kWeight) to_weight.template find<true>(chunk, g_place);
    if constexpr (kOdd) to_weight.last += lane / 8 % 2 * Sizes::kGRowBytes;
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
      float sums[kWeight ? kTapRows : 1][kStrideW][kSums][kEights][4],
          lasts[kStrideH][kLasts][kStrideW][kEights][4], total[kEights][4];
#pragma unroll
      for (int e = 0; e < kEights; ++e)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[e][i] = 0;
#pragma unroll
          for (int b = 0; b < kStrideW; ++b) {
#pragma unroll
            for (int k = 0; k < (kWeight ? kTapRows : 1); ++k)
#pragma unroll
              for (int p = 0; p < kSums; ++p) sums[k][b][p][e][i] = 0;
#pragma unroll
            for (int a = 0; a < kStrideH; ++a)
#pragma unroll
              for (int n = 0; n < kLasts; ++n) lasts[a][n][b][e][i] = 0;
          }
        }
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
          unsigned page[kReach];  // where the image's row 0 of g would be, if the page had all rows
#pragma unroll
          for (int p = 0; p < kReach; ++p) {
            const int slot = cursor.slot + p >= kPages ? cursor.slot + p - kPages : cursor.slot + p;
            page[p] = pages + slot * Sizes::kPageBytes + (of_page - p) * Sizes::kGImageBytes;
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
          for (int j = 0; j < (Tile::kRows - 1) * kDown + PartH::kSpan; ++j) {
            const int row = j + down;
            const bool is_first_of_two = kOdd && j % 2 == 0;
            if (kTapGroups > 1 && row + (is_first_of_two ? 1 : 0) < 0) continue;
            // Rows of a product may lie in two pages.
            const auto of_lane = [&](int further) {
              unsigned from[3];
#pragma unroll
              for (int i = 0; i < 3; ++i) {
                from[i] = page[0];
#pragma unroll
                for (int p = 1; p < kReach; ++p)
                  if (row + i >= p * Sizes::kPageRows) from[i] = page[p];
              }
              return (further == 0 ? from[0] : further == 1 ? from[1] : from[2]) + row * Sizes::kGRowBytes;
            };
            if constexpr (kInput) {
              const unsigned mine = of_lane(kDown == 1 ? 0 : lane % 16 / Tile::kColumns);
#pragma unroll
              for (int p = 0; p < kPlaces; ++p) {
                // Shifts 2 · p and 2 · p + 1, of which the last may be alone; or shift p.
                unsigned g[kEights][4];
                if (p < kPairs) {
#pragma unroll
                  for (int e = 0; e < kEights; ++e)
                    load_matrices(g[e], mine + to_input.pair[p < kPairs ? p : 0][e]);
                } else {
                  unsigned some[2 * kEights];
                  load_matrices(some, mine + to_input.last);
#pragma unroll
                  for (int e = 0; e < kEights; ++e) g[e][0] = some[2 * e], g[e][1] = some[2 * e + 1];
                }
#pragma unroll
                for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
                  for (int a = 0; a < kStrideH; ++a) {
                    const int kh = WindowH::tap(a, j - r * kDown);
                    if (kh < 0 || kh >= K::kH || j < r * kDown) continue;
#pragma unroll
                    for (int b = 0; b < kStrideW; ++b) {
                      const int first = WindowW::tap(b, kShifts * p),
                                second = WindowW::tap(b, kShifts * p + 1);  // columns of taps
                      const bool has_first = first >= 0 && first < K::kW;
                      const bool has_second = kRepeat == 1 && p < kPairs && second >= 0 && second < K::kW;
#pragma unroll
                      for (int e = 0; e < kEights; ++e) {
                        const unsigned* const of = taps[e].tap[0] + kh * K::kW;
                        if (kRepeat > 1 && has_first)
                          multiply_add(dx[r][a][b][e], g[e][0], g[e][1], g[e][2], g[e][3],
                                       of[has_first ? first : 0],
                                       taps[e].tap[kRepeat - 1][kh * K::kW + (has_first ? first : 0)], T{});
                        else if (has_first && has_second)
                          multiply_add(dx[r][a][b][e], g[e][0], g[e][1], g[e][2], g[e][3],
                                       of[has_first ? first : 0], of[has_second ? second : 0], T{});
                        else if (has_first)
                          multiply_add(dx[r][a][b][e], g[e][0], g[e][1], of[has_first ? first : 0], T{});
                        else if (has_second)
                          multiply_add(dx[r][a][b][e], g[e][2], g[e][3], of[has_second ? second : 0], T{});
                      }
                    }
                  }
                }
              }
            }
            if constexpr (kWeight) {
              const int down_of_pixel = kDown == 1 ? 0 : (lane % 8 + lane / 16 * 8) / Tile::kColumns;
              const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
              // Each gradient counts once: for the unit whose it is.
              const int bias_column = -work.owner_w - WindowW::kLow;
              const auto is_own = [&](int of) {
                const int own = of - owner_row;
                return own >= 0 && own % kDown == 0 && own < Tile::kStepRows && tap_group == owner_group;
              };
              const unsigned mine = of_lane(down_of_pixel);
#pragma unroll
              for (int p = 0; p < kPairs; ++p) {
                if (kTapGroups > 1 && row < 0) continue;
                unsigned g[kEights][4];
#pragma unroll
                for (int e = 0; e < kEights; ++e) load_matrices_transposed(g[e], mine + to_weight.pair[p][e]);
#pragma unroll
                for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
                  for (int a = 0; a < kStrideH; ++a) {
                    const int k = PartH::tap(a, j - r * kDown);
                    if (k < 0 || k >= kTapRows || j < r * kDown) continue;
#pragma unroll
                    for (int b = 0; b < kStrideW; ++b) {
                      const int first = WindowW::tap(b, kShifts * p),
                                second = WindowW::tap(b, kShifts * p + 1);
                      const bool has_second = kRepeat == 1 && second >= 0 && second < K::kW;
                      if ((first < 0 || first >= K::kW) && !has_second) continue;
#pragma unroll
                      for (int e = 0; e < kEights; ++e)
                        multiply_add(sums[k][b][p][e], g[e][0], g[e][1], g[e][2], g[e][3], x[r][a][b][2 * e],
                                     x[r][a][b][2 * e + 1], T{});
                    }
                  }
                }
                if constexpr (kBias) {
                  if (is_own(row) && bias_column / kShifts == p) {
#pragma unroll
                    for (int e = 0; e < kEights; ++e) {
                      // Of two shifts one, the halves of the pixels one below the other. To index by it would
                      // keep all of g in memory.
                      const bool second = bias_column % 2 == 1;
                      if constexpr (kRepeat == 1)
                        multiply_add(total[e], second ? g[e][1] : g[e][0], second ? g[e][3] : g[e][2], ones,
                                     T{});
                      else
                        multiply_add(total[e], g[e][0], g[e][1], g[e][2], g[e][3], ones, ones, T{});
                    }
                  }
                }
              }
              if (is_first_of_two) {
                // What is loaded behind the last row meets no tap, nor does what stands in for row -1.
                const int second = lane / 8 % 2;
                const unsigned from = of_lane(down_of_pixel + second) +
                                      (kTapGroups > 1 && row < 0 && second == 0 ? Sizes::kGRowBytes : 0);
                unsigned g[kEights][4];
#pragma unroll
                for (int e = 0; e < kEights; ++e)
                  load_matrices_transposed(g[e], from + (to_weight.last ^ 16 * e));
#pragma unroll
                for (int r = 0; r < Tile::kRows; ++r) {
                  const int first = j - r * kDown;  // rows that one of x meets
#pragma unroll
                  for (int a = 0; a < kStrideH; ++a) {
                    const int upper = PartH::tap(a, first), lower = PartH::tap(a, first + 1);
                    const bool has_upper = first >= 0 && upper >= 0 && upper < kTapRows,
                               has_lower = first + 1 >= 0 && lower >= 0 && lower < kTapRows;
                    if (!has_upper && !has_lower) continue;
#pragma unroll
                    for (int b = 0; b < kStrideW; ++b) {
                      const int kw = WindowW::tap(b, kSpan - 1);
                      if (kw < 0 || kw >= K::kW) continue;
#pragma unroll
                      for (int e = 0; e < kEights; ++e)
                        multiply_add(lasts[a][kDown == 1 ? first + 1 : first / 2][b][e], g[e][0], g[e][1],
                                     g[e][2], g[e][3], x[r][a][b][2 * e], x[r][a][b][2 * e + 1], T{});
                    }
                  }
                }
                if constexpr (kBias) {
                  if (bias_column == kSpan - 1) {
#pragma unroll
                    for (int second = 0; second < 2; ++second)
                      if (is_own(row + second))
#pragma unroll
                        for (int e = 0; e < kEights; ++e)
                          multiply_add(total[e], g[e][second], g[e][2 + second], ones, T{});
                  }
                }
              }
            }
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
        // The matrix units do not round sums to nearest: long sums are kept elsewhere. Of a product, lane l
        // has columns 2 · (l % 4) and the next of rows l / 4 and l / 4 + 8. Wanted are the diagonals of both
        // halves or, of two outputs a channel, of rows 2 · c and 2 · c + 1 column c.
        const int row = lane / 4 + (kRepeat == 1 ? 0 : lane % 4 / 2 * 8), column = row / kRepeat;
        if (works && column / 2 == lane % 4) {
          float* const mine = tap_sums + block * kAll * kGChannels + channel * kRepeat + row;
          // Of the upper rows, or the lower ones; of two outputs a lane has some of one of them.
          const auto wanted = [&](const float(&sum)[4], int lower) {
            const float first = column % 2 == 0 ? sum[0] : sum[1], last = column % 2 == 0 ? sum[2] : sum[3];
            return (kRepeat == 1 ? lower == 0 : row < 8) ? first : last;
          };
#pragma unroll
          for (int e = 0; e < kEights; ++e) {
#pragma unroll
            for (int k = 0; k < kTapRows; ++k) {
              const int kh = tap_group * kTapRows + k;
              if (kTapGroups > 1 && kh >= K::kH) continue;
#pragma unroll
              for (int b = 0; b < kStrideW; ++b)
#pragma unroll
                for (int q = 0; q < kPairs * kShifts; ++q) {
                  const int kw = WindowW::tap(b, q);
                  if (kw < 0 || kw >= K::kW) continue;
                  mine[(kh * K::kW + kw) * kGChannels + e * 8 * kRepeat] +=
                      wanted(sums[k][b][q / kShifts][e], q % kShifts);
                }
            }
            if constexpr (kOdd) {
#pragma unroll
              for (int a = 0; a < kStrideH; ++a)
#pragma unroll
                for (int n = 0; n < kLasts; ++n)
#pragma unroll
                  for (int lower = 0; lower < 2; ++lower) {
                    const int first = kDown == 1 ? n - 1 : 2 * n, k = PartH::tap(a, first + lower),
                              kh = tap_group * kTapRows + k;
                    if (first + lower < 0 || k < 0 || k >= kTapRows || (kTapGroups > 1 && kh >= K::kH))
                      continue;
#pragma unroll
                    for (int b = 0; b < kStrideW; ++b) {
                      const int kw = WindowW::tap(b, kSpan - 1);
                      if (kw < 0 || kw >= K::kW) continue;
                      mine[(kh * K::kW + kw) * kGChannels + e * 8] += wanted(lasts[a][n][b][e], lower);
                    }
                  }
            }
            if (kBias && tap_group == owner_group)
              mine[K::kTaps * kGChannels + e * 8 * kRepeat] +=
                  kRepeat == 1 ? total[e][0] + total[e][2] : wanted(total[e], 0);
          }
        }
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
