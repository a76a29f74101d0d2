#pragma once

#include "layers/pool/geometry.h"
#include "tensor/view.h"

/// Averages over whole planes, of inputs that owe nothing; of others: layers/squeeze_excite, plane_means().
namespace lamella::cuda {

/// True where each channel has one window, its whole plane, and an average divides by the plane's size.
bool is_global(const detail::Pool2dGeometry& geometry);

/// As avg_pool2d_forward() and avg_pool2d_backward(), where is_global(geometry).
void global_average_forward(const detail::ConstTensorView& x, const detail::Pool2dGeometry& geometry,
                            const detail::TensorView& y);
void global_average_backward(const detail::ConstTensorView& grad, const detail::Pool2dGeometry& geometry,
                             const detail::TensorView& dx, detail::GradientWrite write);

}  // namespace lamella::cuda
