#pragma once

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella::optim {

/// Scales the gradients of `params` in place by min(1, max_norm / (norm + 1e-6)), where norm is the 2-norm of
/// all of them together, as PyTorch's does. Returns the norm before that, without axes: float64 if any
/// gradient is, else float32; 0 if there is no gradient. It is a tensor on the gradients' device: nothing
/// waits for its value. A norm that is infinite or NaN goes on into the gradients. Squares are added in
/// float64, in an order that depends on shapes alone.
///
/// Throws Error unless max_norm is finite and not negative, DTypeError for gradients that are not float32 or
/// float64, DeviceError for gradients on several devices, with nothing changed.
LAMELLA_API Tensor clip_grad_norm_(const Tensors& params, double max_norm);

/// Limits each element of the gradients of `params` to [−clip_value, clip_value] in place; NaN stays. Throws
/// Error unless clip_value is finite and not negative, DTypeError and DeviceError as clip_grad_norm_().
LAMELLA_API void clip_grad_value_(const Tensors& params, double clip_value);

}  // namespace lamella::optim
