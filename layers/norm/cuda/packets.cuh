#pragma once

#include <initializer_list>
#include <type_traits>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/cuda/packet.cuh"

/// Dense numbers, sixteen bytes at a time.
namespace lamella::cuda {

inline constexpr int kNormThreads = 256;
/// Loads that a thread begins before it uses the first of them.
inline constexpr unsigned kBatch = 4;
/// Packets that a thread adds up in the compute type before the sums go into doubles.
inline constexpr unsigned kRun = 64;

/// Sixteen bytes of numbers, unpacked where they are used: they take few registers until then.
template <class T>
struct alignas(16) Numbers {
  using C = detail::ComputeType<T>;
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  unsigned words[4];

  __device__ C at(int k) const {
    if constexpr (std::is_same_v<T, double>)
      return __hiloint2double(static_cast<int>(words[2 * k + 1]), static_cast<int>(words[2 * k]));
    else if constexpr (std::is_same_v<T, float>)
      return __uint_as_float(words[k]);
    else if constexpr (std::is_same_v<T, BFloat16>)
      return __uint_as_float(k % 2 == 0 ? words[k / 2] << 16 : words[k / 2] & 0xffff0000u);
    else
      return __half2float(__ushort_as_half(static_cast<unsigned short>(words[k / 2] >> (k % 2 * 16))));
  }
  /// All of them, rounded to T.
  __device__ void set(const C (&values)[kSize]) {
    if constexpr (sizeof(T) >= 4) {
#pragma unroll
      for (int k = 0; k < kSize; ++k) set_bits(k, values[k]);
    } else {
#pragma unroll
      for (int word = 0; word < 4; ++word)
        words[word] = detail::cuda::from_compute<T>(values[2 * word]).bits |
                      static_cast<unsigned>(detail::cuda::from_compute<T>(values[2 * word + 1]).bits) << 16;
    }
  }
  __device__ void set_bits(int k, T value) {
    if constexpr (std::is_same_v<T, double>) {
      words[2 * k] = static_cast<unsigned>(__double2loint(value));
      words[2 * k + 1] = static_cast<unsigned>(__double2hiint(value));
    } else if constexpr (std::is_same_v<T, float>) {
      words[k] = __float_as_uint(value);
    } else {
      words[k / 2] |= static_cast<unsigned>(value.bits) << (k % 2 * 16);  // onto 0
    }
  }
};

/// kWide: the numbers lie on sixteen bytes and are whole. Else the first `valid` of them exist. Which thread
/// takes which numbers does not depend on it: sums have the same bits.
template <bool kWide, class T>
__device__ inline Numbers<T> load_numbers(const T* from, int valid) {
  if constexpr (kWide) {
    return *reinterpret_cast<const Numbers<T>*>(from);
  } else {
    Numbers<T> numbers{};
#pragma unroll
    for (int k = 0; k < Numbers<T>::kSize; ++k)
      if (k < valid) numbers.set_bits(k, from[k]);
    return numbers;
  }
}
template <bool kWide, class T>
__device__ inline void store_numbers(const detail::ComputeType<T> (&values)[Numbers<T>::kSize], T* to,
                                     int valid) {
  if constexpr (kWide) {
    Numbers<T> numbers;
    numbers.set(values);
    *reinterpret_cast<Numbers<T>*>(to) = numbers;
  } else {
#pragma unroll
    for (int k = 0; k < Numbers<T>::kSize; ++k)
      if (k < valid) to[k] = detail::cuda::from_compute<T>(values[k]);
  }
}

/// use(load(i), i) for i in [0, n), a batch of loads at a time. Before the first use begin(batch, m) sees the
/// first m <= kBatch numbers loaded; the rest of `batch` holds nothing of use.
template <class Loaded, class Load, class Begin, class Use>
__device__ inline void in_batches(unsigned n, const Load& load, const Begin& begin, const Use& use) {
  Loaded batch[kBatch];
  for (unsigned i = 0; i < n; i += kBatch) {
#pragma unroll
    for (unsigned u = 0; u < kBatch; ++u)
      if (i + u < n) batch[u] = load(i + u);
    if (i == 0) begin(batch, min(n, kBatch));
#pragma unroll
    for (unsigned u = 0; u < kBatch; ++u)
      if (i + u < n) use(batch[u], i + u);
  }
}
template <class Loaded, class Load, class Use>
__device__ inline void in_batches(unsigned n, const Load& load, const Use& use) {
  in_batches<Loaded>(
      n, load, [](const Loaded(&)[kBatch], unsigned) {}, use);
}

/// The same with the next batch's loads under way while one is used, for long runs: takes twice the
/// registers.
template <class Loaded, class Load, class Begin, class Use>
__device__ inline void in_batches_ahead(unsigned n, const Load& load, const Begin& begin, const Use& use) {
  Loaded even[kBatch], odd[kBatch];
  const auto load_batch = [&](Loaded(&batch)[kBatch], unsigned first) {
#pragma unroll
    for (unsigned u = 0; u < kBatch; ++u)
      if (first + u < n) batch[u] = load(first + u);
  };
  const auto use_batch = [&](const Loaded(&batch)[kBatch], unsigned first) {
#pragma unroll
    for (unsigned u = 0; u < kBatch; ++u)
      if (first + u < n) use(batch[u], first + u);
  };
  load_batch(even, 0);
  if (n > 0) begin(even, min(n, kBatch));
  for (unsigned i = 0; i < n; i += 2 * kBatch) {
    load_batch(odd, i + kBatch);
    use_batch(even, i);
    load_batch(even, i + 2 * kBatch);
    use_batch(odd, i + kBatch);
  }
}
template <class Loaded, class Load, class Use>
__device__ inline void in_batches_ahead(unsigned n, const Load& load, const Use& use) {
  in_batches_ahead<Loaded>(
      n, load, [](const Loaded(&)[kBatch], unsigned) {}, use);
}

/// Calls body(std::bool_constant) with kWide for these addresses. Float64, which is for checking, does
/// without: half as many kernels.
template <class T, class Body>
void dispatch_wide(bool whole, std::initializer_list<const void*> addresses, const Body& body) {
  if constexpr (!std::is_same_v<T, double>) {
    for (const void* address : addresses) whole = whole && detail::cuda::is_aligned(address);
    if (whole) return body(std::true_type());
  }
  body(std::false_type());
}

/// The blocks of a grid of one dimension.
inline unsigned grid_of(std::int64_t blocks) {
  LAMELLA_CHECK(ShapeError, blocks < (std::int64_t{1} << 31), "norm: too many pieces for a GPU: ", blocks);
  return static_cast<unsigned>(blocks);
}

}  // namespace lamella::cuda
