#pragma once

#include "hooks.cuh"
#include "transform.cuh"
#include "vector.cuh"
#include "walk.cuh"
#include "work.cuh"

/// Dense planes (NCHW); blocks have kThreads threads. Neighbouring rows are one run of memory, whatever the
/// width: a block moves runs, of several small planes or of a band of rows, to shared memory and back sixteen
/// bytes at a time, and its threads take single numbers there. Threads side by side are an odd number of
/// columns apart, so that they meet no bank twice.
namespace lamella::depthwise {

/// Where element 0 of a run lies in shared memory: as far behind sixteen bytes as in global memory.
template <class T>
__device__ __forceinline__ int phase_of(const void* run) {
  return static_cast<int>(reinterpret_cast<unsigned long long>(run) % 16 / sizeof(T));
}

/// Begins to copy a run to `to` + its phase. Up to fifteen bytes before it are read, too, which lie in the
/// same allocation because that begins on sixteen bytes.
template <class T, int kThreads>
__device__ __forceinline__ void fetch_run(T* to, const T* run, int count) {
  constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));
  const int phase = phase_of<T>(run), end = phase + count, whole = end / kNumbers * kNumbers;
  const T* const from = run - phase;
  const int first = static_cast<int>(threadIdx.x) * kNumbers;
#pragma unroll 4
  for (int i = first; i < whole; i += kThreads * kNumbers) copy_ahead<16>(to + i, from + i, true);
  if (threadIdx.x == 0 && whole < end)
    copy_ahead_part(to + whole, from + whole, (end - whole) * static_cast<int>(sizeof(T)));
}

/// Copies a run that lies at `from` + `phase` out of shared memory.
template <class T, int kThreads>
__device__ __forceinline__ void put_run(T* run, const T* from, int phase, int count, bool accumulate) {
  constexpr int kNumbers = 16 / static_cast<int>(sizeof(T));
  const int thread = static_cast<int>(threadIdx.x), end = phase + count;
  T* const to = run - phase;
  if (accumulate || phase != phase_of<T>(run)) {
    for (int i = phase + thread; i < end; i += kThreads)
      to[i] = accumulate ? narrow<T>(widen(to[i]) + widen(from[i])) : from[i];
    return;
  }
  const int begin = (phase + kNumbers - 1) / kNumbers * kNumbers, whole = end / kNumbers * kNumbers;
#pragma unroll 4
  for (int i = begin + thread * kNumbers; i < whole; i += kThreads * kNumbers)
    *reinterpret_cast<uint4*>(to + i) = *reinterpret_cast<const uint4*>(from + i);
  // What does not fill sixteen bytes, at the beginning and at the end.
  if (thread < kNumbers) {
    const int head = phase + thread, tail = max(whole, begin) + thread;
    if (head < min(begin, end)) to[head] = from[head];
    if (tail < end) to[tail] = from[tail];
  }
}

/// The threads of a block.
struct PlaneThread {
  int plane;  ///< output plane of the block
  int class_h, class_w, row_group, column_group;

  __device__ PlaneThread(const PlaneWork& work, int thread) {
    unsigned rest = static_cast<unsigned>(thread);
    const auto next = [&](int count) {
      const int digit = static_cast<int>(rest % static_cast<unsigned>(count));
      rest /= static_cast<unsigned>(count);
      return digit;
    };
    class_w = next(work.w.output_step);
    column_group = next(work.cut.column_groups);
    class_h = next(work.h.output_step);
    row_group = next(work.cut.row_groups);
    plane = static_cast<int>(rest);
  }
};

/// A window of columns of a row in shared memory. Where kEdges, only the first and last few can lie outside;
/// numbers outside become zero.
template <class T, int kCount, bool kDilated, bool kEdges, int kFirstInside, int kLastInside>
struct Window {
  static_assert(kCount <= kMostWindow);
  int step;                ///< from one column to the next
  unsigned inside;         ///< bit i: column i exists
  unsigned masks[kCount];  ///< all ones where it exists; of the edges alone

  __host__ __device__ static constexpr bool is_edge(int i) { return i < kFirstInside || i > kLastInside; }
  /// Columns begin … end - 1 exist, in columns of the window.
  __device__ __forceinline__ void begin(int column_step, int first, int end) {
    step = kDilated ? column_step : 1;
    inside = 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool exists = i >= first && i < end;
      inside |= (exists ? 1u : 0u) << i;
      if (kEdges && is_edge(i)) masks[i] = exists ? 0xffffffffu : 0u;
    }
  }
  __device__ __forceinline__ void load(const T* row, float (&x)[kCount][1]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if constexpr (kEdges) {
        x[i][0] = widen(row[i * (kDilated ? step : 1)]);
        if (is_edge(i)) x[i][0] = __uint_as_float(__float_as_uint(x[i][0]) & masks[i]);
      } else {
        x[i][0] = 0;
        if (inside >> i & 1) x[i][0] = widen(row[i * (kDilated ? step : 1)]);
      }
    }
  }
};

template <class T, int kCount>
__device__ __forceinline__ void load_channel_taps(const Parameters& parameters, int channel,
                                                  float (&to)[kCount][1]) {
  float taps[kCount];
  load_taps<T>(parameters, channel, taps);
#pragma unroll
  for (int k = 0; k < kCount; ++k) to[k][0] = taps[k];
}

}  // namespace lamella::depthwise
