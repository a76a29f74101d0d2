#pragma once

#include "runs.cuh"

/// The weight's gradient of dense planes (NCHW) of sixteen-bit numbers by the matrix units. Pages are those
/// of runs.cuh. For each shift of columns a product multiplies sixteen rows of g by eight of x, over the
/// columns of both: row g of it and column x are the sum for the tap that is x - g rows down, so each row of
/// taps is a diagonal. Rows of g begin where the last row of taps meets the first of x.
///
/// With a stride, x has its rows in phases, row stride · u + a being row u of phase a: a row of taps meets
/// one phase alone, and products take eight rows of one. Of the columns a shift picks every so many-th.
namespace lamella::depthwise {

/// A product has kColumns_ columns of g, 8 or 16, or is two side by side of 32, and a warp has kPlanes_
/// planes of x, or every kGroups_-th product of their rows if it is one of as many. kVector_: numbers that
/// all rows of x begin at multiples of, 1, 2, 4 or 8, and are taken at once, two at least; kVectorG_: of g.
template <int kColumns_, int kPlanes_, int kGroups_, int kVector_, int kPages_, int kVectorG_ = kVector_>
struct DiagonalTile {
  static constexpr int kColumns = kColumns_, kPlanes = kPlanes_, kGroups = kGroups_;
  static constexpr int kVector = kVector_, kVectorG = kVectorG_, kPages = kPages_;
};

/// Rows of taps as they meet the phases of x: tap k of row t of g is row t + down(k) of phase(k).
template <int kTaps, int kStride, int kSpread, int kPadding>
struct TapPhases {
  __host__ __device__ static constexpr int down(int tap) {
    return Axis::floor(tap * kSpread - kPadding, kStride);
  }
  __host__ __device__ static constexpr int phase(int tap) {
    return tap * kSpread - kPadding - down(tap) * kStride;
  }
  static constexpr int kLowest = down(0), kHighest = down(kTaps - 1), kReach = kHighest - kLowest;
  __host__ __device__ static constexpr bool has(int phase_of_x) {
    bool any = false;
    for (int tap = 0; tap < kTaps; ++tap) any = any || phase(tap) == phase_of_x;
    return any;
  }
};

/// Sizes of planes that are whole; zeros: any, and bands of them, of which warps may share out rows, too.
template <int kH_, int kW_, int kOutH_, int kOutW_>
struct PlaneSizes {
  static constexpr int kH = kH_, kW = kW_, kOutH = kOutH_, kOutW = kOutW_;
  static constexpr bool kKnown = kH > 0;
};

/// Which of a product's eight rows each four lanes have: in their order, or those of even numbers first,
/// where the lanes of half a warp meet no bank twice then. Rows are so many words apart; 0: not known.
template <int kVector, int kWords>
struct RowOrder {
  /// Whether four rows so far apart, of which each has eight words, have all banks.
  __host__ __device__ static constexpr bool have_all_banks(int apart) {
    bool all = true;
    for (int rows = 1; rows < 4; ++rows) all = all && rows * apart % 32 >= 8 && rows * apart % 32 <= 24;
    return all;
  }
  static constexpr bool kEvenFirst = kVector == 4 && !have_all_banks(kWords) && have_all_banks(2 * kWords);
  __device__ __forceinline__ static int row(int place) {
    return kEvenFirst ? (place < 4 ? 2 * place : 2 * place - 7) : place;
  }
  __device__ __forceinline__ static int place(int row) {
    return kEvenFirst ? (row % 2 == 0 ? row / 2 : row / 2 + 4) : row;
  }
};

/// Words from number i on, as many at once as begin with a multiple of their size. Not a loop: the compiler
/// does not see then which words one load has, and keeps them in memory.
template <int kVector, int kLead, int i = 0, int kWords>
__device__ __forceinline__ void load_vectors(const char* from, unsigned (&word)[kWords]) {
  if constexpr (i < kWords) {
    constexpr bool kPair = kVector >= 4 && (i + kLead) % 2 == 0 && i + 2 <= kWords,
                   kFour = kVector >= 8 && (i + kLead) % 4 == 0 && i + 4 <= kWords;
    if constexpr (kFour) {
      const uint4 four = *reinterpret_cast<const uint4*>(from + 4 * i);
      word[i] = four.x, word[i + 1] = four.y, word[i + 2] = four.z, word[i + 3] = four.w;
    } else if constexpr (kPair) {
      const uint2 pair = *reinterpret_cast<const uint2*>(from + 4 * i);
      word[i] = pair.x, word[i + 1] = pair.y;
    } else {
      word[i] = *reinterpret_cast<const unsigned*>(from + 4 * i);
    }
    load_vectors<kVector, kLead, i + (kFour ? 4 : kPair ? 2 : 1)>(from, word);
  }
}

/// Neighbouring numbers from shared memory, of which the first is kLead words behind a whole vector. Rows of
/// an odd width begin within a word as often as not: `from` is that word then, and `odd` 1.
template <int kVector, int kLead, int kWords>
__device__ __forceinline__ void load_line(const char* from, unsigned odd, unsigned (&word)[kWords]) {
  if constexpr (kVector == 1) {
    const unsigned* const words = reinterpret_cast<const unsigned*>(from);
    unsigned some[kWords + 1];
#pragma unroll
    for (int i = 0; i <= kWords; ++i) some[i] = words[i];
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = shift_words(some[i], some[i + 1], 16 * odd);
  } else {
    load_vectors<kVector, kLead>(from, word);
  }
}
/// Whether a number lies in the second half of its word, where that is not known.
template <int kVector>
__device__ __forceinline__ unsigned is_odd(const char* at) {
  return kVector == 1 ? shared_address(at) / 2 % 2 : 0u;
}

/// All bits of those of neighbouring numbers, from column `first` on, that are in a row of so many.
template <int kWords>
__device__ __forceinline__ void mask_line(int first, int width, unsigned (&mask)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    const int column = first + 2 * i;
    mask[i] = (column >= 0 && column < width ? 0xffffu : 0u) |
              (column + 1 >= 0 && column + 1 < width ? 0xffff0000u : 0u);
  }
}
template <int kWords>
__device__ __forceinline__ void apply_mask(unsigned (&word)[kWords], const unsigned (&mask)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) word[i] &= mask[i];
}
/// Keeps the compiler from computing them anew wherever they are used.
template <int kWords>
__device__ __forceinline__ void hold(unsigned (&word)[kWords]) {
#pragma unroll
  for (int i = 0; i < kWords; ++i) hold_word(word[i]);
}

