#pragma once

#include "runs.cuh"

/// The weight's gradient of dense planes (NCHW) of sixteen-bit numbers by the matrix units, for steps of one.
/// Pages are those of runs.cuh. For each shift of columns a product multiplies sixteen rows of g by eight of
/// x, over the columns of both: row g of it and column x are the sum for the tap that is x - g rows down, so
/// each row of taps is a diagonal. Rows of g begin where the last row of taps meets the first of x.
namespace lamella::depthwise {

/// A product has kColumns_ columns, 8 or 16, and a warp kPlanes_ planes. kRowBlocks_: how often eight rows a
/// plane has, if kColumns_ are all of its columns; 0: a warp goes over any number of both. kEnds_: then rows
/// of g end with the first eight of the last product. kVector_: numbers that all rows begin at multiples of,
/// 1, 2 or 4, and are taken at once, two at least.
template <int kColumns_, int kPlanes_, int kRowBlocks_, bool kEnds_, int kVector_, int kPages_>
struct DiagonalTile {
  static constexpr int kColumns = kColumns_, kPlanes = kPlanes_, kRowBlocks = kRowBlocks_;
  static constexpr int kVector = kVector_, kPages = kPages_;
  static constexpr bool kEnds = kEnds_;
};

/// Neighbouring numbers from shared memory, of which the first is kLead words behind a whole vector.
template <int kVector, int kLead, int kWords>
__device__ __forceinline__ void load_line(const char* from, unsigned (&word)[kWords]) {
  if constexpr (kVector == 1) {
    // Rows of an odd width begin within a word as often as not.
    const unsigned odd = shared_address(from) / 2 % 2;
    const unsigned* const words = reinterpret_cast<const unsigned*>(from - 2 * odd);
    unsigned some[kWords + 1];
#pragma unroll
    for (int i = 0; i <= kWords; ++i) some[i] = words[i];
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = shift_words(some[i], some[i + 1], 16 * odd);
  } else {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const bool is_second = kVector == 4 && i > 0 && (i + kLead) % 2 == 1;
      const bool is_first = kVector == 4 && i + 1 < kWords && (i + kLead) % 2 == 0;
      if (is_first) {
        const uint2 pair = *reinterpret_cast<const uint2*>(from + 4 * i);
        word[i] = pair.x, word[is_first ? i + 1 : i] = pair.y;
      } else if (!is_second) {
        word[i] = *reinterpret_cast<const unsigned*>(from + 4 * i);
      }
    }
  }
}

/// All bits of those of neighbouring numbers, from column `first` on, that are in a row of so many; none of
/// what is in no row, unless it `exists`.
template <int kWords>
__device__ __forceinline__ void mask_line(int first, int width, bool exists, unsigned (&mask)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const int column = first + 2 * i;
    mask[i] = (exists && column >= 0 && column < width ? 0xffffu : 0u) |
              (exists && column + 1 >= 0 && column + 1 < width ? 0xffff0000u : 0u);
  }
}
template <int kWords>
__device__ __forceinline__ void apply_mask(unsigned (&word)[kWords], const unsigned (&mask)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) word[i] &= mask[i];
}

/// The products of a lane's numbers. Which columns it has is free, as long as they are the same of x and g:
/// it has neighbouring ones, whose shifts overlap.
template <class T, class K, class S, class Tile, int kPadding, bool kBias>
struct Diagonals {
  static constexpr int kColumns = Tile::kColumns / 4;                   ///< of a lane
  static constexpr int kOffset = Tile::kVector > 1 ? kPadding % 2 : 0;  ///< rows are read from whole words on
  static constexpr int kBefore = kPadding + kOffset;
  static constexpr int kG = kColumns / 2, kX = (kOffset + kColumns + (K::kW - 1) * S::kWidth + 1) / 2;
  static constexpr int kLead = kBefore / 2 % 2;
  static constexpr int kShifts = K::kW + (kBias ? 1 : 0);
  static constexpr int kReach = (K::kH - 1) * S::kHeight;

