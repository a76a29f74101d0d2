#pragma once

#include "phases.cuh"

/// Large kernels with strides and dilation (of columns, up to 16 together) on channels side by side (NHWC),
/// straight from memory. A thread has one channel, and its neighbours the next: so a warp reads whole lines
/// whatever is skipped between columns, and numbers of the tensors need neither shared memory nor alignment.
/// Of a class of targets, and a group of taps (PhaseAxis, work.cuh), the problem is dense: rows of sources
/// roll through registers, each is loaded once for all of a thread's rows, and the next is on its way
/// meanwhile. What neighbouring threads load again is in the first-level cache.
namespace lamella::depthwise {

/// Of rows, or columns, `step` apart, the first at `first`: those from `low` to `high` - 1 exist, of `count`
/// that are there.
struct RollingRange {
  int low, high;
  __device__ __forceinline__ RollingRange(int first, int step, Divisor by_step, int count) {
    const auto divide = [&](int number) {
      return static_cast<int>(by_step.divide(static_cast<unsigned>(number)));
    };
    low = first < 0 ? divide(step - 1 - first) : 0;
    high = first < count ? divide(count - 1 - first) + 1 : 0;
  }
  __device__ __forceinline__ bool has(int number) const { return number >= low && number < high; }
};

/// Bit c: column c of a window exists, whose first is at `column` and the others `step` apart.
__device__ __forceinline__ unsigned existing_columns(int column, int step, Divisor by_step, int columns,
                                                     int window) {
  const RollingRange range(column, step, by_step, columns);
  return bits_between(range.low, min(range.high, window));
}

/// A number as it lies in memory, in a register of its own.
__device__ __forceinline__ unsigned load_bits(const float* from) { return __float_as_uint(*from); }
template <class T>
__device__ __forceinline__ unsigned load_bits(const T* from) {
  return from->bits;
}
__device__ __forceinline__ float widen_bits(unsigned bits, float) { return __uint_as_float(bits); }
template <class T>
__device__ __forceinline__ float widen_bits(unsigned bits, T) {
  return widen(T{static_cast<unsigned short>(bits)});
}

/// Columns of a row, zeros for those that do not exist. kApart: numbers from one to the next; 0: `apart` has
/// it.
template <Int64 kApart, class T, int kWindow>
__device__ __forceinline__ void load_some_columns(const T* from, Int64 apart, unsigned exists,
                                                  unsigned (&bits)[kWindow]) {
  static_assert(kWindow <= 32);
  const Int64 step = kApart > 0 ? kApart : apart;
  hold(exists);  // else each bit has a register of its own while the thread lives
#pragma unroll
  for (int c = 0; c < kWindow; ++c) bits[c] = exists >> c & 1 ? load_bits(from + c * step) : 0;
}
/// The same, faster where all of them exist for most warps.
template <Int64 kApart, class T, int kWindow>
__device__ __forceinline__ void load_columns(const T* from, Int64 apart, unsigned exists,
                                             unsigned (&bits)[kWindow]) {
  static_assert(kWindow <= 32);
  constexpr unsigned kAll = 0xffffffffu >> (32 - kWindow);
  const Int64 step = kApart > 0 ? kApart : apart;
  if (exists == kAll) {
#pragma unroll
    for (int c = 0; c < kWindow; ++c) bits[c] = load_bits(from + c * step);
  } else {
    load_some_columns<kApart>(from, apart, exists, bits);
  }
}
/// The same without a branch, and of columns that do not exist `bits` stays as it is: so the compiler has the
/// loads among what follows, and knows how long they take.
template <Int64 kApart, class T, int kWindow>
__device__ __forceinline__ void load_existing_columns(const T* from, Int64 apart, unsigned exists,
                                                      unsigned (&bits)[kWindow]) {
  const Int64 step = kApart > 0 ? kApart : apart;
  hold(exists);
#pragma unroll
  for (int c = 0; c < kWindow; ++c)
    if (exists >> c & 1) bits[c] = load_bits(from + c * step);
}
/// Held, so that it stays where it is.
template <int kWindow>
__device__ __forceinline__ void clear_columns(unsigned (&bits)[kWindow]) {
#pragma unroll
  for (int c = 0; c < kWindow; ++c) bits[c] = 0, hold(bits[c]);
}

/// Rows in memory, as RollingSums and RollingTapSums load them one after the other: columns that exist, of
/// rows that do.
template <class T, Int64 kApart>
struct RollingSource {
  const T* from;
  Int64 pitch, apart;  ///< numbers from one row, and from one column, to the next
  unsigned exists;     ///< columns

  __device__ __forceinline__ void skip(int rows) { from += rows * pitch; }
  template <int kWindow>
  __device__ __forceinline__ void load(bool row_exists, unsigned (&bits)[kWindow]) {
    load_columns<kApart>(from, apart, row_exists ? exists : 0, bits);
    from += pitch;
  }
  template <int kWindow>
  __device__ __forceinline__ void load_existing(bool row_exists, unsigned (&bits)[kWindow]) {
    load_existing_columns<kApart>(from, apart, row_exists ? exists : 0, bits);
    from += pitch;
  }
};
template <class T, int kWindow>
__device__ __forceinline__ void widen_columns(const unsigned (&bits)[kWindow], float (&to)[kWindow]) {
#pragma unroll
  for (int c = 0; c < kWindow; ++c) to[c] = widen_bits(bits[c], T{});
}

/// Targets of one class, or strips of them: where they are.
struct RollingUnit {
  int image, class_h, class_w, row_group, tile;
  /// Tiles are next to each other, then classes of columns: they read the same lines.
  __device__ __forceinline__ RollingUnit(const PhaseWork& work, int number) {
    const PhaseCut& cut = work.cut;
    tile = take_digit(number, cut.tiles, cut.by_tiles);
    class_w = take_digit(number, work.w.classes(), cut.by_classes_w);
    row_group = take_digit(number, cut.row_groups, cut.by_row_groups);
    class_h = take_digit(number, work.h.classes(), cut.by_classes_h);
    image = number;
  }
};

}  // namespace lamella::depthwise
