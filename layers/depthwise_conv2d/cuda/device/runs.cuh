#pragma once

#include "boxes.cuh"
#include "hooks.cuh"
#include "transform.cuh"

/// Dense planes (NCHW), whose rows are one run of memory, whatever their width: for GPUs of compute
/// capability 9 and on. A block has some channels; it takes their planes, or bands of rows of one plane, of
/// one image after the other. One warp asks for runs ahead, the others compute, and the copy engine moves
/// results back.
namespace lamella::depthwise {

/// Reads kCount numbers from shared memory, of which the first is kOffset behind `from`, a whole vector.
template <class T, int kVector, int kOffset, int kCount>
__device__ __forceinline__ void load_window(const T* from, float (&x)[kCount]) {
  if constexpr (kVector == 1 && kCount > 1 && sizeof(T) == 2) {
    // Rows of an odd width begin within a word as often as not.
    static_assert(kOffset == 0);
    const unsigned odd = shared_address(from) / 2 % 2;
    const unsigned* const words = reinterpret_cast<const unsigned*>(from - odd);
    unsigned word[kCount / 2 + 2];
#pragma unroll
    for (int i = 0; i <= kCount / 2; ++i) word[i] = words[i];
    word[kCount / 2 + 1] = 0;
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      float second;
      widen_pair(shift_words(word[i / 2], word[i / 2 + 1], 16 * odd), T{}, x[i],
                 i + 1 < kCount ? x[(i + 1) % kCount] : second);
    }
  } else {
#pragma unroll
    for (int v = 0; v < kOffset + kCount; v += kVector) {
      float some[kVector];
      load<T>(from + v, some);
#pragma unroll
      for (int n = 0; n < kVector; ++n)
        if (v + n >= kOffset && v + n < kOffset + kCount) x[v + n - kOffset] = some[n];
    }
  }
}

/// Puts the first `left` numbers into shared memory; `left` is a multiple of kVector, as `to` is aligned.
template <class T, int kVector, int kCount>
__device__ __forceinline__ void keep_row(T* to, const float (&row)[kCount], int left) {
#pragma unroll
  for (int c = 0; c < kCount; c += kVector) {
    float some[kVector];
#pragma unroll
    for (int n = 0; n < kVector; ++n) some[n] = row[c + n];
    if (c < left) keep<T>(to + c, some);
  }
}

/// Distances of taps.
template <int kHeight_, int kWidth_>
struct Spread {
  static constexpr int kHeight = kHeight_, kWidth = kWidth_;
};

/// The part of a run that is whole in sixteen bytes, and what is before and behind. It lies in shared memory
/// as far behind kUnit bytes as in the tensor.
template <class T, int kUnit = 16>
struct RunBytes {
  static constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));
  /// Numbers from the last kUnit bytes before the run on: where it begins, where a load does, the whole
  /// sixteen bytes from `begin` to `whole`, and where it ends.
  int phase, first, begin, whole, end;
  __device__ RunBytes(const T* run, int count) {
    phase = static_cast<int>(reinterpret_cast<unsigned long long>(run) % kUnit / sizeof(T));
    end = phase + count;
    first = phase / kNumbers * kNumbers;
    begin = (phase + kNumbers - 1) / kNumbers * kNumbers;
    whole = end / kNumbers * kNumbers;
  }
  /// So many, from `first` on, that a load takes; it reads up to fifteen bytes before and behind.
  __device__ int loaded() const { return (end + kNumbers - 1) / kNumbers * kNumbers - first; }
  __device__ unsigned loaded_bytes() const { return static_cast<unsigned>(loaded()) * sizeof(T); }
  /// Loads them; `to`: where the kUnit bytes begin.
  __device__ __forceinline__ void load(unsigned to, const T* run, unsigned barrier) const {
    if (loaded() > 0)
      load_bytes(to + static_cast<unsigned>(first * sizeof(T)), run - phase + first, loaded_bytes(), barrier);
  }
};
/// As runs and diagonals lie, for the copy engine is a quarter slower otherwise. Matrices and positions keep
/// sixteen bytes: where their images lie settles which banks are met.
template <class T>
using LineRun = RunBytes<T, kLineBytes>;

/// An item: a band of rows of an image, or of so many.
template <int kImages = 1>
struct RunItem {
  int image, band;
  __device__ __forceinline__ void advance(int bands) {
    if (++band == bands) band = 0, image += kImages;
  }
};

}  // namespace lamella::depthwise
