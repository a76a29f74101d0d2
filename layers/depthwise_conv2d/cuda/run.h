#pragma once

#include <cstdint>
#include <optional>

#include "core/cuda/compiler.h"
#include "lamella/layers/conv_geometry.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/problem.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"
#include "tensor/view.h"

/// The kernels of device/, by plan.
namespace lamella::cuda::depthwise {

/// Of one pass; what it does not need has no data.
struct Operands {
  detail::ConstTensorView input, weight, bias;
  detail::ConstTensorView grad_output;
  detail::TensorView output, grad_input;
  bool accumulate = false;                  ///< adds to grad_input
  const Parts* to = nullptr;                ///< where the gradients of weight and bias go
  lamella::depthwise::Transform transform;  ///< of the input, which is given raw; no scale: none
  lamella::depthwise::Hook hook = lamella::depthwise::Hook::None;
  HookResults results;  ///< of the hook
  Device device() const { return output.data != nullptr ? output.device : grad_output.device; }
};

/// A plan and its kernel, ready to run.
struct Chosen {
  lamella::depthwise::Plan plan;
  const void* kernel = nullptr;
};

/// The text of device/, which a Plan's kernel is compiled from.
const detail::cuda::Sources& device_sources();

/// What the choice for these operands depends on; of their data only the alignment of the addresses is looked
/// at. False where only the generic kernels can do the work.
bool describe_problem(const Conv2dGeometry& geometry, const Operands& operands,
                      lamella::depthwise::Problem& problem);

/// What $LAMELLA_TUNING's file has for GPUs like this one, read once.
const lamella::depthwise::Tuning& tuning_of(Device device);

/// The measured plan, or else the best by estimate, whose kernel can be had; null: none, or, of both
/// gradients, two passes are better. It is chosen once in a process.
const Chosen* choose(const lamella::depthwise::Problem& problem, Device device);

/// Runs one of plans_for()'s with its kernel. False, with nothing done, where these operands do not suit it.
bool run_plan(const lamella::depthwise::Plan& plan, const void* kernel, const Conv2dGeometry& geometry,
              const Operands& operands);

/// Computes the output if there is one, else the gradients that have a place to go to, both in one pass.
/// False, with nothing done, where only the generic kernels can: float64, operands of other strides than
/// dense planes or channels side by side, kernels above 15x15, or no compiler at run time.
bool run_planned(const Conv2dGeometry& geometry, const Operands& operands);

/// What run_planned() would take as Workspace, with its kernel chosen and compiled; none where it would do
/// nothing.
std::optional<std::int64_t> planned_workspace(const Conv2dGeometry& geometry, const Operands& operands);

}  // namespace lamella::cuda::depthwise
