#pragma once

#include "point_load.cuh"

/// What happens to results between the products and memory. A lane has of each sixteen channels m those of
/// numbers 16 · m + l / 4 and + 8, of every eight pixels two: numbers 2 · (l % 4) and the next.
namespace lamella::pointwise {

__host__ __device__ constexpr bool leaves_sums(Hook hook) {
  return hook == Hook::ClampSums || hook == Hook::HardSwishSums;
}

/// Results of kM times sixteen channels and kN times eight pixels.
template <int kM, int kN>
using Results = float[kM][kN][4];

/// The numbers of the four lanes that have the same channels, added up.
__device__ __forceinline__ float over_pixels(float number) {
  const int first = static_cast<int>(threadIdx.x) % 32 / 4 * 4;
  return (of_lane(number, first) + of_lane(number, first + 1)) +
         (of_lane(number, first + 2) + of_lane(number, first + 3));
}

/// Nothing but the results.
template <Hook kHook, int kM>
struct Kept {
  static constexpr int kFactorBytes = 0, kWarpBytes = 0, kLeftFloats = 0;
};

/// Sums of what is left of results when a pivot, the first result of the channel that the warp had, is taken
/// away: nothing is lost where the mean is far larger than the deviations. Pivots are in shared memory, for
/// want of registers.
template <int kM>
struct Kept<Hook::Moments, kM> {
  static constexpr int kFactorBytes = 0, kWarpBytes = 64 * kM,
                       kLeftFloats = 3;  ///< of each channel, for the other warps
  float sum[2 * kM], square[2 * kM];
  float* pivots;  ///< [16 · kM] of this warp, from this lane's first channel on
  int count;

  __device__ __forceinline__ void begin(unsigned char* at) {
    count = 0;
    pivots = reinterpret_cast<float*>(at) + threadIdx.x % 32 / 4;
#pragma unroll
    for (int c = 0; c < 2 * kM; ++c) sum[c] = square[c] = 0;
  }
  /// The first `valid` pixels of the warp's exist.
  template <int kN>
  __device__ __forceinline__ void add(const Results<kM, kN>& results, int valid) {
    if (valid <= 0) return;
    if (count == 0) {
      if (threadIdx.x % 4 == 0) {
#pragma unroll
        for (int c = 0; c < 2 * kM; ++c) pivots[8 * c] = results[c / 2][0][c % 2 * 2];
      }
      synchronize_warp();
    }
    if (valid >= 8 * kN) {
      add_some<kN, true>(results, valid);
      count += 8 * kN;
    } else {
      add_some<kN, false>(results, valid);
      count += valid;
    }
  }
  /// To [3][16 · kM] in shared memory, by the warp.
  __device__ __forceinline__ void leave(float* to) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int c = 0; c < 2 * kM; ++c) {
      const float total = over_pixels(sum[c]), squares = over_pixels(square[c]);
      if (lane % 4 != 0) continue;
      float* const mine = to + c * 8 + lane / 4;
      mine[0] = count > 0 ? pivots[8 * c] : 0.0f, mine[16 * kM] = total, mine[32 * kM] = squares;
    }
  }

 private:
  template <int kN, bool kAll>
  __device__ __forceinline__ void add_some(const Results<kM, kN>& results, int valid) {
    const int first = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int c = 0; c < 2 * kM; ++c) {
      const float pivot = pivots[8 * c];
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float d = results[c / 2][n][c % 2 * 2 + i] - pivot;
          if (!kAll && n * 8 + first + i >= valid) d = 0;
          sum[c] += d;
          square[c] = fmaf(d, d, square[c]);
        }
    }
  }
};

/// Σ g' and Σ g' · (z − center); see Hook. Of pixels that do not exist g is zero.
template <Hook kHook, int kM>
struct KeptSums {
  static constexpr int kFactorBytes = 256 * kM, kWarpBytes = 0, kLeftFloats = 2;
  float first[2 * kM], second[2 * kM];
  const float* factors;  ///< [channel]{scale, shift, center, nothing}, from this lane's first channel on
  float low, high;

