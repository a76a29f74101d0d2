#pragma once

#include "layers/activation/functions.h"
#include "tensor/door.h"

namespace lamella::cpu {

/// y = f(x); views of one shape and floating type, any strides.
void activation_forward(const detail::ActivationOp& op, const detail::ConstTensorView& x,
                        const detail::TensorView& y);

/// dx = the gradient of f from that of its output, g, and what f reads: `saved.stored`, or, of a tensor that
/// is still pending, stored · scale[c] + shift[c], computed on the way. An activation that the tensor owes is
/// not applied: only Relu and Relu6 may have one of their own there, and theirs changes nothing.
void activation_backward(const detail::ActivationOp& op, const detail::ConstTensorView& g,
                         const detail::PendingView& saved, const detail::TensorView& dx,
                         detail::GradientWrite write);

/// y = softmax(x) along `axis`, or its logarithm; floating types, any strides.
void softmax_forward(bool logarithm, const detail::ConstTensorView& x, int axis, const detail::TensorView& y);

/// dx from the gradient g of y and from y itself.
void softmax_backward(bool logarithm, const detail::ConstTensorView& g, const detail::ConstTensorView& y,
                      int axis, const detail::TensorView& dx, detail::GradientWrite write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::activation_forward) activation_forward;
decltype(cpu::activation_backward) activation_backward;
decltype(cpu::softmax_forward) softmax_forward;
decltype(cpu::softmax_backward) softmax_backward;

}  // namespace lamella::cuda
