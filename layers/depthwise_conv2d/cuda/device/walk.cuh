#pragma once

#include "primitives.cuh"

/// The arithmetic of one thread, whatever the memory format. Everything is unrolled: rows and sums live in
/// registers only as long as they are needed.
///
/// Rows and columns here are those of one residue class (work.cuh), in which the kernel is dense:
///   y[t] = Σ_k w[k] · x[t · stride + k].
namespace lamella::depthwise {

template <int kH_, int kW_, int kStrideH_, int kStrideW_, int kRepeat_ = 1>
struct Kernel {
  static constexpr int kH = kH_, kW = kW_, kStrideH = kStrideH_, kStrideW = kStrideW_;
  static constexpr int kRepeat = kRepeat_;  ///< output channels of an input channel
  static constexpr int kTaps = kH * kW;
  /// Rows and columns of y that reach `stride` neighbouring ones of x.
  static constexpr int kReachH = (kH + kStrideH - 1) / kStrideH, kReachW = (kW + kStrideW - 1) / kStrideW;
};

/// What a thread makes at once: rows and columns (of y, or of x in units of the stride), and channels of x.
template <int kRows_, int kColumns_, int kLanes_>
struct Tile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kLanes = kLanes_;
};

/// Columns of x that a thread's columns of y read.
template <class K, class Tile>
inline constexpr int kInputWindow = (Tile::kColumns - 1) * K::kStrideW + K::kW;
/// Rows of x that a thread's rows of y read.
template <class K, class Tile>
inline constexpr int kInputRows = (Tile::kRows - 1) * K::kStrideH + K::kH;
/// Columns and rows of y that reach a thread's columns and rows of x.
template <class K, class Tile>
inline constexpr int kOutputWindow = Tile::kColumns + K::kReachW - 1;
template <class K, class Tile>
inline constexpr int kOutputRows = Tile::kRows + K::kReachH - 1;

/// y for a tile. load_row(i, x) gives row i of the window; row_done(r, y) gets row r of the result.
template <class K, class Tile, class LoadRow, class RowDone>
__device__ __forceinline__ void correlate(const float (&taps)[K::kTaps][Tile::kLanes * K::kRepeat],
                                          const float (&bias)[Tile::kLanes * K::kRepeat],
                                          const LoadRow& load_row, const RowDone& row_done) {
  constexpr int kOut = Tile::kLanes * K::kRepeat;
  float sums[Tile::kRows][Tile::kColumns][kOut];
#pragma unroll
  for (int i = 0; i < kInputRows<K, Tile>; ++i) {
    float x[kInputWindow<K, Tile>][Tile::kLanes];
    load_row(i, x);
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
      const int kh = i - r * K::kStrideH;
      if (kh < 0 || kh >= K::kH) continue;
#pragma unroll
      for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
        for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
          for (int o = 0; o < kOut; ++o)
            sums[r][c][o] = (kh == 0 && kw == 0 ? bias[o] : sums[r][c][o]) +
                            taps[kh * K::kW + kw][o] * x[c * K::kStrideW + kw][o / K::kRepeat];
      if (kh == K::kH - 1) row_done(r, sums[r]);
    }
  }
}

