#pragma once

#include "diagonals.cuh"

/// The weight's gradient by diagonals of products (diagonals.cuh).
namespace lamella::depthwise {

/// The work of a block, which leaves a part of dw.
template <class T, class K, class S, class Sizes, class Tile, int kPaddingH, int kPaddingW, bool kBias,
          int kTransforms, int kThreads>
__device__ __forceinline__ void weigh_diagonals(const PlaneWork& work, int number_of_block) {
  using Products = Diagonals<T, K, S, Tile, kPaddingH, kPaddingW, kBias>;
  using Rows = typename Products::Rows;
  constexpr int kPlanes = Tile::kPlanes, kVector = Tile::kVector, kVectorG = Tile::kVectorG;
  constexpr int kRepeat = K::kRepeat, kPhases = Products::kPhases, kPages = Tile::kPages;
  constexpr int kG = Products::kG, kX = Products::kX, kShifts = Products::kShifts, kReach = Rows::kReach;
  constexpr int kConsumers = kThreads / 32 - 1, kAll = K::kTaps + 1, kNumber = static_cast<int>(sizeof(T));
  using Order = RowOrder<kVector, kPhases * Sizes::kW / 2>;
  constexpr int kFirst = -Rows::kHighest;  // row of g that a product of the first rows of x begins with
  static_assert(sizeof(T) == 2);
  static_assert(Tile::kColumns == 8 || Tile::kColumns == 16 || Tile::kColumns == 32);
  static_assert(Products::kColumns % kVectorG == 0);
  static_assert(Products::kColumns * K::kStrideW % kVector == 0);
  static_assert(kReach <= 6, "a lane has two numbers of each product's diagonals, no more");
  extern __shared__ uint4 shared[];
  const PlaneCut& cut = work.cut;
  const char* const zeros = reinterpret_cast<const char*>(shared);
  char* const bytes = reinterpret_cast<char*>(shared) + cut.zeros * kNumber;
  const unsigned pages = shared_address(bytes);
  const int g_bytes = cut.output_numbers * kNumber, page_bytes = g_bytes + cut.input_numbers * kNumber;
  const unsigned full = pages + kPages * page_bytes, empty = full + 8 * kPages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < kPages; ++s) make_barrier(full + 8 * s, 1), make_barrier(empty + 8 * s, kConsumers);
  }
  for (int i = thread; i < cut.zeros * kNumber / 4; i += kThreads) reinterpret_cast<unsigned*>(shared)[i] = 0;
  wait_for_stream();
  synchronize_block(kThreads);

  const int groups = (work.channels + cut.planes - 1) / cut.planes;
  const int first_channel = number_of_block % groups * cut.planes;
  const int planes = min(cut.planes, work.channels - first_channel);
  const int part = number_of_block / groups;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_width = Sizes::kKnown ? Sizes::kW : work.w.input,
            out_width = Sizes::kKnown ? Sizes::kOutW : work.w.output,
            in_plane = (Sizes::kKnown ? Sizes::kH : work.h.input) * in_width,
            out_plane = (Sizes::kKnown ? Sizes::kOutH : work.h.output) * out_width;
  const int bands = Sizes::kKnown ? 1 : cut.bands;
  struct Band {
    int row, rows, low, high;  ///< of x, and of g
  };
  const auto band_of = [&](int number) {
    Band band;
    band.row = number * cut.band_rows, band.rows = min(cut.band_rows, work.h.input - band.row);
    const int low = band.row / kPhases + kFirst, high = low + (band.rows + kPhases - 1) / kPhases + kReach;
    band.low = bands > 1 ? min(max(low, 0), work.h.output) : 0;
    band.high = bands > 1 ? max(min(high, work.h.output), band.low) : work.h.output;
    return band;
  };
  // Where an item's numbers begin.
  const auto g_at = [&](int image, const Band& band) {
    return (static_cast<Int64>(image) * work.channels + first_channel) * kRepeat * out_plane +
           band.low * out_width;
  };
  const auto x_at = [&](int image, const Band& band) {
    return (static_cast<Int64>(image) * work.channels + first_channel) * in_plane + band.row * in_width;
  };
  int image = bands > 1 ? first_item / bands : first_item, number = bands > 1 ? first_item % bands : 0;
  const auto advance = [&] {
    if (bands == 1)
      ++image;
    else if (++number == bands)
      number = 0, ++image;
  };
  PageCursor<kPages> cursor;
  float totals[kPlanes][kRepeat][kShifts][2];