  __device__ __forceinline__ void begin(unsigned char*) {
#pragma unroll
    for (int c = 0; c < 2 * kM; ++c) first[c] = second[c] = 0;
  }
  /// By all of `threads`, for the channels from `channel` on. To be followed by a barrier.
  __device__ void load_factors(unsigned char* at, const PointWork& work, int channel, int threads) {
    float* const to = reinterpret_cast<float*>(at);
    for (int i = static_cast<int>(threadIdx.x); i < 64 * kM; i += threads) {
      const float* const from = i % 4 == 0 ? work.hook.scale : i % 4 == 1 ? work.hook.shift : work.center;
      const int of = channel + i / 4;
      to[i] = i % 4 < 3 && of < work.outputs ? from[of] : 0.0f;
    }
    factors = to + threadIdx.x % 32 / 4 * 4;
    low = work.hook.low, high = work.hook.high;
  }
  /// g of sixteen channels m and sixteen pixels; z as load_matrices_transposed() gives it: the pixels' first
  /// half of the channels' first half, of their second half, then the pixels' second half.
  template <class T>
  __device__ __forceinline__ void apply(float (&g0)[4], float (&g1)[4], int m, const unsigned (&z)[4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float of[4];
      load<float>(factors + (2 * m + half) * 32, of);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float(&g)[4] = n == 0 ? g0 : g1;
        float some[2];
        widen_pair(z[2 * n + half], T{}, some[0], some[1]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& at = g[2 * half + i];
          at = slope(at, fmaf(of[0], some[i], of[1]));
          first[2 * m + half] += at;
          second[2 * m + half] = fmaf(at, some[i] - of[2], second[2 * m + half]);
        }
      }
    }
  }
  /// To [2][16 · kM] in shared memory, by the warp.
  __device__ __forceinline__ void leave(float* to) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int c = 0; c < 2 * kM; ++c) {
      const float a = over_pixels(first[c]), b = over_pixels(second[c]);
      if (lane % 4 != 0) continue;
      to[c * 8 + lane / 4] = a, to[16 * kM + c * 8 + lane / 4] = b;
    }
  }

 private:
  /// As layers/activation/functions.h has it.
  __device__ __forceinline__ float slope(float g, float v) const {
    if constexpr (kHook == Hook::HardSwishSums)
      return v <= -3.0f ? 0.0f : v < 3.0f ? g * (v * (1.0f / 3.0f) + 0.5f) : g;
    return v <= low || v >= high ? 0.0f : g;
  }
};
template <int kM>
struct Kept<Hook::ClampSums, kM> : KeptSums<Hook::ClampSums, kM> {};
template <int kM>
struct Kept<Hook::HardSwishSums, kM> : KeptSums<Hook::HardSwishSums, kM> {};

/// What the warps left in shared memory, added up in their order and written as a part, by all of `threads`:
/// mean and sum of squared deviations, or two sums, of the channels from `channel` to `last` of `outputs`.
/// counts: of each warp's pixels.
template <Hook kHook, int kM, int kWarps>
__device__ void write_part(const float* left, const int* counts, double* part, int channel, int last,
                           int outputs, int threads) {
  constexpr int kRow = 16 * kM, kWarp = Kept<kHook, kM>::kLeftFloats * kRow;
  for (int c = static_cast<int>(threadIdx.x); c < kRow && channel + c < last; c += threads) {
    double first = 0, second = 0;
    if constexpr (kHook == Hook::Moments) {
      // Around the first warp's mean (Chan, Golub & LeVeque, 1983).
      double pivot = 0, count = 0;
      for (int w = 0; w < kWarps; ++w) {
        if (counts[w] == 0) continue;
        const double n = counts[w], sum = left[w * kWarp + kRow + c];
        const double mean = static_cast<double>(left[w * kWarp + c]) + sum / n;
        const double m2 = static_cast<double>(left[w * kWarp + 2 * kRow + c]) - sum * (sum / n);
        if (count == 0) pivot = mean;
        const double d = mean - pivot;
        count += n, first += n * d, second += m2 + n * d * d;
      }
      const double moved = count > 0 ? first / count : 0;
      second -= first * moved;
      first = pivot + moved;
      second = second < 0 ? 0 : second;  // NaN stays
    } else {
      for (int w = 0; w < kWarps; ++w)
        first += static_cast<double>(left[w * kWarp + c]),
            second += static_cast<double>(left[w * kWarp + kRow + c]);
    }
    part[channel + c] = first;
    part[outputs + channel + c] = second;
  }
}

}  // namespace lamella::pointwise
