#pragma once

#include "autograd/record.h"
#include "lamella/tensor/tensor.h"
#include "tensor/view.h"

/// What the normalising operators share.
namespace lamella::detail {

/// A parameter (undefined: nothing to check): of `shape`, x's type, or float32 beside a half type, on x's
/// device.
void check_norm_parameter(const char* op, const char* what, const Tensor& parameter, const Tensor& x,
                          const Shape& shape);

/// The values, or a view without data.
ConstTensorView view_or_none(const Tensor& tensor);

/// The gradients of inputs 1 (weight: Σ g · x̂, row 1 of sums) and 2 (bias: Σ g, row 0), where they are
/// wanted.
void write_parameter_gradients(GradientContext& context, const Tensor& sums);

}  // namespace lamella::detail
