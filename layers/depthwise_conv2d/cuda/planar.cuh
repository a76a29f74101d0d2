#pragma once

#include <algorithm>

#include "core/cuda/divisor.cuh"
#include "layers/depthwise_conv2d/cuda/pack.cuh"
#include "tensor/view.h"

/// Rows of planes, a vector of neighbouring columns to a thread.
namespace lamella::cuda::depthwise {

/// The rows of a plane that a strip reads. Vectors of columns begin at addresses aligned to them, or to half
/// of them; then they are loaded as two halves.
template <class T, int kMain>
struct PlaneRows {
  static constexpr int kHalf = kMain / 2;
  const T* column;  ///< the thread's vector in row 0
  int pitch;
  int first;       ///< row 0 of the strip is this row
  int low, count;  ///< rows that exist and are wanted: low … low + count - 1
  int lead;        ///< the window begins so many columns before the vector; the same for the whole grid
  bool halves;

  /// Rows `begin` to `end` are wanted.
  __device__ void limit(int begin, int end, int height) {
    low = max(begin, 0);
    count = max(min(end, height) - low, 0);
  }
  __device__ bool has(int row) const {
    return static_cast<unsigned>(row - low) < static_cast<unsigned>(count);
  }
  /// Bits of `inside`: the halves of the vector exist.
  __device__ void load_vector(const T* from, unsigned inside, Pack<T, kMain>& vector) const {
    if (!halves) {
      if (inside & 1) vector = load_pack<T, kMain>(from);
      return;
    }
    Pack<T, kHalf> left{}, right{};
    if (inside & 1) left = load_pack<T, kHalf>(from);
    if (inside & 2) right = load_pack<T, kHalf>(from + kHalf);
    static_assert(Pack<T, kMain>::kWords == 2 * Pack<T, kHalf>::kWords);
#pragma unroll
    for (int i = 0; i < Pack<T, kHalf>::kWords; ++i) {
      vector.words[i] = left.words[i];
      vector.words[Pack<T, kHalf>::kWords + i] = right.words[i];
    }
  }
  __device__ static unsigned halves_inside(int at, int width) {
    return (at >= 0 && at < width ? 1u : 0u) | (at >= 0 && at + kHalf < width ? 2u : 0u);
  }
};

/// A window of a vector and up to a few single columns beside it.
template <class T, int kMain, int kHalo>
struct NarrowRows : PlaneRows<T, kMain> {
  static constexpr int kWindow = kMain + kHalo;
  struct Row {
    Pack<T, kMain> main;
    Pack<T, 1> halo[kHalo > 0 ? kHalo : 1];
  };
  unsigned inside;  ///< bit h: halo column h exists; bits kHalo, kHalo + 1: the halves of the vector do

  static bool has_lead(std::int64_t lead) { return lead >= 0 && lead <= kHalo; }
  __device__ int offset(int h) const { return h < this->lead ? h - this->lead : kMain + h - this->lead; }
  /// The vector begins at column `at` of `width`, which is a multiple of how it is loaded.
  __device__ void place(int at, int width) {
    inside = this->halves_inside(at, width) << kHalo;
#pragma unroll
    for (int h = 0; h < kHalo; ++h) {
      const int where = at + offset(h);
      inside |= (where >= 0 && where < width ? 1u : 0u) << h;
    }
  }
  __device__ Row load(int s) const {
    Row row{};
    const int at = this->first + s;
    if (!this->has(at)) return row;
    const T* from = this->column + std::int64_t{at} * this->pitch;
    this->load_vector(from, inside >> kHalo, row.main);
#pragma unroll
    for (int h = 0; h < kHalo; ++h)
      if (inside >> h & 1) row.halo[h] = load_pack<T, 1>(from + offset(h));
    return row;
  }
  __device__ void unpack(const Row& row, float (&x)[kWindow][1]) const { arrange<0>(row, x); }

 private:
  /// A jump on `lead`, where an index would send the row to local memory.
  template <int kLead>
  __device__ void arrange(const Row& row, float (&x)[kWindow][1]) const {
    if constexpr (kLead < kHalo) {
      if (this->lead != kLead) return arrange<kLead + 1>(row, x);
    }
#pragma unroll
    for (int i = 0; i < kWindow; ++i)
      x[i][0] = i < kLead           ? row.halo[i].at(0)
                : i < kLead + kMain ? row.main.at(i - kLead)
                                    : row.halo[i - kMain].at(0);
  }
};

/// A window that is taken out of three vectors, or two.
template <class T, int kMain, int kHalo>
struct WideRows : PlaneRows<T, kMain> {
  static constexpr int kWindow = kMain + kHalo, kVectors = 3;
  static constexpr int kMostShift =
      kVectors * kMain - kWindow < kMain ? kVectors * kMain - kWindow : kMain - 1;
  struct Row {
    Pack<T, kMain> vectors[kVectors];
  };
  unsigned inside;  ///< two bits for each vector: its halves exist
  int before;       ///< columns from the first vector to the thread's
  int shift;        ///< columns of the first vector before the window

