#pragma once

#include "boxes_units.cuh"

/// What warps of backward_boxes add up, row of g by row: the input's gradient of a step, and the weight's of
/// an item.
namespace lamella::depthwise {

/// The rows of g that a step reads, in one page or several.
template <class Sizes>
struct GradientRows {
  unsigned page[Sizes::kReach];  ///< where row 0 would be, if the page had all rows
  int row = 0;                   ///< the one at hand

  /// To be added to a lane's place: it loads a row `further` down, two at most. Rows of a product may lie in
  /// two pages.
  __device__ __forceinline__ unsigned of_lane(int further) const {
    unsigned from[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      from[i] = page[0];
#pragma unroll
      for (int p = 1; p < Sizes::kReach; ++p)
        if (row + i >= p * Sizes::kPageRows) from[i] = page[p];
    }
    return (further == 0 ? from[0] : further == 1 ? from[1] : from[2]) + row * Sizes::kGRowBytes;
  }
};

/// The input's gradient of a warp's pixels. `K`, `Tile`, `Sizes`: of backward_boxes.
template <class T, class K, class Tile, class Sizes>
struct BoxInputSums {
  using WindowH = typename Sizes::WindowH;
  using WindowW = typename Sizes::WindowW;
  static constexpr int kSpan = WindowW::kSpan, kRepeat = K::kRepeat, kEights = Tile::kEights;
  static constexpr int kShifts = 2 / kRepeat, kPairs = kSpan / kShifts,
                       kPlaces = (kSpan + kShifts - 1) / kShifts;
  using Pixels = float[Tile::kRows][K::kStrideH][K::kStrideW][kEights][4];

  TapRows<T, K, K::kH> taps[kEights];
  ShiftPlaces<Tile, kSpan, kRepeat> places;

  /// place: as of ShiftPlaces::find().
  template <class Place>
  __device__ __forceinline__ void begin(const Parameters& parameters, int first_channel, int channel,
                                        int channels, const Place& place) {
#pragma unroll
    for (int e = 0; e < kEights; ++e) taps[e].load(parameters, first_channel + channel + e * 8, channels, 0);
    places.template find<false>(channel / 8, place);
  }

