#pragma once

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// In training, zeroes each element with probability p and multiplies the others by 1 / (1 − p); otherwise,
/// or for p = 0, returns x itself ("Improving neural networks by preventing co-adaptation of feature
/// detectors", arXiv 1207.0580). Element i in row-major order stays if number i of this operator's random
/// sequence (core/random.h), in [0, 1), is at least p: the same on every device and in either memory format.
/// Throws ShapeError unless p is in [0, 1], DTypeError unless x is floating.
LAMELLA_API Tensor dropout(const Tensor& x, double p, bool training);

/// Stochastic depth ("Deep Networks with Stochastic Depth", arXiv 1603.09382): dropout() of whole samples
/// (axis 0), for the branch beside a shortcut. Sample n stays if random number n is at least p, and is then
/// multiplied by 1 / (1 − p), as timm does. Also throws ShapeError for an x without axes.
LAMELLA_API Tensor drop_path(const Tensor& x, double p, bool training);

}  // namespace lamella
