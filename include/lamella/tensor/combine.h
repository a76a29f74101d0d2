#pragma once

#include <cstdint>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// Joins tensors along an existing axis (negative counts from the end), in the memory format of the first.
/// All other sizes, the type and the device must be equal; throws ShapeError, DTypeError, DeviceError
/// otherwise, and ShapeError for no tensors at all or an axis out of range.
LAMELLA_API Tensor cat(const Tensors& tensors, int axis = 0);
/// Joins tensors of one shape along a new axis, which comes before axis `axis` of theirs (−1: at the end).
/// Throws as cat().
LAMELLA_API Tensor stack(const Tensors& tensors, int axis = 0);

/// Elements added before and after along one axis.
struct PadWidth {
  std::int64_t before = 0;  ///< at its beginning
  std::int64_t after = 0;   ///< at its end
};
/// Surrounds x with `value`. One width per axis, or fewer: those of the last axes. Throws ShapeError for more
/// widths than axes, for negative ones (use Tensor::slice()) and for sizes beyond 64 bits.
LAMELLA_API Tensor pad(const Tensor& x, const std::vector<PadWidth>& widths, double value = 0);

/// A new last axis of `classes` elements, 1 at the index and 0 elsewhere; no gradient. Throws DTypeError
/// unless `indices` is int64, ShapeError for classes < 1 and naming the first index out of [0, classes),
/// OutOfMemoryError for more elements than there is memory. Copies from a GPU.
LAMELLA_API Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::Float32);

}  // namespace lamella
