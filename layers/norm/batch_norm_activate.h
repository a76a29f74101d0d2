#pragma once

#include "lamella/layers/norm.h"
#include "tensor/door.h"

namespace lamella::detail {

/// activation(batch_norm(x, …)) as one operator. Its gradient goes back through the activation while it takes
/// the sums that batch norm needs, where the two operators would write a tensor and read it again.
Tensor batch_norm_activate(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Tensor& running_mean, const Tensor& running_var,
                           const BatchNormOptions& options, PendingActivation activation);

}  // namespace lamella::detail
