#pragma once

#include <cstdint>
#include <optional>

#include "core/cuda/compiler.h"
#include "lamella/layers/conv_geometry.h"
#include "layers/depthwise_conv2d/cuda/problem.h"
#include "tensor/view.h"

/// The kernels of device/, by plan.
namespace lamella::cuda::depthwise {

/// Of one pass; what it does not need has no data.
struct Operands {
  detail::ConstTensorView input, weight, bias;
  detail::ConstTensorView grad_output;
  detail::TensorView output, grad_input;
  bool accumulate = false;    ///< adds to grad_input
  const Parts* to = nullptr;  ///< where the gradients of weight and bias go
};

/// The text of device/, which a Plan's kernel is compiled from.
const detail::cuda::Sources& device_sources();

/// Computes the output if there is one, else the gradients that have a place to go to, both in one pass.
/// False, with nothing done, where only the generic kernels can: float64, operands of other strides than
/// dense planes or channels side by side, kernels above 15x15, or no compiler at run time.
bool run_planned(const Conv2dGeometry& geometry, const Operands& operands);

/// What run_planned() would take as Workspace, with its kernel chosen and compiled; none where it would do nothing.
std::optional<std::int64_t> planned_workspace(const Conv2dGeometry& geometry, const Operands& operands);

}  // namespace lamella::cuda::depthwise
