#pragma once

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
/// sizes do not fit; DTypeError, DeviceError; Error for a missing running estimate.
LAMELLA_API Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const Tensor& running_mean, const Tensor& running_var,
                              const BatchNormOptions& options = {});

}  // namespace lamella
