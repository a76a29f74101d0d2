#pragma once

#include "layers/squeeze_excite/gate.h"
#include "tensor/door.h"
#include "tensor/left_parts.h"

/// Kernels of squeeze_excite.h. x is [N,C,H,W], on a GPU as can_squeeze() wants it, with what it owes; means,
/// gates and their gradients are [N,C,1,1], dense, all of x's type.
namespace lamella::cpu {

/// means = Σ x / (H · W) over each plane.
void squeeze_forward(const detail::PendingView& x, const detail::TensorView& means);

/// y = x · f(gate); y lies as x does.
void excite_forward(const detail::PendingView& x, const detail::ConstTensorView& gate, detail::Gate f,
                    const detail::TensorView& y);

/// grad_gate = f'(gate) · Σ grad · x over each plane; grad lies as x does.
void excite_backward(const detail::ConstTensorView& grad, const detail::PendingView& x,
                     const detail::ConstTensorView& gate, detail::Gate f, const detail::TensorView& grad_gate,
                     detail::GradientWrite write);

/// dx = grad · f(gate) + grad_means / (H · W); no data in grad or grad_means: 0. sums, if not null: dx goes
/// back through what x owes, and they are Σ dx and Σ dx · (stored − center) of each channel, by images.
void squeeze_backward(const detail::ConstTensorView& grad, const detail::ConstTensorView& gate,
                      detail::Gate f, const detail::ConstTensorView& grad_means, const detail::PendingView& x,
                      const detail::TensorView& dx, detail::GradientWrite write, detail::LeftParts* sums);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::squeeze_forward) squeeze_forward;
decltype(cpu::excite_forward) excite_forward;
decltype(cpu::excite_backward) excite_backward;
decltype(cpu::squeeze_backward) squeeze_backward;

}  // namespace lamella::cuda
