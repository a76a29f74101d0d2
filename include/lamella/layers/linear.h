#pragma once

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// x·weightᵀ + bias along the last axis: x [...,in] with weight [out,in] and bias [out] (unless undefined)
/// gives [...,out]. Weight and bias have x's type, or float32 for a float16 or bfloat16 x; sums are in
/// float32 (float64 for float64). Throws ShapeError, DTypeError or DeviceError naming the operands.
LAMELLA_API Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = Tensor());

}  // namespace lamella
