#pragma once

#include "lamella/layers/modules/norm.h"
#include "tensor/door.h"

namespace lamella::detail {

/// activation(norm(x)) as one operator: see batch_norm_activate().
Tensor norm_activate(const BatchNorm2d& norm, const Tensor& x, PendingActivation activation);

}  // namespace lamella::detail
