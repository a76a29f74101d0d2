#pragma once

#include "lamella/autograd/autocast.h"
#include "lamella/tensor/tensor.h"

/// What operators ask about Autocast.
namespace lamella::detail {

/// A float32 tensor in the type of autocast, by a recorded conversion; any other, and all without autocast,
/// as they are.
Tensor lowered(const Tensor& x);

/// What a kernel reads in place of a float32 parameter beside an input in the type of autocast: its rounded
/// copy, made once a step and without a graph. The parameter itself is still what the operator
/// differentiates.
Tensor lowered_parameter(const Tensor& input, const Tensor& parameter);

/// A tensor of a half type in float32 under autocast, by a recorded conversion.
Tensor raised(const Tensor& x);

}  // namespace lamella::detail
