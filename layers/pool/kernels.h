#pragma once

#include "layers/pool/geometry.h"
#include "tensor/view.h"

namespace lamella::cpu {

/// y = largest element of each window; positions (int32 or int64, shaped and laid out like y) = its h · W + w
/// in the input plane, −1 for a window without elements; not written if its data is null. x and y are dense.
void max_pool2d_forward(const detail::ConstTensorView& x, const detail::Pool2dGeometry& geometry,
                        const detail::TensorView& y, const detail::TensorView& positions);
/// dx gets the gradient of each window at its position.
void max_pool2d_backward(const detail::ConstTensorView& grad, const detail::ConstTensorView& positions,
                         const detail::Pool2dGeometry& geometry, const detail::TensorView& dx,
                         detail::GradientWrite write);

/// y = mean of each window.
void avg_pool2d_forward(const detail::ConstTensorView& x, const detail::Pool2dGeometry& geometry,
                        const detail::TensorView& y);
void avg_pool2d_backward(const detail::ConstTensorView& grad, const detail::Pool2dGeometry& geometry,
                         const detail::TensorView& dx, detail::GradientWrite write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::max_pool2d_forward) max_pool2d_forward;
decltype(cpu::max_pool2d_backward) max_pool2d_backward;
decltype(cpu::avg_pool2d_forward) avg_pool2d_forward;
decltype(cpu::avg_pool2d_backward) avg_pool2d_backward;

}  // namespace lamella::cuda
