#pragma once

#include <cstdint>
#include <utility>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// Which axes a reduction runs over: by default all; negative ones count from the end.
struct ReduceOptions {
  Dims axes = {};          ///< empty: all axes
  bool keep_axes = false;  ///< keep reduced axes with size 1
};

/// Sum. float16 and bfloat16 are added in float32, bool and uint8 and int32 in int64 (which the result then
/// has). Added in a fixed order, in blocks, whatever the number of threads.
LAMELLA_API Tensor sum(const Tensor& x, const ReduceOptions& options = {});
/// Arithmetic mean; floating types only. Over no elements it is NaN.
LAMELLA_API Tensor mean(const Tensor& x, const ReduceOptions& options = {});
/// Variance, divided by (n − correction): correction 1 is the unbiased estimate (PyTorch's
/// default). Two passes.
LAMELLA_API Tensor var(const Tensor& x, const ReduceOptions& options = {}, double correction = 1);
/// Largest and smallest element. NaN wins. Gradient: shared equally among equal extremes, as in PyTorch's
/// amax. Throws ShapeError over no elements.
LAMELLA_API Tensor max(const Tensor& x, const ReduceOptions& options = {});
LAMELLA_API Tensor min(const Tensor& x, const ReduceOptions& options = {});
/// Position (int64) of the first largest or smallest element along `axis`; no gradient.
LAMELLA_API Tensor argmax(const Tensor& x, int axis = -1, bool keep_axis = false);
LAMELLA_API Tensor argmin(const Tensor& x, int axis = -1, bool keep_axis = false);

/// Sums over the axes along which `shape` broadcasts to x's shape: the gradient of a broadcast. Throws
/// ShapeError if it does not.
LAMELLA_API Tensor sum_to(const Tensor& x, const Shape& shape);

}  // namespace lamella
