#pragma once

#include "diagonals.cuh"

/// How a warp goes through the planes of a page for the weight's gradient by diagonals (diagonals.cuh): of
/// sizes that are known when the kernel is compiled, all of a plane at once; else row by row.
namespace lamella::depthwise {

/// What a kernel is compiled for, and what follows from it.
template <class T_, class K_, class S, class Sizes_, class Tile_, int kPaddingH, int kPaddingW, bool kBias,
          int kTransforms_>
struct DiagonalKinds {
  using T = T_;
  using K = K_;
  using Sizes = Sizes_;
  using Tile = Tile_;
  using Products = Diagonals<T, K, S, Tile, kPaddingH, kPaddingW, kBias>;
  using Rows = typename Products::Rows;
  using Order = RowOrder<Tile::kVector, Products::kPhases * Sizes::kW / 2>;
  static constexpr int kTransforms = kTransforms_, kPlanes = Tile::kPlanes, kRepeat = K::kRepeat;
  static constexpr int kPhases = Products::kPhases, kShifts = Products::kShifts;
  static constexpr int kG = Products::kG, kX = Products::kX;
  static constexpr int kNumber = static_cast<int>(sizeof(T));
  static constexpr int kFirst =
      -Rows::kHighest;  ///< row of g that a product of the first rows of x begins with
  static_assert(sizeof(T) == 2);
  static_assert(Tile::kColumns == 8 || Tile::kColumns == 16 || Tile::kColumns == 32);
  static_assert(Products::kColumns % Tile::kVectorG == 0);
  static_assert(Products::kColumns * K::kStrideW % Tile::kVector == 0);
  static_assert(Rows::kReach <= 6, "a lane has two numbers of each product's diagonals, no more");

  using Sums = float[kPlanes][kRepeat][kShifts][4];
  using Transforms = LineTransform<T, kTransforms>[kPlanes];
};

/// Rows of x and of g that a page has.
struct DiagonalBand {
  int row, rows, low, high;  ///< of x, and of g
};

/// What a lane has of products, and its warp of a page.
struct DiagonalLane {
  int row, column;       ///< of eight rows, and in a row the first of its columns
  int row_group, group;  ///< every so many-th product's, down and across
  int first_plane;
};

/// Of planes of known sizes. Where a lane loads, and what it masks, is found once.
template <class Kinds>
struct WalkKnownPlanes {
  using K = typename Kinds::K;
  using Sizes = typename Kinds::Sizes;
  using Tile = typename Kinds::Tile;
  using Products = typename Kinds::Products;
  static constexpr int kPlanes = Kinds::kPlanes, kRepeat = Kinds::kRepeat, kPhases = Kinds::kPhases;
  static constexpr int kG = Kinds::kG, kX = Kinds::kX, kNumber = Kinds::kNumber, kFirst = Kinds::kFirst;
  static constexpr int kInPlane = Sizes::kH * Sizes::kW, kOutPlane = Sizes::kOutH * Sizes::kOutW;
  static constexpr int kPhaseRows = (Sizes::kH + kPhases - 1) / kPhases, kRowBlocks = (kPhaseRows + 7) / 8,
                       kAllTiles = (Sizes::kOutW + Tile::kColumns - 1) / Tile::kColumns,
                       kTiles = (kAllTiles + Tile::kGroups - 1) / Tile::kGroups,
                       kStep = Tile::kGroups * Tile::kColumns, kStepX = kStep * K::kStrideW;

  int row;  ///< of the lane
  unsigned g_mask[kTiles][3][kG], x_mask[kTiles][1 + kPhases][kX];
  int g_place, x_place;  ///< bytes, in a page
  // Of two planes in a row: of all others, words lie as in one of them.
  const char *g_from[2], *x_from[2][kPhases];
  unsigned g_odd[2], x_odd[2][kPhases];

