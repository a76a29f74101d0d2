#pragma once

#include <cstdint>
#include <utility>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// Which axes a reduction runs over: by default all; negative ones count from the end. What takes these
/// options throws Error for an undefined input, ShapeError for an axis out of range or given twice.
struct ReduceOptions {
  Dims axes = {};          ///< empty: all axes
  bool keep_axes = false;  ///< keep reduced axes with size 1
};

/// Sum; 0 over no elements. float16 and bfloat16 are added in float32 and rounded once; bool, uint8 and int32
/// are added in int64, which the result then has. Added in a fixed order, in blocks, whatever the number of
/// threads. No gradient for integers.
LAMELLA_API Tensor sum(const Tensor& x, const ReduceOptions& options = {});
/// Arithmetic mean; NaN over no elements. Throws DTypeError unless floating.
LAMELLA_API Tensor mean(const Tensor& x, const ReduceOptions& options = {});
/// Variance: the sum of squared distances from the mean, divided by n − correction (NaN unless that is
/// positive). correction 1 is the unbiased estimate, PyTorch's default. Two passes. Throws DTypeError unless
/// floating.
LAMELLA_API Tensor var(const Tensor& x, const ReduceOptions& options = {}, double correction = 1);
/// Largest element, in the type of x. NaN wins. Its gradient is shared equally among equal extremes, as by
/// PyTorch's amax. Throws ShapeError over no elements.
LAMELLA_API Tensor max(const Tensor& x, const ReduceOptions& options = {});
/// Smallest element; otherwise as max().
LAMELLA_API Tensor min(const Tensor& x, const ReduceOptions& options = {});
/// Position (int64) of the first largest element along `axis`, or of the first NaN; no gradient. The axis
/// goes away unless keep_axis. Throws ShapeError for an axis out of range or of size 0.
LAMELLA_API Tensor argmax(const Tensor& x, int axis = -1, bool keep_axis = false);
/// Position of the first smallest element; otherwise as argmax().
LAMELLA_API Tensor argmin(const Tensor& x, int axis = -1, bool keep_axis = false);

/// Sums over the axes along which `shape` broadcasts to x's shape: the gradient of a broadcast. Throws
/// ShapeError if it does not.
LAMELLA_API Tensor sum_to(const Tensor& x, const Shape& shape);

}  // namespace lamella
