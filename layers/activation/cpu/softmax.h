#pragma once

#include "tensor/view.h"

namespace lamella::cpu {

/// y = softmax(x) along `axis`, or its logarithm; floating types, any strides.
void softmax_forward(bool logarithm, const detail::ConstTensorView& x, int axis, const detail::TensorView& y);

/// dx from the gradient g of y and from y itself.
void softmax_backward(bool logarithm, const detail::ConstTensorView& g, const detail::ConstTensorView& y,
                      int axis, const detail::TensorView& dx, detail::GradientWrite write);

}  // namespace lamella::cpu