  // What must be masked: columns, at both ends of a row, unless warps have different ones; and rows of the
  // first and the last half of a product's rows of g, and of the last of each phase of x.
  __device__ static constexpr bool masks_g(int tile) {
    return Tile::kGroups > 1 || (tile + 1) * kStep > Sizes::kOutW;
  }
  __device__ static constexpr bool masks_x(int tile) {
    constexpr int kLastLane = (kStep - Products::kColumns) * K::kStrideW;  // of a tile, with one group
    return Tile::kGroups > 1 || tile * kStepX < Products::kBefore ||
           tile * kStepX + kLastLane - Products::kBefore + 2 * kX > Sizes::kW;
  }
  __device__ static constexpr bool has_rows(int b) {
    return 8 * b + kFirst + 8 > 0 && 8 * b + kFirst < Sizes::kOutH;
  }
  __device__ static constexpr int edge_of_g(int b) {
    return 8 * b + kFirst < 0 ? 1 : 8 * b + kFirst + 8 > Sizes::kOutH ? 2 : 0;
  }
  __device__ static constexpr int edge_of_x(int b, int a) {
    return kPhases * (8 * b + 7) + a >= Sizes::kH ? 1 + a : 0;
  }
  __device__ __forceinline__ bool x_exists(int b, int a) const {
    return kPhases * (8 * b + row) + a < Sizes::kH;
  }

  __device__ __forceinline__ explicit WalkKnownPlanes(const DiagonalLane& lane) : row(lane.row) {
    const int g_column = lane.group * Tile::kColumns + lane.column,
              x_column = g_column * K::kStrideW - Products::kBefore;
#pragma unroll
    for (int u = 0; u < kTiles; ++u) {
      constexpr bool kHolds = kTiles * kX <= 8;
#pragma unroll
      for (int b = 0; b <= kRowBlocks; ++b) {
        const int edge = edge_of_g(b), g_row = 8 * b + kFirst + row;
        if (!has_rows(b)) continue;
        mask_line(g_column + u * kStep, g_row >= 0 && g_row < Sizes::kOutH ? Sizes::kOutW : 0,
                  g_mask[u][edge]);
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
    g_place = (lane.first_plane * kRepeat * kOutPlane + (kFirst + row) * Sizes::kOutW + g_column) * kNumber;
    x_place = (lane.first_plane * kInPlane + kPhases * row * Sizes::kW + x_column) * kNumber;
  }

  /// Pages of g and of x; they need not have come.
  __device__ __forceinline__ void begin(const char* g_page, const char* x_page, const DiagonalBand&) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const char* const g = g_page + g_place + e * kOutPlane * kNumber;
      g_odd[e] = is_odd<Tile::kVectorG>(g), g_from[e] = g - g_odd[e] * kNumber;
#pragma unroll
      for (int a = 0; a < kPhases; ++a) {
        const char* const x = x_page + x_place + (e * kInPlane + a * Sizes::kW) * kNumber;
        x_odd[e][a] = is_odd<Tile::kVector>(x), x_from[e][a] = x - x_odd[e][a] * kNumber;
      }
    }
  }

