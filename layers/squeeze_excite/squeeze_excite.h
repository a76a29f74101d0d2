#pragma once

#include <memory>

#include "autograd/record.h"
#include "lamella/tensor/tensor.h"
#include "layers/squeeze_excite/gate.h"

/// Squeeze-and-excitation around the products that make the gate: x is read for its means and for the result
/// with what it owes, and its gradient is written once. See docs/architecture.md, "Training: what is folded
/// where".
namespace lamella::detail {

/// What squeeze() makes of x.
struct Squeezed {
  Tensor means;  ///< [N,C,1,1], of x's type: each channel's mean over H and W
  Tensor x;      ///< for excite() and nobody else: the gradient that it is given has not met the gate
  struct Gated;
  std::shared_ptr<Gated> gate;
};

/// Whether kernels of x's device gain by it: channels last, whole packets of channels, on a GPU.
bool can_squeeze(const Tensor& x);

/// x: [N,C,H,W], not empty.
Squeezed squeeze(const Tensor& x);

/// x · f(gate), gate being [N,C,1,1] of x's type. To be called once for a Squeezed.
Tensor excite(const Squeezed& squeezed, const Tensor& gate, Gate f = Gate::Plain);

/// The means alone, as operator `op`, in x's format: for x that can_squeeze().
Tensor plane_means(const char* op, const Tensor& x);

}  // namespace lamella::detail
