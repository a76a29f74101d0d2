#pragma once

#include "layers/depthwise_conv2d/cuda/device/passing_range.cuh"
#include "point_load.cuh"

/// What happens to results between the products and memory. A lane has of each sixteen channels m those of
/// numbers 16 · m + l / 4 and + 8, of every eight pixels two: numbers 2 · (l % 4) and the next, in a word.
/// That is also how the matrix units take a factor, so they do the adding up: of p and q [8 channels][16
/// pixels], [p; ones] · q transposed has Σ p · q of each channel on the diagonal of its upper half, and Σ q
/// below.
namespace lamella::pointwise {

__host__ __device__ constexpr bool leaves_sums(Hook hook) {
  return hook == Hook::ClampSums || hook == Hook::HardSwishSums;
}

/// Results of kM times sixteen channels and kN times eight pixels.
template <int kM, int kN>
using Results = float[kM][kN][4];
/// The same as they are stored: the two halves of each sixteen channels.
template <int kM, int kN>
using Pairs = unsigned[kM][kN][2];

template <class T>
__device__ __forceinline__ void narrow_results(const float (&of)[4], unsigned (&pairs)[2]) {
  pairs[0] = narrow_pair(of[0], of[1], T{}), pairs[1] = narrow_pair(of[2], of[3], T{});
}

/// Products [p; ones] · q of eight channels. A lane that has_sums() has those of channel l / 4.
struct EightSums {
  float sums[4];

  __device__ __forceinline__ void begin() { sums[0] = sums[1] = sums[2] = sums[3] = 0; }
  template <class T>
  __device__ __forceinline__ void add(unsigned p0, unsigned p1, unsigned q0, unsigned q1, T) {
    const unsigned ones = static_cast<unsigned>(narrow<T>(1.0f).bits) * 0x10001u;
    multiply_add(sums, p0, ones, p1, ones, q0, q1, T{});
  }
  __device__ __forceinline__ float sum() const { return threadIdx.x / 4 % 2 == 1 ? sums[3] : sums[2]; }
  __device__ __forceinline__ float product() const { return threadIdx.x / 4 % 2 == 1 ? sums[1] : sums[0]; }
};
__device__ __forceinline__ bool has_sums() { return threadIdx.x % 32 / 8 == threadIdx.x % 4; }

/// Nothing but the results.
template <Hook kHook, int kM>
struct Kept {
  static constexpr int kFactorBytes = 0, kWarpBytes = 0;
};

/// Sums of what is left of results when a pivot, the first result of the channel that the warp had, is taken
/// away: nothing is lost where the mean is far larger than the deviations. What is left is rounded to the
/// type, which the many it is added to even out. The matrix units do not round sums to nearest: those of a
/// tile go to shared memory, [pivot, sum, sum of squares][16 · kM] for each warp.
template <int kM>
struct Kept<Hook::Moments, kM> {
  static constexpr int kFactorBytes = 0, kWarpBytes = 192 * kM;
  float* mine;  ///< of this warp, from this lane's first channel on
  int count;

  __device__ __forceinline__ void begin(unsigned char* at) {
    count = 0;
    float* const of_warp = reinterpret_cast<float*>(at);
    for (int i = static_cast<int>(threadIdx.x) % 32; i < 48 * kM; i += 32) of_warp[i] = 0;
    synchronize_warp();
    mine = of_warp + threadIdx.x % 32 / 4;
  }
  /// The first `valid` pixels of the warp's exist.
  template <class T, int kN>
  __device__ __forceinline__ void add(const Pairs<kM, kN>& results, int valid, T) {
    if (valid <= 0) return;
    if (count == 0) {
      if (threadIdx.x % 4 == 0) {
#pragma unroll
        for (int c = 0; c < 2 * kM; ++c)
          mine[8 * c] = widen(T{static_cast<unsigned short>(results[c / 2][0][c % 2])});
      }
      synchronize_warp();
    }
    if (valid >= 8 * kN) {
      add_some<kN, true>(results, valid, T{});
      count += 8 * kN;
    } else {
      add_some<kN, false>(results, valid, T{});
      count += valid;
    }
  }