/// The products of a lane's numbers. Which columns it has is free, as long as they are the same of x and g:
/// it has neighbouring ones, whose shifts overlap.
template <class T, class K, class S, class Tile, int kPaddingH, int kPaddingW, bool kBias>
struct Diagonals {
  using Rows = TapPhases<K::kH, K::kStrideH, S::kHeight, kPaddingH>;
  static constexpr int kColumns = Tile::kColumns / 4;  ///< of a lane
  static constexpr int kOffset =
      Tile::kVector > 1 ? kPaddingW % 2 : 0;  ///< rows are read from whole words on
  static constexpr int kBefore = kPaddingW + kOffset;
  static constexpr int kWindow = kOffset + (kColumns - 1) * K::kStrideW + (K::kW - 1) * S::kWidth + 1;
  static constexpr int kG = kColumns / 2, kX = (kWindow + 1) / 2;
  static constexpr int kLead = (4 - kBefore / 2 % 4) % 4;
  static constexpr int kPhases = K::kStrideH;
  static constexpr int kShifts = kPhases * K::kW + (kBias ? 1 : 0);  ///< of each phase in turn
  /// Whether products want rows of a phase. The bias's are of the first.
  __host__ __device__ static constexpr bool wants(int phase) {
    return Rows::has(phase) || (kBias && phase == 0);
  }

  /// Of sixteen rows of g in halves, and eight of a phase of x. The bias's sum is a shift of an x that is one
  /// wherever its row exists.
  __device__ __forceinline__ static void add(float (&sums)[kShifts][4], const unsigned (&low)[kG],
                                             const unsigned (&high)[kG], const unsigned (&x)[kX], int phase,
                                             bool exists) {
    if (Rows::has(phase)) {
#pragma unroll
      for (int kw = 0; kw < K::kW; ++kw) {
        unsigned shifted[kG];
#pragma unroll
        for (int n = 0; n < kG; ++n) shifted[n] = pick(x, kOffset + kw * S::kWidth + 2 * n * K::kStrideW);
        multiply(sums[phase * K::kW + kw], low, high, shifted);
      }
    }
    if (kBias && phase == 0) {
      unsigned ones[kG];
#pragma unroll
      for (int n = 0; n < kG; ++n)
        ones[n] = exists ? static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u : 0u;
      multiply(sums[kShifts - 1], low, high, ones);
    }
  }

 private:
  /// Numbers `at` and a stride further.
  __device__ __forceinline__ static unsigned pick(const unsigned (&x)[kX], int at) {
    const int second = at + K::kStrideW;
    if (at % 2 == 0 && second == at + 1) return x[at / 2];
    return select_bytes(x[at / 2], x[second / 2],
                        (at % 2 == 0 ? 0x10u : 0x32u) | (second % 2 == 0 ? 0x5400u : 0x7600u));
  }
  __device__ __forceinline__ static void multiply(float (&sum)[4], const unsigned (&low)[kG],
                                                  const unsigned (&high)[kG], const unsigned (&x)[kG]) {
    if constexpr (kG == 4) {
      multiply_add(sum, low[0], high[0], low[1], high[1], x[0], x[1], T{});
      multiply_add(sum, low[2], high[2], low[3], high[3], x[2], x[3], T{});
    } else if constexpr (kG == 2)
      multiply_add(sum, low[0], high[0], low[1], high[1], x[0], x[1], T{});
    else
      multiply_add(sum, low[0], high[0], x[0], T{});
  }
};

/// x of one channel, from memory to the products, which take it rounded.
template <class T, int kTransforms>
struct LineTransform {
  PairTransform<T, kTransforms> pairs;
  float scale, shift;
  __device__ __forceinline__ void begin(const Transform& transform, int channel) {
    pairs.begin(transform);
    scale = transform.scale[channel], shift = transform.shift[channel];
  }
  template <int kWords>
  __device__ __forceinline__ void apply(unsigned (&word)[kWords]) const {
#pragma unroll
    for (int i = 0; i < kWords; ++i) word[i] = pairs.apply(word[i], scale, scale, shift, shift);
  }
};
template <class T>
struct LineTransform<T, kPlain> {
  __device__ __forceinline__ void begin(const Transform&, int) {}
  template <int kWords>
  __device__ __forceinline__ void apply(unsigned (&)[kWords]) const {}
};

}  // namespace lamella::depthwise
