#pragma once

#include <cstdint>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// Joins tensors along an existing axis. All other sizes, the type and the device must be equal; throws
/// ShapeError, DTypeError, DeviceError otherwise, and ShapeError for no tensors at all.
LAMELLA_API Tensor cat(const Tensors& tensors, int axis = 0);
/// Joins tensors of one shape along a new axis.
LAMELLA_API Tensor stack(const Tensors& tensors, int axis = 0);

/// Elements added before and after along one axis.
struct PadWidth {
  std::int64_t before = 0;
  std::int64_t after = 0;
};
/// Surrounds x with `value`. One width per axis, or fewer for the last axes. Negative widths throw ShapeError
/// (use slice()).
LAMELLA_API Tensor pad(const Tensor& x, const std::vector<PadWidth>& widths, double value = 0);

/// A new last axis of `classes` elements, 1 at the index and 0 elsewhere. `indices` is int64; throws
/// ShapeError naming the first index out of [0, classes).
LAMELLA_API Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::Float32);

}  // namespace lamella
