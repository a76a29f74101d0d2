#pragma once

#include "lamella/layers/conv_geometry.h"
#include "tensor/view.h"

namespace lamella::cuda {

/// grad_weight = or += the sum over all output pixels of grad_output × window. Operands as in
/// layers/conv/kernels.h; the batch is not empty. Many partial sums, cut by shape, occupy the GPU; they are
/// added in their order.
void convolve_weight_gradient(const Conv2dGeometry& geometry, const detail::ConstTensorView& grad_output,
                              const detail::ConstTensorView& input, bool channels_last,
                              const detail::TensorView& grad_weight, detail::GradientWrite write);

}  // namespace lamella::cuda
