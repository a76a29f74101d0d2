#pragma once

#include "lamella/layers/modules/conv.h"
#include "lamella/layers/modules/norm.h"

/// Norms that fold_batch_norms() has left an addition.
namespace lamella::detail {

/// Whether fold_batch_norms() has left the norm an addition of its bias, and nothing of it has changed since.
bool is_addition(const BatchNorm2d& norm);
/// Whether norm(conv(x)) can be computed by folded_conv(): in eval mode, and what was folded has not changed
/// since.
bool is_folded(const Conv2d& conv, const BatchNorm2d& norm);
/// conv(x) plus the norm's bias.
Tensor folded_conv(const Conv2d& conv, const BatchNorm2d& norm, const Tensor& x);

}  // namespace lamella::detail