  /// Row j of the window of the step's first row.
  __device__ __forceinline__ void add(int j, const GradientRows<Sizes>& rows, Pixels& dx) const {
    const unsigned mine =
        rows.of_lane(Tile::kDown == 1 ? 0 : static_cast<int>(threadIdx.x) % 16 / Tile::kColumns);
#pragma unroll
    for (int p = 0; p < kPlaces; ++p) {
      // Shifts 2 · p and 2 · p + 1, of which the last may be alone; or shift p.
      unsigned g[kEights][4];
      if (p < kPairs) {
#pragma unroll
        for (int e = 0; e < kEights; ++e) load_matrices(g[e], mine + places.pair[p < kPairs ? p : 0][e]);
      } else {
        unsigned some[2 * kEights];
        load_matrices(some, mine + places.last);
#pragma unroll
        for (int e = 0; e < kEights; ++e) g[e][0] = some[2 * e], g[e][1] = some[2 * e + 1];
      }
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
        for (int a = 0; a < K::kStrideH; ++a) {
          const int kh = WindowH::tap(a, j - r * Tile::kDown);
          if (kh < 0 || kh >= K::kH || j < r * Tile::kDown) continue;
#pragma unroll
          for (int b = 0; b < K::kStrideW; ++b) {
            const int first = WindowW::tap(b, kShifts * p),
                      second = WindowW::tap(b, kShifts * p + 1);  // columns of taps
            const bool has_first = first >= 0 && first < K::kW;
            const bool has_second = kRepeat == 1 && p < kPairs && second >= 0 && second < K::kW;
#pragma unroll
            for (int e = 0; e < kEights; ++e) {
              const unsigned* const of = taps[e].tap[0] + kh * K::kW;
              if (kRepeat > 1 && has_first)
                multiply_add(dx[r][a][b][e], g[e][0], g[e][1], g[e][2], g[e][3], of[has_first ? first : 0],
                             taps[e].tap[kRepeat - 1][kh * K::kW + (has_first ? first : 0)], T{});
              else if (has_first && has_second)
                multiply_add(dx[r][a][b][e], g[e][0], g[e][1], g[e][2], g[e][3], of[has_first ? first : 0],
                             of[has_second ? second : 0], T{});
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
};

/// The weight's gradient, and the bias's, of a warp's channels and rows of taps.
template <class T, class K, class Tile, class Sizes, int kPhaseH, bool kBias>
struct BoxTapSums {
  using WindowH = typename Sizes::WindowH;
  using WindowW = typename Sizes::WindowW;
  /// Of a part of the taps' rows.
  using PartH = UnitWindow<Tile::kTapRows, K::kStrideH, kPhaseH>;
  static constexpr int kSpan = WindowW::kSpan, kRepeat = K::kRepeat, kEights = Tile::kEights;
  static constexpr int kStrideH = K::kStrideH, kStrideW = K::kStrideW, kDown = Tile::kDown;
  static constexpr int kTapRows = Tile::kTapRows, kTapGroups = Sizes::kTapGroups;
  /// Products of a row: of two shifts of g, or of one where there are two outputs a channel.
  static constexpr int kShifts = 2 / kRepeat, kPairs = kSpan / kShifts;
  /// Of an odd number of shifts, those of the last one of two rows of g make a product, where a pair begins
  /// with an even row: so there are sums for each place of a pair among the rows that one of x meets.
  static constexpr bool kOdd = kSpan % kShifts != 0;
  static constexpr int kLasts = !kOdd ? 1 : kDown == 1 ? PartH::kSpan + 1 : (PartH::kSpan + 1) / 2;
  static constexpr int kSums = kPairs > 0 ? kPairs : 1;
  using Pixels = unsigned[Tile::kRows][kStrideH][kStrideW][2 * kEights];

  ShiftPlaces<Tile, kSpan, kRepeat> places;
  int tap_group;
  int down;  ///< the row of the window that is row 0 of the part's
  int owner_row, owner_group, bias_column;
  float sums[kTapRows][kStrideW][kSums][kEights][4], lasts[kStrideH][kLasts][kStrideW][kEights][4],
      total[kEights][4];

  /// place: as of ShiftPlaces::find().
  template <class Place>
  __device__ __forceinline__ void begin(const PixelWork& work, int chunk, int group, const Place& place) {
    places.template find<true>(chunk, place);
    if constexpr (kOdd) places.last += lane() / 8 % 2 * Sizes::kGRowBytes;
    tap_group = group, down = PartH::kLow - WindowH::kLow - group * (kTapRows / kStrideH);
    owner_row = -work.owner_h - WindowH::kLow;  // of the window
    owner_group = kTapGroups > 1 ? work.owner_h * kStrideH / kTapRows : 0;
    bias_column = -work.owner_w - WindowW::kLow;
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int e = 0; e < kEights; ++e)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[e][i] = 0;
#pragma unroll
        for (int b = 0; b < kStrideW; ++b) {
#pragma unroll
          for (int k = 0; k < kTapRows; ++k)
#pragma unroll
            for (int p = 0; p < kSums; ++p) sums[k][b][p][e][i] = 0;
#pragma unroll
          for (int a = 0; a < kStrideH; ++a)
#pragma unroll
            for (int n = 0; n < kLasts; ++n) lasts[a][n][b][e][i] = 0;
        }
      }
  }

  /// Row j of the window of the part's rows of taps, and of an odd shift the next one, if j is even. Row -1
  /// does not exist.
  __device__ __forceinline__ void add(int j, const GradientRows<Sizes>& rows, const Pixels& x) {
    const int down_of_pixel = kDown == 1 ? 0 : (lane() % 8 + lane() / 16 * 8) / Tile::kColumns;
    if (kTapGroups == 1 || rows.row >= 0) add_pairs(j, rows, rows.of_lane(down_of_pixel), x);
    if (kOdd && j % 2 == 0) {
      // What is loaded behind the last row meets no tap, nor does what stands in for row -1.
      const int second = lane() / 8 % 2;
      add_last(j, rows,
               rows.of_lane(down_of_pixel + second) +
                   (kTapGroups > 1 && rows.row < 0 && second == 0 ? Sizes::kGRowBytes : 0),
               x);
    }
  }

  /// Adds all to `to`, [tap, or the bias][channel of g], from the warp's first on. Of a product, lane l has
  /// columns 2 · (l % 4) and the next of rows l / 4 and l / 4 + 8. Wanted are the diagonals of both halves
  /// or, of two outputs a channel, of rows 2 · c and 2 · c + 1 column c.
  __device__ __forceinline__ void keep(float* to) const {
    const int row = lane() / 4 + (kRepeat == 1 ? 0 : lane() % 4 / 2 * 8), column = row / kRepeat;
    if (column / 2 != lane() % 4) return;
    // Of the upper rows, or the lower ones; of two outputs a lane has some of one of them.
    const auto wanted = [&](const float(&sum)[4], int lower) {
      const float first = column % 2 == 0 ? sum[0] : sum[1], last = column % 2 == 0 ? sum[2] : sum[3];
      return (kRepeat == 1 ? lower == 0 : row < 8) ? first : last;
    };
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      float* const of_eight = to + row + e * 8 * kRepeat;
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
            of_eight[(kh * K::kW + kw) * Sizes::kGChannels] +=
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
              if (first + lower < 0 || k < 0 || k >= kTapRows || (kTapGroups > 1 && kh >= K::kH)) continue;
#pragma unroll
              for (int b = 0; b < kStrideW; ++b) {
                const int kw = WindowW::tap(b, kSpan - 1);
                if (kw < 0 || kw >= K::kW) continue;
                of_eight[(kh * K::kW + kw) * Sizes::kGChannels] += wanted(lasts[a][n][b][e], lower);
              }
            }
      }
      if (kBias && tap_group == owner_group)
        of_eight[K::kTaps * Sizes::kGChannels] +=
            kRepeat == 1 ? total[e][0] + total[e][2] : wanted(total[e], 0);
    }
  }

