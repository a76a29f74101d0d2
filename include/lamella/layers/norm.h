#pragma once

#include <cstdint>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// How batch_norm() normalises; names and defaults are PyTorch's.
struct BatchNormOptions {
  bool training = true;   ///< statistics of this batch; else the running estimates
  double momentum = 0.1;  ///< running = (1 − momentum) · running + momentum · batch
  double eps = 1e-5;      ///< added to the variance under the root
};

/// (x − mean) / sqrt(var + eps) · weight + bias per channel (axis 1), over all other axes ("Batch
/// Normalization", arXiv 1502.03167).
///
/// `x` is [N,C] or [N,C,…], floating; weight and bias are [C] of x's type, or float32 for a half-typed x;
/// either may be undefined (1 and 0). In training, mean and biased variance are those of x, and the running
/// estimates, where defined, are moved toward mean and *unbiased* variance (in place; not in the second run
/// of recompute()). Otherwise the running estimates are used and must be defined.
///
/// An empty batch gives an empty result, leaves the running estimates alone and gives zero parameter
/// gradients. Throws ShapeError where training has one value per channel (its variance would be 0), where
/// sizes do not fit; DTypeError or DeviceError where operands do not go together; Error for a missing running
/// estimate.
LAMELLA_API Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const Tensor& running_mean, const Tensor& running_var,
                              const BatchNormOptions& options = {});

/// (x − mean) / sqrt(var + eps) · weight + bias with mean and biased variance over the last axes, those of
/// `normalized_shape`, separately for each position before them ("Layer Normalization", arXiv 1607.06450).
///
/// weight and bias have shape `normalized_shape`, x's type or float32 for a half-typed x; either may be
/// undefined. The result is dense in row-major order unless x is dense in channels_last. Throws ShapeError
/// where x does not end in `normalized_shape` or a size in it is 0; DTypeError, DeviceError.
LAMELLA_API Tensor layer_norm(const Tensor& x, const Shape& normalized_shape, const Tensor& weight,
                              const Tensor& bias, double eps = 1e-5);

/// (x − mean) / sqrt(var + eps) · weight + bias with mean and biased variance over each of `groups` equal
/// groups of neighbouring channels of each sample of x [N,C,…] ("Group Normalization", arXiv 1803.08494).
///
/// weight and bias are [C], as for batch_norm(). groups = C is instance normalisation, groups = 1 normalises
/// whole samples. Throws ShapeError unless `groups` divides C; DTypeError, DeviceError.
LAMELLA_API Tensor group_norm(const Tensor& x, std::int64_t groups, const Tensor& weight, const Tensor& bias,
                              double eps = 1e-5);

}  // namespace lamella
