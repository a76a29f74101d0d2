#pragma once

#include <cstdint>

#include "lamella/core/device.h"
#include "lamella/core/dtype.h"
#include "lamella/tensor/shape.h"

namespace lamella::detail {

/// What a kernel sees of a tensor it reads: plain data, passed by value.
struct ConstTensorView {
  const void* data = nullptr;  ///< the first element (offset applied)
  Shape shape;
  Strides strides;  ///< in elements; 0 along a broadcast axis
  DType dtype = DType::Float32;
  Device device;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  std::int64_t numel() const { return shape.product(); }
};

/// What a kernel sees of a tensor it writes. Written views never overlap themselves (no stride 0, except size
/// 1).
struct TensorView {
  void* data = nullptr;
  Shape shape;
  Strides strides;
  DType dtype = DType::Float32;
  Device device;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  std::int64_t numel() const { return shape.product(); }
  operator ConstTensorView() const { return {data, shape, strides, dtype, device}; }
};

/// Bytes of the elements that a view shows, those that it repeats once.
inline std::int64_t bytes_shown(const ConstTensorView& view) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(view.dtype));
  for (int axis = 0; axis < view.shape.size(); ++axis)
    if (view.strides[axis] != 0) bytes *= view.shape[axis];
  return bytes;
}

/// Whether a gradient kernel replaces what its destination holds or adds to it.
enum class GradientWrite : std::uint8_t { Overwrite, Accumulate };

}  // namespace lamella::detail
