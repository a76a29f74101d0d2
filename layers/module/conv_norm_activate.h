#pragma once

#include "lamella/layers/blocks.h"

namespace lamella::detail {

/// activation(norm(conv(x))), each leaving to the next what it can: the convolution the norm's statistics,
/// the norm itself and the activation to whoever reads them.
Tensor conv_norm_activate(Conv2d& conv, BatchNorm2d& norm, const Tensor& x, Activation activation);

}  // namespace lamella::detail