#pragma unroll
  for (int n = 0; n < kPlanes; ++n)
#pragma unroll
    for (int j = 0; j < kRepeat; ++j)
#pragma unroll
      for (int k = 0; k < kShifts; ++k) totals[n][j][k][0] = totals[n][j][k][1] = 0;
  const int row_groups = Sizes::kKnown ? 1 : cut.row_groups;
  const int per_plane = Tile::kGroups * row_groups, sets = kConsumers / per_plane;  // warps
  const int set = warp / per_plane, place = warp - set * per_plane;

  if (warp == kConsumers) {
#pragma unroll 1
    for (int i = first_item; lane == 0 && i < last_item; ++i, advance()) {
      const Band band = band_of(number);
      const T* const g = static_cast<const T*>(work.y) + g_at(image, band);
      const T* const x = static_cast<const T*>(work.x) + x_at(image, band);
      // Of several outputs a channel there are no bands.
      const LineRun<T> g_run(g,
                             bands > 1 ? (band.high - band.low) * out_width : planes * kRepeat * out_plane);
      const LineRun<T> x_run(x, bands > 1 ? band.rows * in_width : planes * in_plane);
      const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * page_bytes;
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      expect_bytes(barrier, g_run.loaded_bytes() + x_run.loaded_bytes());
      g_run.load(to, g, barrier);
      x_run.load(to + g_bytes, x, barrier);
      cursor.next();
    }
    synchronize_warp();  // one lane was away; the block meets below
  } else {
    const int row_of_lane = Order::row(lane / 4), column_of_lane = lane % 4 * Products::kColumns;
    const int row_group = place / Tile::kGroups, group = place - row_group * Tile::kGroups;
    const int first_plane = set * kPlanes;
    const bool works = set < sets && first_plane < planes;
    LineTransform<T, kTransforms> transforms[kPlanes];
#pragma unroll
    for (int n = 0; n < kPlanes; ++n)
      transforms[n].begin(work.transform, first_channel + min(first_plane + n, planes - 1));
    float sums[kPlanes][kRepeat][kShifts][4];
    const auto clear = [&] {
#pragma unroll
      for (int n = 0; n < kPlanes; ++n)
#pragma unroll
        for (int j = 0; j < kRepeat; ++j)
#pragma unroll
          for (int k = 0; k < kShifts; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[n][j][k][i] = 0;
    };
    clear();
    // The matrix units do not round sums to nearest: long sums are kept elsewhere. Of the diagonals a lane
    // has numbers of its upper row or of its lower.
    const bool is_upper[2] = {row_of_lane >= Order::row(lane % 4 * 2),
                              row_of_lane >= Order::row(lane % 4 * 2 + 1)};
    int chain = 0;
    const auto end_chain = [&] {
#pragma unroll
      for (int n = 0; n < kPlanes; ++n)
#pragma unroll
        for (int j = 0; j < kRepeat; ++j)
#pragma unroll
          for (int k = 0; k < kShifts; ++k)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              totals[n][j][k][i] += is_upper[i] ? sums[n][j][k][i] : sums[n][j][k][2 + i];
      clear();
      chain = 0;
    };
    // Numbers from a line to where an item begins: of addresses, the last bits are all that counts.
    constexpr unsigned kLine = kLineBytes / kNumber;
    const unsigned g_first = static_cast<unsigned>(reinterpret_cast<unsigned long long>(work.y)) / kNumber,
                   x_first = static_cast<unsigned>(reinterpret_cast<unsigned long long>(work.x)) / kNumber;
    const auto g_page_of = [&](const Band& band) {
      const int from_line = static_cast<int>((g_first + static_cast<unsigned>(g_at(image, band))) % kLine);
      return bytes + cursor.slot * page_bytes + from_line * kNumber;
    };
    const auto x_page_of = [&](const Band& band) {
      const int from_line = static_cast<int>((x_first + static_cast<unsigned>(x_at(image, band))) % kLine);
      return bytes + cursor.slot * page_bytes + g_bytes + from_line * kNumber;
    };

    if constexpr (Sizes::kKnown) {
      constexpr int kPhaseRows = (Sizes::kH + kPhases - 1) / kPhases, kRowBlocks = (kPhaseRows + 7) / 8,
                    kAllTiles = (Sizes::kOutW + Tile::kColumns - 1) / Tile::kColumns,
                    kTiles = (kAllTiles + Tile::kGroups - 1) / Tile::kGroups,
                    kStep = Tile::kGroups * Tile::kColumns, kStepX = kStep * K::kStrideW;
      const int g_column = group * Tile::kColumns + column_of_lane,
                x_column = g_column * K::kStrideW - Products::kBefore;
      // What must be masked: columns, at both ends of a row, unless warps have different ones; and rows of
      // the first and the last half of a product's rows of g, and of the last of each phase of x.
      const auto masks_g = [](int tile) { return Tile::kGroups > 1 || (tile + 1) * kStep > Sizes::kOutW; };
      const auto masks_x = [](int tile) {
        constexpr int kLastLane = (kStep - Products::kColumns) * K::kStrideW;  // of a tile, with one group
        return Tile::kGroups > 1 || tile * kStepX < Products::kBefore ||
               tile * kStepX + kLastLane - Products::kBefore + 2 * kX > Sizes::kW;
      };
      const auto has_rows = [](int b) { return 8 * b + kFirst + 8 > 0 && 8 * b + kFirst < Sizes::kOutH; };
      const auto edge_of_g = [](int b) {
        return 8 * b + kFirst < 0 ? 1 : 8 * b + kFirst + 8 > Sizes::kOutH ? 2 : 0;
      };
      const auto edge_of_x = [](int b, int a) { return kPhases * (8 * b + 7) + a >= Sizes::kH ? 1 + a : 0; };
      const auto x_exists = [&](int b, int a) { return kPhases * (8 * b + row_of_lane) + a < Sizes::kH; };
      unsigned g_mask[kTiles][3][kG], x_mask[kTiles][1 + kPhases][kX];
#pragma unroll
      for (int u = 0; u < kTiles; ++u) {
        constexpr bool kHolds = kTiles * kX <= 8;
#pragma unroll
        for (int b = 0; b <= kRowBlocks; ++b) {
          const int edge = edge_of_g(b), row = 8 * b + kFirst + row_of_lane;
          if (!has_rows(b)) continue;
          mask_line(g_column + u * kStep, row >= 0 && row < Sizes::kOutH ? Sizes::kOutW : 0, g_mask[u][edge]);
          if (kHolds && edge > 0) hold(g_mask[u][edge]);
        }
        mask_line(g_column + u * kStep, Sizes::kOutW, g_mask[u][0]);
        if (kHolds && masks_g(u)) hold(g_mask[u][0]);
        mask_line(x_column + u * kStepX, Sizes::kW, x_mask[u][0]);
        if (kHolds && masks_x(u)) hold(x_mask[u][0]);
#pragma unroll
        for (int a = 0; a < kPhases; ++a) {
          mask_line(x_column + u * kStepX, x_exists(kRowBlocks - 1, a) ? Sizes::kW : 0, x_mask[u][1 + a]);
          if (kHolds && Products::wants(a) && edge_of_x(kRowBlocks - 1, a) > 0) hold(x_mask[u][1 + a]);
        }
      }
      const int g_place =
          (first_plane * kRepeat * out_plane + (kFirst + row_of_lane) * Sizes::kOutW + g_column) * kNumber;
      const int x_place = (first_plane * in_plane + kPhases * row_of_lane * Sizes::kW + x_column) * kNumber;
#pragma unroll 1
      for (int i = first_item; i < last_item; ++i, advance()) {
        const Band whole{0, Sizes::kH, 0, Sizes::kOutH};
        const char *const g_of = g_page_of(whole) + g_place, *const x_of = x_page_of(whole) + x_place;
        // Of two planes in a row: of all others, words lie as in one of them.
        const char *g_from[2], *x_from[2][kPhases];
        unsigned g_odd[2], x_odd[2][kPhases];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const char* const g = g_of + e * out_plane * kNumber;
          g_odd[e] = is_odd<kVectorG>(g), g_from[e] = g - g_odd[e] * kNumber;
#pragma unroll
          for (int a = 0; a < kPhases; ++a) {
            const char* const x = x_of + (e * in_plane + a * Sizes::kW) * kNumber;
            x_odd[e][a] = is_odd<kVector>(x), x_from[e][a] = x - x_odd[e][a] * kNumber;
          }
        }
        wait_for_phase(full + 8 * cursor.slot, cursor.parity);
        if (works) {
          // Of planes that do not exist nobody wants the sums.
#pragma unroll
          for (int n = 0; n < kPlanes; ++n)
#pragma unroll
            for (int u = 0; u < kTiles; ++u) {
              const auto load_g = [&](int plane, int b, unsigned(&g)[kG]) {
                if (!has_rows(b)) {
#pragma unroll
                  for (int k = 0; k < kG; ++k) g[k] = 0;
                  return;
                }
                const int odd = plane % 2;
                load_line<kVectorG, 0>(
                    g_from[odd] + ((plane - odd) * out_plane + 8 * b * Sizes::kOutW + u * kStep) * kNumber,
                    g_odd[odd], g);
                if (masks_g(u) || edge_of_g(b) > 0) apply_mask(g, g_mask[u][edge_of_g(b)]);
              };
              unsigned low[kRepeat][kG], high[kRepeat][kG];
#pragma unroll
              for (int j = 0; j < kRepeat; ++j) load_g(n * kRepeat + j, 0, low[j]);
#pragma unroll
              for (int b = 0; b < kRowBlocks; ++b) {
#pragma unroll
                for (int j = 0; j < kRepeat; ++j) load_g(n * kRepeat + j, b + 1, high[j]);
#pragma unroll
                for (int a = 0; a < kPhases; ++a) {
                  if (!Products::wants(a)) continue;
                  unsigned x[kX];
                  load_line<kVector, Products::kLead>(
                      x_from[n % 2][a] +
                          ((n - n % 2) * in_plane + kPhases * 8 * b * Sizes::kW + u * kStepX) * kNumber,
                      x_odd[n % 2][a], x);
                  transforms[n].apply(x);
                  if (masks_x(u) || edge_of_x(b, a) > 0) apply_mask(x, x_mask[u][edge_of_x(b, a)]);
#pragma unroll
                  for (int j = 0; j < kRepeat; ++j)
                    Products::add(sums[n][j], low[j], high[j], x, a, x_exists(b, a));
                }
#pragma unroll
                for (int j = 0; j < kRepeat; ++j)
#pragma unroll
                  for (int k = 0; k < kG; ++k) low[j][k] = high[j][k];
              }
            }
          if (++chain == cut.chain) end_chain();
        }
        synchronize_warp();
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
      }
    } else {
#pragma unroll 1
      for (int i = first_item; i < last_item; ++i, advance()) {
        const Band band = band_of(number);
        const char *const g_page = g_page_of(band), *const x_page = x_page_of(band);
        const int row_blocks = (band.rows + 8 * kPhases - 1) / (8 * kPhases),
                  of_group = (row_blocks + row_groups - 1) / row_groups;
        const int first_block = row_group * of_group, last_block = min(row_blocks, first_block + of_group);
        const int tiles = (out_width + Tile::kColumns - 1) / Tile::kColumns;
        wait_for_phase(full + 8 * cursor.slot, cursor.parity);
        if (works) {
#pragma unroll
          for (int n = 0; n < kPlanes; ++n) {
            const int plane = min(first_plane + n, planes - 1);
            const char* const g_of = g_page + plane * kRepeat * out_plane * kNumber;
            const char* const x_of = x_page + plane * in_plane * kNumber;
#pragma unroll 1
            for (int tile = group; tile < tiles; tile += Tile::kGroups) {
              const int g_column = tile * Tile::kColumns + column_of_lane,
                        x_column = g_column * K::kStrideW - Products::kBefore;
              unsigned g_columns[kG], x_columns[kX];
              mask_line(g_column, out_width, g_columns);
              mask_line(x_column, in_width, x_columns);
              const int first_row = 8 * first_block + row_of_lane;
              int x_row = kPhases * first_row, g_row = band.row / kPhases + first_row + kFirst;
              // Eight rows of an odd width are a whole number of words.
              const char *x_from[kPhases], *g_from[kRepeat];
              unsigned x_odd[kPhases], g_odd[kRepeat];
#pragma unroll
              for (int a = 0; a < kPhases; ++a) {
                x_from[a] = x_of + ((x_row + a) * in_width + x_column) * kNumber;
                x_odd[a] = is_odd<kVector>(x_from[a]), x_from[a] -= x_odd[a] * kNumber;
              }
#pragma unroll
              for (int j = 0; j < kRepeat; ++j) {
                g_from[j] = g_of + (j * out_plane + (g_row - band.low) * out_width + g_column) * kNumber;
                g_odd[j] = is_odd<kVectorG>(g_from[j]), g_from[j] -= g_odd[j] * kNumber;
              }
              const auto load_g = [&](unsigned(&g)[kRepeat][kG]) {
                const bool exists = g_row >= band.low && g_row < band.high;
#pragma unroll
                for (int j = 0; j < kRepeat; ++j) {
                  load_line<kVectorG, 0>(exists ? g_from[j] : zeros, g_odd[j], g[j]);
                  apply_mask(g[j], g_columns);
                  g_from[j] += 8 * out_width * kNumber;
                }
                g_row += 8;
              };
              unsigned low[kRepeat][kG], high[kRepeat][kG];
              load_g(low);
#pragma unroll 2
              for (int b = first_block; b < last_block; ++b) {
                load_g(high);
#pragma unroll
                for (int a = 0; a < kPhases; ++a) {
                  if (!Products::wants(a)) continue;
                  const bool exists = x_row + a < band.rows;
                  unsigned x[kX];
                  load_line<kVector, Products::kLead>(exists ? x_from[a] : zeros + 4 * Products::kLead,
                                                      x_odd[a], x);
                  transforms[n].apply(x);
                  apply_mask(x, x_columns);
                  if constexpr (kTransforms != kPlain) {  // of zeros, it is not zero
#pragma unroll
                    for (int k = 0; k < kX; ++k) x[k] = exists ? x[k] : 0u;
                  }
                  x_from[a] += 8 * kPhases * in_width * kNumber;
#pragma unroll
                  for (int j = 0; j < kRepeat; ++j) Products::add(sums[n][j], low[j], high[j], x, a, exists);
                }
                x_row += 8 * kPhases;
#pragma unroll
                for (int j = 0; j < kRepeat; ++j)
#pragma unroll
                  for (int k = 0; k < kG; ++k) low[j][k] = high[j][k];
              }
            }
          }
          if (++chain == cut.chain) end_chain();
        }
        synchronize_warp();
        if (lane == 0) arrive(empty + 8 * cursor.slot);
        cursor.next();
      }
    }
    end_chain();
  }

  // Of each plane of g in turn, warps and rows of x in their order.
  float* const block_sums = reinterpret_cast<float*>(bytes);
  float* const to = work.parts + (static_cast<Int64>(part) * work.channels + first_channel) * kRepeat * kAll;