  /// Of sixteen rows of g in halves, and eight of x. The bias's sum is a shift of an x that is one wherever
  /// its row exists.
  __device__ __forceinline__ static void add(float (&sums)[kShifts][4], const unsigned (&low)[kG],
                                             const unsigned (&high)[kG], const unsigned (&x)[kX],
                                             bool exists) {
#pragma unroll
    for (int kw = 0; kw < K::kW; ++kw) {
      unsigned shifted[kG];
#pragma unroll
      for (int n = 0; n < kG; ++n) {
        const int at = kOffset + kw * S::kWidth + 2 * n;
        shifted[n] = at % 2 == 0 ? x[at / 2] : shift_words(x[at / 2], x[(at + 1) / 2], 16);
      }
      multiply(sums[kw], low, high, shifted);
    }
    if constexpr (kBias) {
      unsigned ones[kG];
#pragma unroll
      for (int n = 0; n < kG; ++n)
        ones[n] = exists ? static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u : 0u;
      multiply(sums[kShifts - 1], low, high, ones);
    }
  }

 private:
  __device__ __forceinline__ static void multiply(float (&sum)[4], const unsigned (&low)[kG],
                                                  const unsigned (&high)[kG], const unsigned (&x)[kG]) {
    if constexpr (kG == 2)
      multiply_add(sum, low[0], high[0], low[1], high[1], x[0], x[1], T{});
    else
      multiply_add(sum, low[0], high[0], x[0], T{});
  }
};