  static bool has_lead(std::int64_t lead) {
    return lead >= 0 && lead <= kHalo && (kMain - lead % kMain) % kMain <= kMostShift;
  }
  __device__ void place(int at, int width) {
    before = (this->lead + kMain - 1) / kMain * kMain;
    shift = before - this->lead;
    inside = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i)
      if (i * kMain < shift + kWindow)
        inside |= this->halves_inside(at - before + i * kMain, width) << (2 * i);
  }
  __device__ Row load(int s) const {
    Row row{};
    const int at = this->first + s;
    if (!this->has(at)) return row;
    const T* from = this->column + std::int64_t{at} * this->pitch - before;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) this->load_vector(from + i * kMain, inside >> (2 * i), row.vectors[i]);
    return row;
  }
  __device__ void unpack(const Row& row, float (&x)[kWindow][1]) const { arrange<0>(row, x); }

 private:
  template <int kShift>
  __device__ void arrange(const Row& row, float (&x)[kWindow][1]) const {
    if constexpr (kShift < kMostShift) {
      if (shift != kShift) return arrange<kShift + 1>(row, x);
    }
#pragma unroll
    for (int i = 0; i < kWindow; ++i) x[i][0] = row.vectors[(i + kShift) / kMain].at((i + kShift) % kMain);
  }
};

template <class T, int kMain, int kHalo>
using PlanarRows = std::conditional_t<(kHalo >= 4), WideRows<T, kMain, kHalo>, NarrowRows<T, kMain, kHalo>>;

/// What a target takes at once: as many columns as its rows are aligned to.
template <class T, int kWidth>
struct PlanarTarget {
  static constexpr int kHalf = kWidth / 2;
  T* column;  ///< the tile in row 0
  int pitch;
  int first;   ///< row 0 of the strip
  int height;  ///< rows outside the target are left out
  int count;   ///< columns of the tile that exist
  int piece;   ///< kWidth, kHalf or 1
  bool accumulate;

  __device__ void store(int t, const float (&values)[kWidth][1]) const {
    const int at = first + t;
    if (at < 0 || at >= height) return;
    T* to = column + std::int64_t{at} * pitch;
    float v[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v[i] = values[i][0];
    if (accumulate) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i)
        if (i < count) v[i] += detail::cuda::to_compute(to[i]);
    }
    if (piece == kWidth && count >= kWidth) return store_pack<T, kWidth>(to, v);
#pragma unroll
    for (int half = 0; half < kWidth; half += kHalf) {
      if (piece >= kHalf && count >= half + kHalf) {
        store_pack<T, kHalf>(to + half, v + half);
        continue;
      }
#pragma unroll
      for (int i = half; i < half + kHalf; ++i)
        if (i < count) to[i] = detail::cuda::from_compute<T>(v[i]);
    }
  }
};

/// The planes of a tensor.
struct Planes {
  void* data;
  std::int64_t image, channel;  ///< strides: of images, planes, rows
  int pitch;
  int height, width;
  int piece;  ///< columns that may be loaded or stored at once
};

/// `most` columns or half as many if every row begins on such an address (and, for sources, is whole),
/// else 1.
inline int aligned_columns(const detail::ConstTensorView& view, int most, bool whole) {
  for (const int piece : {most, most / 2}) {
    const auto bytes = static_cast<std::uintptr_t>(piece) * size_of(view.dtype);
    bool fits =
        reinterpret_cast<std::uintptr_t>(view.data) % bytes == 0 && (!whole || view.shape[3] % piece == 0);
    for (const int axis : {0, 1, 2})
      fits = fits && (view.shape[axis] == 1 || view.strides[axis] % piece == 0);
    if (fits) return piece;
  }
  return 1;
}

/// Whether rows are runs of neighbours and 32 bits hold every row and column.
inline bool is_planar(const detail::ConstTensorView& view) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  return view.strides[3] == 1 && view.shape[2] < kMost && view.shape[3] < kMost && view.strides[2] < kMost;
}

inline Planes planes_of(const detail::ConstTensorView& view, int piece) {
  return {const_cast<void*>(view.data),
          view.strides[0],
          view.strides[1],
          static_cast<int>(view.strides[2]),
          static_cast<int>(view.shape[2]),
          static_cast<int>(view.shape[3]),
          piece};
}

/// Cuts `height` rows into strips of about `wanted`, or shorter ones where there would be few threads.
inline int strip_rows(std::int64_t height, std::int64_t wanted, std::int64_t threads_a_row) {
  constexpr std::int64_t kThreads = 300000, kShortest = 8;
  std::int64_t strips = (height + wanted - 1) / wanted;
  const std::int64_t more =
      std::min((kThreads + threads_a_row - 1) / threads_a_row, std::max<std::int64_t>(1, height / kShortest));
  strips = std::max(strips, more);
  return static_cast<int>((height + strips - 1) / strips);
}

}  // namespace lamella::cuda::depthwise