#pragma unroll
  for (int n = 0; n < kPlanes * kRepeat; ++n) {
    synchronize_block(kThreads);
    if (warp < kConsumers) {
#pragma unroll
      for (int k = 0; k < kShifts; ++k)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd)
          block_sums[((warp * kShifts + k) * 2 + odd) * 32 + lane] = totals[n / kRepeat][n % kRepeat][k][odd];
    }
    synchronize_block(kThreads);
    for (int i = thread; i < sets * kAll; i += kThreads) {
      const int of_set = i / kAll, tap = i - of_set * kAll, plane = of_set * kPlanes + n / kRepeat;
      if (plane >= planes) continue;
      const bool is_tap = tap < K::kTaps;
      const int tap_row = tap / K::kW;
      const int shift = is_tap ? Rows::phase(tap_row) * K::kW + tap % K::kW : kShifts - 1;
      const int down = is_tap ? Rows::kHighest - Rows::down(tap_row) : Rows::kHighest;
      float sum = 0;
      for (int w = of_set * per_plane; (is_tap || kBias) && w < (of_set + 1) * per_plane; ++w)
        for (int row = 0; row < 8; ++row) {
          const int of_x = Order::place(row), of_g = Order::place((row + down) % 8);
          sum += block_sums[((w * kShifts + shift) * 2 + of_x % 2) * 32 + of_g * 4 + of_x / 2];
        }
      to[(plane * kRepeat + n % kRepeat) * kAll + tap] = sum;
    }
  }
}

template <class T, class K, class S, class Sizes, class Tile, int kPaddingH, int kPaddingW, bool kBias,
          int kTransforms, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_diagonals(const PlaneWork work) {
  weigh_diagonals<T, K, S, Sizes, Tile, kPaddingH, kPaddingW, kBias, kTransforms, kThreads>(
      work, static_cast<int>(blockIdx.x));
}

}  // namespace lamella::depthwise
