#pragma once

#include "primitives.cuh"
#include "work.cuh"

/// Neighbouring numbers, moved together.
namespace lamella::depthwise {

template <int kBytes>
struct Words {
  unsigned word[(kBytes + 3) / 4];
};

/// `from` is aligned to what is read, up to 16 bytes.
template <int kBytes>
__device__ __forceinline__ Words<kBytes> load_words(const void* from) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes % 16 == 0);
  Words<kBytes> words;
  if constexpr (kBytes == 4) {
    words.word[0] = *static_cast<const unsigned*>(from);
  } else if constexpr (kBytes == 8) {
    const uint2 pair = *static_cast<const uint2*>(from);
    words.word[0] = pair.x, words.word[1] = pair.y;
  } else {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const uint4 four = static_cast<const uint4*>(from)[i];
      words.word[4 * i] = four.x, words.word[4 * i + 1] = four.y;
      words.word[4 * i + 2] = four.z, words.word[4 * i + 3] = four.w;
    }
  }
  return words;
}
/// To global memory.
template <int kBytes>
__device__ __forceinline__ void store_words(void* to, const Words<kBytes>& words) {
  if constexpr (kBytes <= 16) {
    store_global(to, words.word);
  } else {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const unsigned four[4]{words.word[4 * i], words.word[4 * i + 1], words.word[4 * i + 2],
                             words.word[4 * i + 3]};
      store_global(static_cast<uint4*>(to) + i, four);
    }
  }
}

/// `from` is aligned to the largest power of two that divides the count, up to 16 bytes.
template <class T, int kCount>
__device__ __forceinline__ void load(const T* from, float (&numbers)[kCount]) {
  constexpr int kVector = kCount & -kCount;
  if constexpr (kCount != kVector) {
#pragma unroll
    for (int i = 0; i < kCount; i += kVector) {
      float some[kVector];
      load<T>(from + i, some);
#pragma unroll
      for (int n = 0; n < kVector; ++n) numbers[i + n] = some[n];
    }
  } else if constexpr (kCount * sizeof(T) < 4) {
    numbers[0] = widen(*from);
  } else {
    const auto words = load_words<kCount* static_cast<int>(sizeof(T))>(from);
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) numbers[i] = __uint_as_float(words.word[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; i += 2) widen_pair(words.word[i / 2], T{}, numbers[i], numbers[i + 1]);
    }
  }
}
template <class T, int kCount>
__device__ __forceinline__ Words<kCount* static_cast<int>(sizeof(T))> narrow_all(
    const float (&numbers)[kCount]) {
  Words<kCount* static_cast<int>(sizeof(T))> words;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) words.word[i] = __float_as_uint(numbers[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) words.word[i / 2] = narrow_pair(numbers[i], numbers[i + 1], T{});
  }
  return words;
}
/// To global memory, aligned as for load().
template <class T, int kCount>
__device__ __forceinline__ void store(T* to, const float (&numbers)[kCount]) {
  constexpr int kVector = kCount & -kCount;
  if constexpr (kCount != kVector) {
#pragma unroll
    for (int i = 0; i < kCount; i += kVector) {
      float some[kVector];
#pragma unroll
      for (int n = 0; n < kVector; ++n) some[n] = numbers[i + n];
      store<T>(to + i, some);
    }
  } else if constexpr (kCount * sizeof(T) < 4) {
    *to = narrow<T>(numbers[0]);
  } else {
    store_words(to, narrow_all<T>(numbers));
  }
}

/// To shared memory, which is aligned to what is written, up to 16 bytes. The compiler takes vectors apart
/// where it likes: then neighbours meet in the same banks.
template <int kBytes>
__device__ __forceinline__ void keep_words(void* to, const Words<kBytes>& words) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 4)
    *static_cast<unsigned*>(to) = words.word[0];
  else
    store_shared(shared_address(to), words.word);
}
template <class T, int kCount>
__device__ __forceinline__ void keep(T* to, const float (&numbers)[kCount]) {
  if constexpr (kCount * sizeof(T) < 4)
    *to = narrow<T>(numbers[0]);
  else
    keep_words(to, narrow_all<T>(numbers));
}

/// Bit i: begin <= i < end.
__device__ __forceinline__ unsigned bits_between(int begin, int end) {
  const int low = max(begin, 0), high = min(end, 32);
  if (low >= high) return 0;
  return (0xffffffffu >> (32 - (high - low))) << low;
}

/// Number `at` of memory that holds float32 or T.
template <class T>
__device__ __forceinline__ float load_parameter(const void* data, bool is_float32, Int64 at) {
  return is_float32 ? static_cast<const float*>(data)[at] : widen(static_cast<const T*>(data)[at]);
}

/// The taps of a channel.
template <class T, int kCount>
__device__ __forceinline__ void load_taps(const Parameters& parameters, int channel, float (&taps)[kCount]) {
  const Int64 first = static_cast<Int64>(channel) * kCount;
  float read[kCount];
  if (parameters.taps_are_float32) {
    const float* const from = static_cast<const float*>(parameters.taps) + first;
#pragma unroll
    for (int k = 0; k < kCount; ++k) read[k] = from[k];
  } else {
    const T* const from = static_cast<const T*>(parameters.taps) + first;
#pragma unroll
    for (int k = 0; k < kCount; ++k) read[k] = widen(from[k]);
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) taps[k] = parameters.turned ? read[kCount - 1 - k] : read[k];
}

template <class T>
__device__ __forceinline__ float load_bias(const Parameters& parameters, int channel) {
  if (parameters.bias == nullptr) return 0;
  return load_parameter<T>(parameters.bias, parameters.bias_is_float32, channel);
}

/// Copies kCount neighbouring taps, as they lie (not turned), from number `first` on, to shared memory:
/// `count` of them, and zeros. A
/// thread asks for all of its own, up to sixteen, before it waits for one: they are seldom in a cache.
template <class T, int kCount, int kThreads>
__device__ __forceinline__ void copy_taps(const Parameters& parameters, Int64 first, int count, int thread,
                                          T* to) {
  constexpr int kEach = (kCount + kThreads - 1) / kThreads, kAtOnce = kEach < 16 ? kEach : 16;
#pragma unroll 1
  for (int begin = thread; begin < kCount; begin += kAtOnce * kThreads) {
    float taps[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = begin + i * kThreads;
      taps[i] =
          at < count ? load_parameter<T>(parameters.taps, parameters.taps_are_float32, first + at) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      if (begin + i * kThreads < kCount) to[begin + i * kThreads] = narrow<T>(taps[i]);
  }
}
/// Taps `column` and the next of a row of a channel's, of which some may not exist: zero. `turned`: of the
/// kernel turned by half a circle.
template <class T, class K>
__device__ __forceinline__ unsigned tap_pair(const T* channel, int row, int column, bool turned) {
  T tap[2];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const int t = column + n, of = row * K::kW + t;
    tap[n] = t >= 0 && t < K::kW ? channel[turned ? K::kTaps - 1 - of : of] : narrow<T>(0.0f);
  }
  return static_cast<unsigned>(tap[0].bits) | static_cast<unsigned>(tap[1].bits) << 16;
}

}  // namespace lamella::depthwise