 private:
  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ __forceinline__ static unsigned ones() {
    return static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
  }
  /// Each gradient counts once for the bias: for the unit whose it is.
  __device__ __forceinline__ bool is_own(int row) const {
    const int own = row - owner_row;
    return own >= 0 && own % kDown == 0 && own < Tile::kStepRows && tap_group == owner_group;
  }

  /// Products of pairs of shifts, or of one of two outputs.
  __device__ __forceinline__ void add_pairs(int j, const GradientRows<Sizes>& rows, unsigned from,
                                            const Pixels& x) {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      unsigned g[kEights][4];
#pragma unroll
      for (int e = 0; e < kEights; ++e) load_matrices_transposed(g[e], from + places.pair[p][e]);
#pragma unroll
      for (int r = 0; r < Tile::kRows; ++r) {
#pragma unroll
        for (int a = 0; a < kStrideH; ++a) {
          const int k = PartH::tap(a, j - r * kDown);
          if (k < 0 || k >= kTapRows || j < r * kDown) continue;
#pragma unroll
          for (int b = 0; b < kStrideW; ++b) {
            const int first = WindowW::tap(b, kShifts * p), second = WindowW::tap(b, kShifts * p + 1);
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
        if (is_own(rows.row) && bias_column / kShifts == p) {
#pragma unroll
          for (int e = 0; e < kEights; ++e) {
            // Of two shifts one, the halves of the pixels one below the other. To index by it would keep all
            // of g in memory.
            const bool second = bias_column % 2 == 1;
            if constexpr (kRepeat == 1)
              multiply_add(total[e], second ? g[e][1] : g[e][0], second ? g[e][3] : g[e][2], ones(), T{});
            else
              multiply_add(total[e], g[e][0], g[e][1], g[e][2], g[e][3], ones(), ones(), T{});
          }
        }
      }
    }
  }
  /// Those of the last shift of two rows.
  __device__ __forceinline__ void add_last(int j, const GradientRows<Sizes>& rows, unsigned from,
                                           const Pixels& x) {
    unsigned g[kEights][4];
#pragma unroll
    for (int e = 0; e < kEights; ++e) load_matrices_transposed(g[e], from + (places.last ^ 16 * e));
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
            multiply_add(lasts[a][kDown == 1 ? first + 1 : first / 2][b][e], g[e][0], g[e][1], g[e][2],
                         g[e][3], x[r][a][b][2 * e], x[r][a][b][2 * e + 1], T{});
        }
      }
    }
    if constexpr (kBias) {
      if (bias_column == kSpan - 1) {
#pragma unroll
        for (int second = 0; second < 2; ++second)
          if (is_own(rows.row + second))
#pragma unroll
            for (int e = 0; e < kEights; ++e)
              multiply_add(total[e], g[e][second], g[e][2 + second], ones(), T{});
      }
    }
  }
};

/// The sums, or, where a kernel has none of these, nothing.
template <class Sums, bool kHas>
struct SomeBoxSums : Sums {};
template <class Sums>
struct SomeBoxSums<Sums, false> {};

}  // namespace lamella::depthwise
