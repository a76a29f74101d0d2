#pragma once

#include "tensor/view.h"

namespace lamella::cpu {

/// out[n,c] = Σ over h, w of a[n,c,h,w] · b[n,c,h,w], or += it: the gradient of a gate that scales whole
/// planes. Floating types, any strides; out is [N,C,1,1]. Added in double, in an order that the shape and
/// strides fix.
void plane_product(const detail::ConstTensorView& a, const detail::ConstTensorView& b,
                   const detail::TensorView& out, detail::GradientWrite write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::plane_product) plane_product;

}  // namespace lamella::cuda
