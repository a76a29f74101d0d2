#pragma once

#include "runs.cuh"

/// Dense planes (NCHW) of sixteen-bit numbers as runs.cuh moves them, for the matrix units. The taps of a
/// channel are the first factor: each of its 16 rows has those of one result of a tile, which meets the
/// numbers of the tile's window. The second factor's columns are the windows of eight tiles of that channel,
/// side by side in a row, then of other images. A pair of the window's numbers is a word of shared memory.
namespace lamella::depthwise {

/// A tile is 16 results, of kColumns_ columns; its window has kRead_ columns, 8 or 16. Items are kImages_
/// images of a band, or of some channels' planes. A warp has kHeld_ channels, which kWarps_ warps share.
template <int kColumns_, int kRead_, int kImages_, int kHeld_, int kWarps_, int kPages_>
struct MatrixTile {
  static constexpr int kColumns = kColumns_, kRows = 16 / kColumns_, kRead = kRead_, kPieces = kRead_ / 8;
  static constexpr int kImages = kImages_, kHeld = kHeld_, kWarps = kWarps_, kPages = kPages_;
  /// Of a result's number in the tile: neighbours are 8 apart, so that a lane has both.
  LAMELLA_ANYWHERE static constexpr int row_of(int number) { return number % 8 / (kColumns / 2); }
  LAMELLA_ANYWHERE static constexpr int column_of(int number) {
    return number % 8 % (kColumns / 2) * 2 + number / 8;
  }
};

/// Rows of x and y have kIn_ and kOut_ numbers. With kInRows_ the planes are whole, and kPadding_ rows above
/// them zeros: then a walk down is compiled for them. Else sizes are those of the work.
template <int kIn_, int kOut_, int kInRows_ = 0, int kOutRows_ = 0, int kPadding_ = 0>
struct MatrixPlane {
  static constexpr int kIn = kIn_, kOut = kOut_, kInRows = kInRows_, kOutRows = kOutRows_,
                       kPadding = kPadding_;
};

template <class K, class Tile, int kOut>
struct ForwardMatrices {
  static constexpr int kWindowRows = Tile::kRows + K::kH - 1;
  static constexpr int kHalves = kWindowRows * Tile::kPieces;  ///< eight numbers of a row: half a product
  static constexpr int kProducts = (kHalves + 1) / 2;
  /// So many steps down until the same registers have the same rows of the window again.
  __host__ __device__ static constexpr int turns() {
    int turns = 1;
    while (turns * Tile::kRows % kWindowRows != 0) ++turns;
    return turns;
  }
  static constexpr int kTurns = turns();
  static constexpr int kGroups = (kOut + Tile::kColumns - 1) / Tile::kColumns;  ///< tiles of a row
  static constexpr int kSpan = kGroups > 4 ? 8 : kGroups > 2 ? 4 : kGroups;     ///< of them, in a product
  static constexpr int kTogether = 8 / kSpan;                                   ///< images of a product
  static constexpr int kPasses = (kGroups + kSpan - 1) / kSpan;
  static constexpr int kImageGroups = (Tile::kImages + kTogether - 1) / kTogether;
  static_assert(Tile::kImages < kTogether || Tile::kImages % kTogether == 0);

  /// The product's columns are tiles side by side, or those of even number before the others: lanes store
  /// every second at once, and it depends on rows in which order they meet fewer banks twice.
  LAMELLA_ANYWHERE static constexpr int place_of(int column, bool even_first) {
    return even_first ? column / 2 + column % 2 * 4 : column;
  }
  LAMELLA_ANYWHERE static constexpr int wavefronts(bool even_first) {
    int most = 0;
    for (int n = 0; n < 2; ++n) {
      int counts[32] = {};
      for (int lane = 0; lane < 32; ++lane) {
        const int place = place_of(lane % 4 * 2 + n, even_first);
        const int column = place % kSpan * Tile::kColumns + Tile::column_of(lane / 4);
        if (column >= kOut) continue;
        int& count =
            counts[(place / kSpan * (64 / kTogether) + Tile::row_of(lane / 4) * kOut + column) / 2 % 32];
        most = ++count > most ? count : most;
      }
    }
    return most;
  }
  static constexpr bool kEvenFirst = wavefronts(true) < wavefronts(false);
};

/// The first factors of a channel. shift: how many numbers before their first tap's the even and the odd rows
/// of a window begin.
template <class T, class K, class Tile, int kProducts>
struct TapMatrices {
  unsigned word[kProducts][4];

  __device__ __forceinline__ void load(const Parameters& parameters, int channel, const int (&shift)[2]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const Int64 at = static_cast<Int64>(channel) * K::kTaps;
#pragma unroll
    for (int i = 0; i < 4 * kProducts; ++i) {
      const int half = i / 2, row = half / Tile::kPieces, result = lane / 4 + i % 2 * 8;
      const int kh = row - Tile::row_of(result);
      const int kw = half % Tile::kPieces * 8 + lane % 4 * 2 - shift[row % 2] - Tile::column_of(result);
      float tap[2];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const bool exists = kh >= 0 && kh < K::kH && kw + n >= 0 && kw + n < K::kW;
        const int of = kh * K::kW + kw + n;
        tap[n] = exists ? load_parameter<T>(parameters.taps, parameters.taps_are_float32,
                                            at + (parameters.turned ? K::kTaps - 1 - of : of))
                        : 0.0f;
      }
      word[i / 4][i % 4] = narrow_pair(tap[0], tap[1], T{});
    }
  }
};

}  // namespace lamella::depthwise
