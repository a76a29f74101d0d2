#pragma once

#include "lamella/layers/norm.h"
#include "tensor/door.h"

namespace lamella::detail {

/// What a norm keeps of batches; each may be undefined.
struct RunningStatistics {
  Tensor mean, var;  ///< [C]
  Tensor tracked;    ///< how many batches there were: int64
};

/// activation(batch_norm(x, …)) as one operator. Its gradient goes back through the activation while it takes
/// the sums that batch norm needs, where the two operators would write a tensor and read it again.
Tensor batch_norm_activate(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const RunningStatistics& running, const BatchNormOptions& options,
                           PendingActivation activation);

}  // namespace lamella::detail