  /// Of planes that do not exist nobody wants the sums.
  __device__ __forceinline__ void add(const typename Kinds::Transforms& transforms,
                                      typename Kinds::Sums& sums) const {
#pragma unroll
    for (int n = 0; n < kPlanes; ++n)
#pragma unroll
      for (int u = 0; u < kTiles; ++u) {
        unsigned low[kRepeat][kG], high[kRepeat][kG];
#pragma unroll
        for (int j = 0; j < kRepeat; ++j) load_g(n * kRepeat + j, u, 0, low[j]);
#pragma unroll
        for (int b = 0; b < kRowBlocks; ++b) {
#pragma unroll
          for (int j = 0; j < kRepeat; ++j) load_g(n * kRepeat + j, u, b + 1, high[j]);
#pragma unroll
          for (int a = 0; a < kPhases; ++a) {
            if (!Products::wants(a)) continue;
            unsigned x[kX];
            load_line<Tile::kVector, Products::kLead>(
                x_from[n % 2][a] +
                    ((n - n % 2) * kInPlane + kPhases * 8 * b * Sizes::kW + u * kStepX) * kNumber,
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
  }

 private:
  __device__ __forceinline__ void load_g(int plane, int u, int b, unsigned (&g)[kG]) const {
    if (!has_rows(b)) {
#pragma unroll
      for (int k = 0; k < kG; ++k) g[k] = 0;
      return;
    }
    const int odd = plane % 2;
    load_line<Tile::kVectorG, 0>(
        g_from[odd] + ((plane - odd) * kOutPlane + 8 * b * Sizes::kOutW + u * kStep) * kNumber, g_odd[odd],
        g);
    if (masks_g(u) || edge_of_g(b) > 0) apply_mask(g, g_mask[u][edge_of_g(b)]);
  }
};

/// Of planes, or bands of rows, of any sizes.
template <class Kinds>
struct WalkPlanes {
  using K = typename Kinds::K;
  using Tile = typename Kinds::Tile;
  using Products = typename Kinds::Products;
  static constexpr int kPlanes = Kinds::kPlanes, kRepeat = Kinds::kRepeat, kPhases = Kinds::kPhases;
  static constexpr int kG = Kinds::kG, kX = Kinds::kX, kNumber = Kinds::kNumber;

  DiagonalLane lane;
  int in_width, out_width, in_plane, out_plane;
  int planes, row_groups;  ///< that a page has, and among whose warps it is shared out
  const char* zeros;       ///< what a row that does not exist is loaded from
  DiagonalBand band;
  const char *g_page, *x_page;

  __device__ __forceinline__ void begin(const char* of_g, const char* of_x, const DiagonalBand& of) {
    g_page = of_g, x_page = of_x, band = of;
  }

  __device__ __forceinline__ void add(const typename Kinds::Transforms& transforms,
                                      typename Kinds::Sums& sums) const {
    const int row_blocks = (band.rows + 8 * kPhases - 1) / (8 * kPhases),
              of_group = (row_blocks + row_groups - 1) / row_groups;
    const int first_block = lane.row_group * of_group, last_block = min(row_blocks, first_block + of_group);
    const int tiles = (out_width + Tile::kColumns - 1) / Tile::kColumns;
#pragma unroll
    for (int n = 0; n < kPlanes; ++n) {
      const int plane = min(lane.first_plane + n, planes - 1);
      const char* const g_of = g_page + plane * kRepeat * out_plane * kNumber;
      const char* const x_of = x_page + plane * in_plane * kNumber;
#pragma unroll 1
      for (int tile = lane.group; tile < tiles; tile += Tile::kGroups) {
        const int g_column = tile * Tile::kColumns + lane.column,
                  x_column = g_column * K::kStrideW - Products::kBefore;
        unsigned g_columns[kG], x_columns[kX];
        mask_line(g_column, out_width, g_columns);
        mask_line(x_column, in_width, x_columns);
        const int first_row = 8 * first_block + lane.row;
        int x_row = kPhases * first_row, g_row = band.row / kPhases + first_row + Kinds::kFirst;
        // Eight rows of an odd width are a whole number of words.
        const char *x_from[kPhases], *g_from[kRepeat];
        unsigned x_odd[kPhases], g_odd[kRepeat];
#pragma unroll
        for (int a = 0; a < kPhases; ++a) {
          x_from[a] = x_of + ((x_row + a) * in_width + x_column) * kNumber;
          x_odd[a] = is_odd<Tile::kVector>(x_from[a]), x_from[a] -= x_odd[a] * kNumber;
        }
#pragma unroll
        for (int j = 0; j < kRepeat; ++j) {
          g_from[j] = g_of + (j * out_plane + (g_row - band.low) * out_width + g_column) * kNumber;
          g_odd[j] = is_odd<Tile::kVectorG>(g_from[j]), g_from[j] -= g_odd[j] * kNumber;
        }
        const auto load_g = [&](unsigned(&g)[kRepeat][kG]) {
          const bool exists = g_row >= band.low && g_row < band.high;
#pragma unroll
          for (int j = 0; j < kRepeat; ++j) {
            load_line<Tile::kVectorG, 0>(exists ? g_from[j] : zeros, g_odd[j], g[j]);
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
            load_line<Tile::kVector, Products::kLead>(exists ? x_from[a] : zeros + 4 * Products::kLead,
                                                      x_odd[a], x);
            transforms[n].apply(x);
            apply_mask(x, x_columns);
            if constexpr (Kinds::kTransforms != kPlain) {  // of zeros, it is not zero
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
  }
};

}  // namespace lamella::depthwise
