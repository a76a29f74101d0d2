#pragma once

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// Matrix product, by PyTorch's rules: two vectors give their dot product (no axes); a vector on the left
/// counts as a row [1,k], one on the right as a column [k,1], and that axis of the result goes away; further
/// axes on the left are batches, which broadcast: [b,1,m,k] times [h,k,n] is [b,h,m,n]. Floating types; both
/// operands have the same, and so has the result (float16 and bfloat16 are added in float32 and
/// rounded once).
///
/// Throws ShapeError unless the inner sizes agree and the batches broadcast, DTypeError, DeviceError.
LAMELLA_API Tensor matmul(const Tensor& a, const Tensor& b);

}  // namespace lamella