/// The same for kernels whose taps do not fit into registers: kTapRows rows of them at a time, all sums kept.
/// load_taps(kh, taps) gives rows from kh on, zeros behind the last.
template <class K, class Tile, int kTapRows, class LoadTaps, class LoadRow, class RowDone>
__device__ __forceinline__ void correlate_long(const float (&bias)[Tile::kLanes * K::kRepeat],
                                               const LoadTaps& load_taps, const LoadRow& load_row,
                                               const RowDone& row_done) {
  constexpr int kOut = Tile::kLanes * K::kRepeat;
  float sums[Tile::kRows][Tile::kColumns][kOut];
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
    for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
      for (int o = 0; o < kOut; ++o) sums[r][c][o] = bias[o];
#pragma unroll 1
  for (int first = 0; first < K::kH; first += kTapRows) {
    float taps[kTapRows * K::kW][kOut];
    load_taps(first, taps);
#pragma unroll
    for (int i = 0; i < (Tile::kRows - 1) * K::kStrideH + kTapRows; ++i) {
      float x[kInputWindow<K, Tile>][Tile::kLanes];
      load_row(first + i, x);
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) {
        const int kh = i - r * K::kStrideH;
        if (kh < 0 || kh >= kTapRows) continue;
#pragma unroll
        for (int kw = 0; kw < K::kW; ++kw)
#pragma unroll
          for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
            for (int o = 0; o < kOut; ++o)
              sums[r][c][o] += taps[kh * K::kW + kw][o] * x[c * K::kStrideW + kw][o / K::kRepeat];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) row_done(r, sums[r]);
}

/// Both gradients of a tile of x from the same window of y's gradient g:
///   dx[S·a + r] = Σ_b w[r + S·b] · g[a − b],   dw[r + S·b] += x[S·a + r] · g[a − b].
/// load_gradient(j, g) gives row j of the window, whose last rows belong to the tile's; load_input(i, x) row
/// i of x; store_row(i, dx) gets row i of the result. `taps` serves dx alone and `sums` dw alone.
template <class K, class Tile, bool kInput, bool kWeight, class LoadGradient, class LoadInput, class StoreRow>
__device__ __forceinline__ void propagate(const float (&taps)[K::kTaps][Tile::kLanes * K::kRepeat],
                                          float (&sums)[K::kTaps][Tile::kLanes * K::kRepeat],
                                          const LoadGradient& load_gradient, const LoadInput& load_input,
                                          const StoreRow& store_row) {
  constexpr int kOut = Tile::kLanes * K::kRepeat, kWidth = Tile::kColumns * K::kStrideW;
  float g[kOutputRows<K, Tile>][kOutputWindow<K, Tile>][kOut];
#pragma unroll
  for (int j = 0; j < K::kReachH - 1; ++j) load_gradient(j, g[j]);
#pragma unroll
  for (int a = 0; a < Tile::kRows; ++a) {
    load_gradient(a + K::kReachH - 1, g[a + K::kReachH - 1]);
#pragma unroll
    for (int rh = 0; rh < K::kStrideH; ++rh) {
      float x[kWidth][Tile::kLanes], dx[kWidth][Tile::kLanes];
      if constexpr (kWeight) load_input(a * K::kStrideH + rh, x);
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
#pragma unroll
        for (int l = 0; l < Tile::kLanes; ++l) dx[i][l] = 0;
#pragma unroll
      for (int bh = 0; rh + K::kStrideH * bh < K::kH; ++bh)
#pragma unroll
        for (int kw = 0; kw < K::kW; ++kw) {
          const int k = (rh + K::kStrideH * bh) * K::kW + kw, rw = kw % K::kStrideW, bw = kw / K::kStrideW;
#pragma unroll
          for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
            for (int o = 0; o < kOut; ++o) {
              const float value = g[a + K::kReachH - 1 - bh][c + K::kReachW - 1 - bw][o];
              if constexpr (kInput) dx[c * K::kStrideW + rw][o / K::kRepeat] += taps[k][o] * value;
              if constexpr (kWeight) sums[k][o] += x[c * K::kStrideW + rw][o / K::kRepeat] * value;
            }
        }
      if constexpr (kInput) store_row(a * K::kStrideH + rh, dx);
    }
  }
}

/// All sums of a thread's rows and columns of x.
template <class K, class Tile>
struct TileSums {
  static constexpr int kHeight = Tile::kRows * K::kStrideH, kWidth = Tile::kColumns * K::kStrideW;
  float rows[kHeight][kWidth][Tile::kLanes];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kHeight; ++i)
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
#pragma unroll
        for (int l = 0; l < Tile::kLanes; ++l) rows[i][j][l] = 0;
  }
  template <class StoreRow>
  __device__ __forceinline__ void store(const StoreRow& store_row) const {
#pragma unroll
    for (int i = 0; i < kHeight; ++i) store_row(i, rows[i]);
  }
};

/// Adds to dx alone, kTapRows rows of taps (a multiple of the stride) at a time, all sums kept: for kernels
/// whose taps do not fit into registers. load_taps(kh, taps) gives rows from kh on, zeros behind the last;
/// load_gradient(j, g) zeros for a negative j.
template <class K, class Tile, int kTapRows, class LoadTaps, class LoadGradient>
__device__ __forceinline__ void propagate_long(const LoadTaps& load_taps, const LoadGradient& load_gradient,
                                               TileSums<K, Tile>& dx) {
  static_assert(kTapRows % K::kStrideH == 0);
  constexpr int kOut = Tile::kLanes * K::kRepeat, kReach = kTapRows / K::kStrideH;
#pragma unroll 1
  for (int first = 0; first < K::kReachH; first += kReach) {
    float taps[kTapRows * K::kW][kOut];
    load_taps(first * K::kStrideH, taps);
#pragma unroll
    for (int j = 0; j < Tile::kRows + kReach - 1; ++j) {
      float g[kOutputWindow<K, Tile>][kOut];
      load_gradient(j + K::kReachH - kReach - first, g);
#pragma unroll
      for (int a = 0; a < Tile::kRows; ++a) {
        const int b = a + kReach - 1 - j;
        if (b < 0 || b >= kReach) continue;
#pragma unroll
        for (int rh = 0; rh < K::kStrideH; ++rh)
#pragma unroll
          for (int kw = 0; kw < K::kW; ++kw) {
            const int k = (rh + K::kStrideH * b) * K::kW + kw, rw = kw % K::kStrideW, bw = kw / K::kStrideW;
#pragma unroll
            for (int c = 0; c < Tile::kColumns; ++c)
#pragma unroll
              for (int o = 0; o < kOut; ++o)
                dx.rows[a * K::kStrideH + rh][c * K::kStrideW + rw][o / K::kRepeat] +=
                    taps[k][o] * g[c + K::kReachW - 1 - bw][o];
          }
      }
    }
  }
}

}  // namespace lamella::depthwise
