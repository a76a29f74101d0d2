#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "core/check.h"
#include "core/cuda/launch.cuh"
#include "core/cuda/packet.cuh"
#include "tensor/cuda/index.cuh"
#include "tensor/strided.h"
#include "tensor/view.h"

/// Many tensors in a launch, with up to five operands of the same shape and type each. Their places travel in
/// the launch's parameters, so that a recorded launch stays right.
namespace lamella::cuda {

inline constexpr int kWalkThreads = 256;

/// One tensor and its like.
template <int N>
struct WalkItem {
  std::array<void*, N> data{};  ///< null: no such operand
  std::array<const Strides*, N> strides{};
  const Shape* shape = nullptr;
  const std::int64_t* step = nullptr;
  DType dtype = DType::Float32;

  /// The first operand sets the order. The views must stay while the item is used.
  template <class View>
  void set(std::size_t operand, const View& view) {
    data[operand] = const_cast<void*>(static_cast<const void*>(view.data));
    strides[operand] = &view.strides;
    if (operand > 0) return;
    shape = &view.shape;
    dtype = view.dtype;
  }
  detail::StridedPlan<N> plan() const {
    std::array<Strides, N> all;
    for (std::size_t i = 0; i < N; ++i) all[i] = data[i] != nullptr ? *strides[i] : *strides[0];
    return detail::plan_strided<N>(*shape, all);
  }
};
template <int N>
using WalkItems = std::vector<WalkItem<N>>;

/// Bytes of every operand that a block takes.
inline constexpr std::int64_t kWalkBytes = 16384;
template <class T>
inline constexpr std::int64_t kWalkChunk = kWalkBytes / static_cast<std::int64_t>(sizeof(T));

/// Tensors whose operands all lie without gaps, in one order.
template <int N>
struct DenseTable {
  static constexpr int kMost = 3584 / (8 * (N + 2) + 5);
  void* data[kMost][N];
  std::int64_t size[kMost];
  const std::int64_t* step[kMost];
  std::uint32_t end[kMost];        ///< blocks of the tensors up to this one
  std::uint8_t in_packets[kMost];  ///< all operands allow 16 bytes at a time
  int count;

  void add(const WalkItem<N>& item, std::int64_t elements, std::int64_t chunk) {
    bool aligned = true;
    for (std::size_t i = 0; i < N; ++i) {
      data[count][i] = item.data[i];
      aligned = aligned && detail::cuda::is_aligned(item.data[i]);
    }
    size[count] = elements;
    step[count] = item.step;
    end[count] = blocks() + static_cast<std::uint32_t>((elements + chunk - 1) / chunk);
    in_packets[count] = aligned;
    ++count;
  }
  unsigned blocks() const { return count == 0 ? 0 : end[count - 1]; }

  /// The tensor of a block, and where in it the block begins.
  struct Place {
    int item;
    std::int64_t begin;
    int count;
  };
  __device__ Place place(unsigned block, std::int64_t chunk) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (block < end[middle])
        high = middle;
      else
        low = middle + 1;
    }
    const std::int64_t begin = (block - (low > 0 ? end[low - 1] : 0)) * chunk;
    return {low, begin, static_cast<int>(min(chunk, size[low] - begin))};
  }
};

/// A tensor, or a part of one, with operands of any strides.
template <int N>
struct StridedTensor {
  Index index;
  std::int64_t stride[N][kMaxAxes];
  void* data[N];
  const std::int64_t* step;

  __device__ void offsets(std::uint32_t i, std::int64_t (&offset)[N]) const {
#pragma unroll
    for (int n = 0; n < N; ++n) offset[n] = 0;
    index.visit(i, [&](int axis, std::uint32_t at) {
#pragma unroll
      for (int n = 0; n < N; ++n) offset[n] += at * stride[n][axis];
    });
  }
};

/// Calls dense(table) and strided(tensor) for the items whose type T is, in launches of many or of one.
template <class T, int N, class Dense, class Strided>
void walk(const WalkItems<N>& items, const Dense& dense, const Strided& strided) {
  constexpr DType kType = std::is_same_v<T, double> ? DType::Float64 : DType::Float32;
  // Far below what a grid may have, so that one tensor more always fits.
  constexpr std::uint32_t kFull = 1u << 30;
  DenseTable<N> table{};
  for (const WalkItem<N>& item : items) {
    if (item.dtype != kType) continue;
    const detail::StridedPlan<N> plan = item.plan();
    if (plan.total == 0) continue;
    bool flat = plan.axes == 1;
    for (std::size_t i = 0; i < N; ++i) flat = flat && (plan.stride[i][0] == 1 || plan.total == 1);
    if (flat) {
      if (table.count == DenseTable<N>::kMost || table.blocks() > kFull) {
        dense(table);
        table.count = 0;
      }
      table.add(item, plan.total, kWalkChunk<T>);
      continue;
    }
    StridedTensor<N> tensor{};
    tensor.step = item.step;
    for (std::size_t i = 0; i < N; ++i)
      for (std::size_t axis = 0; axis < static_cast<std::size_t>(plan.axes); ++axis)
        tensor.stride[i][axis] = plan.stride[i][axis];
    for_each_slice<N>(plan, [&](const Index& index, const std::array<std::int64_t, N>& offset) {
      tensor.index = index;
      for (std::size_t i = 0; i < N; ++i)
        tensor.data[i] = item.data[i] != nullptr ? static_cast<T*>(item.data[i]) + offset[i] : nullptr;
      strided(tensor);
    });
  }
  if (table.count > 0) dense(table);
}

/// Throws DTypeError, before anything is changed, unless all types are float32 or float64.
template <int N>
void check_types(const WalkItems<N>& items) {
  for (const WalkItem<N>& item : items)
    LAMELLA_CHECK(DTypeError, item.dtype == DType::Float32 || item.dtype == DType::Float64,
                  "expected float32 or float64, got ", name(item.dtype));
}

/// The device that the caller has made current.
inline Device launching_device() {
  int device = 0;
  detail::cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  return Device::cuda(device);
}

}  // namespace lamella::cuda