 private:
  template <int kN, bool kAll, class T>
  __device__ __forceinline__ void add_some(const Pairs<kM, kN>& results, int valid, T) {
    const int first = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int c = 0; c < 2 * kM; ++c) {
      const float pivot = mine[8 * c];
      const unsigned pivots = narrow_pair(pivot, pivot, T{});
      EightSums tile;
      tile.begin();
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        unsigned apart[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          apart[i] = subtract_pair(results[c / 2][n + i][c % 2], pivots, T{});
          const int left = valid - (n + i) * 8 - first;
          if (!kAll) apart[i] &= (left > 0 ? 0xffffu : 0u) | (left > 1 ? 0xffff0000u : 0u);
        }
        tile.add(apart[0], apart[1], apart[0], apart[1], T{});
      }
      if (has_sums()) mine[16 * kM + 8 * c] += tile.sum(), mine[32 * kM + 8 * c] += tile.product();
    }
  }
};

/// Σ g' and Σ g' · (z − center) of gradients as they are stored; see Hook. [sum, product][16 · kM] for each
/// warp. Of pixels that do not exist g is zero.
template <Hook kHook, int kM>
struct KeptSums {
  static constexpr int kFactorBytes = 256 * kM, kWarpBytes = 128 * kM;
  /// [channel]{what z passes the mask: least and most, twice each; or scale and shift; center; nothing}, from
  /// this lane's first channel on.
  const unsigned* factors;
  float* mine;

  __device__ __forceinline__ void begin(unsigned char* at) {
    float* const of_warp = reinterpret_cast<float*>(at);
    for (int i = static_cast<int>(threadIdx.x) % 32; i < 32 * kM; i += 32) of_warp[i] = 0;
    synchronize_warp();
    mine = of_warp + threadIdx.x % 32 / 4;
  }
  /// By all of `threads`, for the channels from `channel` on. To be followed by a barrier.
  template <class T>
  __device__ void load_factors(unsigned char* at, const PointWork& work, int channel, int threads, T) {
    unsigned* const to = reinterpret_cast<unsigned*>(at);
    for (int i = static_cast<int>(threadIdx.x); i < 16 * kM; i += threads) {
      const int of = min(channel + i, work.outputs - 1);
      const float scale = work.hook.scale[of], shift = work.hook.shift[of];
      if constexpr (kHook == Hook::ClampSums) {
        const auto range = find_range<T>(scale, shift, work.hook.low, work.hook.high);
        to[4 * i] = range.least.bits * 0x10001u, to[4 * i + 1] = range.most.bits * 0x10001u;
      } else {
        to[4 * i] = __float_as_uint(scale), to[4 * i + 1] = __float_as_uint(shift);
      }
      to[4 * i + 2] = __float_as_uint(work.center[of]);
    }
    factors = to + threadIdx.x % 32 / 4 * 4;
  }
  /// Masks g of sixteen channels m and sixteen pixels, and adds it up; `pairs` is what is stored then. z as
  /// load_matrices_transposed() gives it: the pixels' first half of the channels' first half, of their second
  /// half, then the pixels' second half.
  template <class T>
  __device__ __forceinline__ void apply(const float (&g0)[4], const float (&g1)[4], unsigned (&pairs0)[2],
                                        unsigned (&pairs1)[2], int m, const unsigned (&z)[4],
                                        EightSums (&sums)[2], T) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned* const of = factors + (2 * m + half) * 32;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float(&g)[4] = n == 0 ? g0 : g1;
        unsigned& pair = n == 0 ? pairs0[half] : pairs1[half];
        if constexpr (kHook == Hook::ClampSums) {
          pair = narrow_pair(g[2 * half], g[2 * half + 1], T{}) &
                 within_pair(z[2 * n + half], of[0], of[1], T{});
        } else {
          const float scale = __uint_as_float(of[0]), shift = __uint_as_float(of[1]);
          float some[2];
          widen_pair(z[2 * n + half], T{}, some[0], some[1]);
          pair = narrow_pair(g[2 * half] * slope(fmaf(scale, some[0], shift)),
                             g[2 * half + 1] * slope(fmaf(scale, some[1], shift)), T{});
        }
      }
      sums[half].add(z[half], z[2 + half], pairs0[half], pairs1[half], T{});
    }
  }
  /// A tile's sums of sixteen channels m.
  __device__ __forceinline__ void keep(const EightSums (&sums)[2], int m) {
    if (!has_sums()) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = 16 * m + 8 * half;
      const float center = __uint_as_float(factors[4 * at + 2]);
      mine[at] += sums[half].sum();
      mine[16 * kM + at] += sums[half].product() - center * sums[half].sum();
    }
  }

 private:
  /// As layers/activation/functions.h has it.
  __device__ __forceinline__ static float slope(float v) {
    return v <= -3.0f ? 0.0f : v < 3.0f ? v * (1.0f / 3.0f) + 0.5f : 1.0f;
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
  constexpr int kRow = 16 * kM, kWarp = Kept<kHook, kM>::kWarpBytes / 4;
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