/// Leaves the parts of dw. kPadding: of columns.
template <class T, class K, class S, class Tile, int kPadding, bool kBias, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) backward_diagonals(const PlaneWork work) {
  using Products = Diagonals<T, K, S, Tile, kPadding, kBias>;
  constexpr int kPlanes = Tile::kPlanes, kRowBlocks = Tile::kRowBlocks, kPages = Tile::kPages;
  constexpr int kG = Products::kG, kX = Products::kX, kShifts = Products::kShifts, kReach = Products::kReach;
  constexpr int kConsumers = kThreads / 32 - 1, kAll = K::kTaps + 1, kNumber = static_cast<int>(sizeof(T));
  static_assert(K::kStrideH == 1 && K::kStrideW == 1 && K::kRepeat == 1 && sizeof(T) == 2);
  static_assert(Tile::kColumns == 16 || (Tile::kColumns == 8 && Tile::kVector < 4));
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
  __syncthreads();

  const int groups = (work.channels + cut.planes - 1) / cut.planes;
  const int first_channel = static_cast<int>(blockIdx.x) % groups * cut.planes;
  const int planes = min(cut.planes, work.channels - first_channel);
  const int part = static_cast<int>(blockIdx.x) / groups;
  const int first_item = part * work.items_per_part,
            last_item = min(work.items, first_item + work.items_per_part);
  const int in_plane = work.h.input * work.w.input, out_plane = work.h.output * work.w.output;
  struct Band {
    int row, rows, low, high;  ///< of x, and of g
  };
  const auto band_of = [&](int number) {
    Band band;
    band.row = number * cut.band_rows, band.rows = min(cut.band_rows, work.h.input - band.row);
    const int low = band.row + work.h.padding - kReach, high = low + band.rows + kReach;
    band.low = cut.bands > 1 ? min(max(low, 0), work.h.output) : 0;
    band.high = cut.bands > 1 ? max(min(high, work.h.output), band.low) : work.h.output;
    return band;
  };
  const auto g_at = [&](int image, const Band& band) {
    return (static_cast<Int64>(image) * work.channels + first_channel) * out_plane + band.low * work.w.output;
  };
  const auto x_at = [&](int image, const Band& band) {
    return (static_cast<Int64>(image) * work.channels + first_channel) * in_plane + band.row * work.w.input;
  };
  int image = first_item / cut.bands, number = first_item % cut.bands;  // of the band
  const auto advance = [&] {
    if (++number == cut.bands) number = 0, ++image;
  };
  PageCursor<kPages> cursor;
  float totals[kPlanes][kShifts][2];
#pragma unroll
  for (int n = 0; n < kPlanes; ++n)
#pragma unroll
    for (int k = 0; k < kShifts; ++k) totals[n][k][0] = totals[n][k][1] = 0;
  const int per_plane = cut.column_groups * cut.row_groups, sets = kConsumers / per_plane;  // warps
  const int set = warp / per_plane, place = warp - set * per_plane;

  if (warp == kConsumers) {
#pragma unroll 1
    for (int i = first_item; lane == 0 && i < last_item; ++i, advance()) {
      const Band band = band_of(number);
      const T *const g = static_cast<const T*>(work.y) + g_at(image, band), *const x = static_cast<const T*>(
                                                                                           work.x) +
                                                                                       x_at(image, band);
      const bool in_bands = cut.bands > 1;
      const RunBytes<T> g_run(g, in_bands ? (band.high - band.low) * work.w.output : planes * out_plane);
      const RunBytes<T> x_run(x, in_bands ? band.rows * work.w.input : planes * in_plane);
      const unsigned g_count = static_cast<unsigned>(g_run.loaded()) * sizeof(T),
                     x_count = static_cast<unsigned>(x_run.loaded()) * sizeof(T);
      const unsigned barrier = full + 8 * cursor.slot, to = pages + cursor.slot * page_bytes;
      wait_for_phase(empty + 8 * cursor.slot, cursor.parity ^ 1);
      expect_bytes(barrier, g_count + x_count);
      if (g_count > 0) load_bytes(to, g - g_run.phase, g_count, barrier);
      if (x_count > 0) load_bytes(to + g_bytes, x - x_run.phase, x_count, barrier);
      cursor.next();
    }
  } else {
    const int row_of_lane = lane / 4, column_of_lane = lane % 4 * Products::kColumns;
    const int row_group = place / cut.column_groups, column_group = place - row_group * cut.column_groups;
    const int first_plane = set * kPlanes;
    const bool works = set < sets && first_plane < planes;
    float sums[kPlanes][kShifts][4];
    const auto clear = [&] {
#pragma unroll
      for (int n = 0; n < kPlanes; ++n)
#pragma unroll
        for (int k = 0; k < kShifts; ++k)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[n][k][i] = 0;
    };
    clear();
    // The matrix units do not round sums to nearest: long sums are kept elsewhere. Of the diagonals a lane
    // has numbers of its upper row or of its lower.
    const bool is_upper = row_of_lane >= lane % 4 * 2;
    int chain = 0;
    const auto end_chain = [&] {
#pragma unroll
      for (int n = 0; n < kPlanes; ++n)
#pragma unroll
        for (int k = 0; k < kShifts; ++k)
#pragma unroll
          for (int i = 0; i < 2; ++i) totals[n][k][i] += is_upper ? sums[n][k][i] : sums[n][k][2 + i];
      clear();
      chain = 0;
    };

    // Where the lane's rows lie in a plane that is whole, and what of them exists.
    constexpr int kLow = kRowBlocks > 0 ? kRowBlocks : 1, kHalves = kLow + (Tile::kEnds ? 0 : 1);
    int x_place[kLow], g_place[kHalves];
    unsigned x_mask[kLow][kX], g_mask[kHalves][kG];
    if constexpr (kRowBlocks > 0) {
      const auto place_of = [](int row, int rows, int width, int column) {
        return ((row >= 0 && row < rows ? row * width : 0) + column) * kNumber;
      };
#pragma unroll
      for (int b = 0; b < kLow; ++b) {
        const int row = 8 * b + row_of_lane, column = column_of_lane - Products::kBefore;
        x_place[b] = place_of(row, work.h.input, work.w.input, column);
        mask_line(column, work.w.input, row < work.h.input, x_mask[b]);
      }
#pragma unroll
      for (int b = 0; b < kHalves; ++b) {
        const int row = 8 * b + row_of_lane + work.h.padding - kReach;
        g_place[b] = place_of(row, work.h.output, work.w.output, column_of_lane);
        mask_line(column_of_lane, work.w.output, row >= 0 && row < work.h.output, g_mask[b]);
      }
    }

#pragma unroll 1
    for (int i = first_item; i < last_item; ++i, advance()) {
      const Band band = band_of(number);
      const RunBytes<T> g_run(static_cast<const T*>(work.y) + g_at(image, band), 0);
      const RunBytes<T> x_run(static_cast<const T*>(work.x) + x_at(image, band), 0);
      const char* const g_page = bytes + cursor.slot * page_bytes + g_run.phase * kNumber;
      const char* const x_page = bytes + cursor.slot * page_bytes + g_bytes + x_run.phase * kNumber;
      wait_for_phase(full + 8 * cursor.slot, cursor.parity);
      if (works) {
#pragma unroll
        for (int n = 0; n < kPlanes; ++n) {
          // Of planes that do not exist nobody wants the sums.
          const int plane = min(first_plane + n, planes - 1);
          const char* const g_of = g_page + plane * out_plane * kNumber;
          const char* const x_of = x_page + plane * in_plane * kNumber;
          if constexpr (kRowBlocks > 0) {
            unsigned g[kLow + 1][kG];
#pragma unroll
            for (int b = 0; b <= kLow; ++b) {
              if (b < kHalves) {
                load_line<Tile::kVector, 0>(g_of + g_place[b < kHalves ? b : 0], g[b]);
                apply_mask(g[b], g_mask[b < kHalves ? b : 0]);
              } else {
#pragma unroll
                for (int k = 0; k < kG; ++k) g[b][k] = 0;
              }
            }
#pragma unroll
            for (int b = 0; b < kLow; ++b) {
              unsigned x[kX];
              load_line<Tile::kVector, Products::kLead>(x_of + x_place[b], x);
              apply_mask(x, x_mask[b]);
              Products::add(sums[n], g[b], g[b + 1], x, 8 * b + row_of_lane < work.h.input);
            }
          } else {
            const int row_blocks = (band.rows + 7) / 8,
                      of_group = (row_blocks + cut.row_groups - 1) / cut.row_groups;
            const int first_block = row_group * of_group,
                      last_block = min(row_blocks, first_block + of_group);
            const int tiles = (work.w.output + Tile::kColumns - 1) / Tile::kColumns;
#pragma unroll 1
            for (int tile = column_group; tile < tiles; tile += cut.column_groups) {
              const int g_column = tile * Tile::kColumns + column_of_lane,
                        x_column = g_column - Products::kBefore;
              unsigned g_columns[kG], x_columns[kX];
              mask_line(g_column, work.w.output, true, g_columns);
              mask_line(x_column, work.w.input, true, x_columns);
              int x_row = 8 * first_block + row_of_lane, g_row = band.row + x_row + work.h.padding - kReach;
              const char* x_from = x_of + (x_row * work.w.input + x_column) * kNumber;
              const char* g_from = g_of + ((g_row - band.low) * work.w.output + g_column) * kNumber;
              const auto load_g = [&](unsigned(&g)[kG]) {
                const bool exists = g_row >= band.low && g_row < band.high;
                load_line<Tile::kVector, 0>(exists ? g_from : zeros, g);
                apply_mask(g, g_columns);
                g_row += 8, g_from += 8 * work.w.output * kNumber;
              };
              unsigned low[kG], high[kG];
              load_g(low);
#pragma unroll 2
              for (int b = first_block; b < last_block; ++b) {
                const bool exists = x_row < band.rows;
                unsigned x[kX];
                load_g(high);
                load_line<Tile::kVector, Products::kLead>(exists ? x_from : zeros + 4 * Products::kLead, x);
                apply_mask(x, x_columns);
                x_row += 8, x_from += 8 * work.w.input * kNumber;
                Products::add(sums[n], low, high, x, exists);
#pragma unroll
                for (int k = 0; k < kG; ++k) low[k] = high[k];
              }
            }
          }
        }
        if (++chain == cut.chain) end_chain();
      }
      synchronize_warp();
      if (lane == 0) arrive(empty + 8 * cursor.slot);
      cursor.next();
    }
    end_chain();
  }

  // Of each plane in turn, warps and rows of x in their order.
  float* const block_sums = reinterpret_cast<float*>(bytes);
  float* const to = work.parts + (static_cast<Int64>(part) * work.channels + first_channel) * kAll;
#pragma unroll
  for (int n = 0; n < kPlanes; ++n) {
    __syncthreads();
    if (warp < kConsumers) {
#pragma unroll
      for (int k = 0; k < kShifts; ++k)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd)
          block_sums[((warp * kShifts + k) * 2 + odd) * 32 + lane] = totals[n][k][odd];
    }
    __syncthreads();
    for (int i = thread; i < sets * kAll; i += kThreads) {
      const int of_set = i / kAll, tap = i - of_set * kAll, plane = of_set * kPlanes + n;
      if (plane >= planes) continue;
      const bool is_tap = tap < K::kTaps;
      const int shift = is_tap ? tap % K::kW : K::kW;
      const int down = is_tap ? kReach - tap / K::kW * S::kHeight : kReach - work.h.padding;
      float sum = 0;
      for (int w = of_set * per_plane; (is_tap || kBias) && w < (of_set + 1) * per_plane; ++w)
        for (int j = 0; j < 8; ++j)
          sum += block_sums[((w * kShifts + shift) * 2 + j % 2) * 32 + (j + down) % 8 * 4 + j / 2];
      to[plane * kAll + tap] = sum;
    }
  }
}

}  // namespace lamella::depthwise
