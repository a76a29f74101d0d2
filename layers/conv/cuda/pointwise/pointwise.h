#pragma once

#include <cstdint>

#include "core/cuda/compiler.h"
#include "layers/conv/cuda/pointwise/plan.h"
#include "tensor/left_parts.h"
#include "tensor/view.h"

/// 1x1 convolutions without strides, padding and groups, of channels-last images in bfloat16 or float16, by
/// kernels that read each tensor once: with a pending norm and activation applied as the input is read, and
/// the sums that the next norm needs left as the output is written. They need a copy engine (compute
/// capability 9) and channels in multiples of eight.
///
/// Each function returns false, with nothing done, where its kernels cannot do the work: then
/// conv2d_forward() and its like (layers/conv/kernels.h) can, without transforms and sums. Everything is on
/// the current stream, in an order that depends on the problem alone.
namespace lamella::cuda::pointwise {

using lamella::pointwise::Load;

/// f(scale[c] · x + shift[c]) in float32, rounded once to x's type; see Load. Plain: x as it is.
struct Transform {
  Load load = Load::Plain;
  const float* scale = nullptr;  ///< [channels], on the device
  const float* shift = nullptr;
  float low = 0, high = 0;  ///< Clamp's; -inf and inf where there is no bound
};

/// The input was a = f(scale · z + shift), as `of` says, and z is what is stored: its gradient goes back
/// through f, and sums of it, of the gradient as it is stored, are left.
struct NormSums {
  detail::ConstTensorView z;
  Transform of;                       ///< not Plain
  const float* center = nullptr;      ///< [channels], on the device: what z is taken relative to
  detail::LeftParts* sums = nullptr;  ///< Σ g' and Σ g' · (z − center)
};

/// y = a(x) · w + bias.
struct ForwardOperands {
  detail::ConstTensorView input;   ///< [N,Ci,H,W]
  detail::ConstTensorView weight;  ///< [Co,Ci,1,1] of any strides, float32 or the input's type
  detail::ConstTensorView bias;    ///< [Co] without gaps, float32 or the input's type; or no data
  detail::TensorView output;       ///< [N,Co,H,W]
  Transform transform;
  detail::LeftParts* moments = nullptr;  ///< of results as they are stored; null: not wanted
};
bool forward(const ForwardOperands& operands);

/// dx = g · w, and back through what made x of z where `sums` is given.
struct InputOperands {
  detail::ConstTensorView grad_output, weight;
  detail::TensorView grad_input;
  const NormSums* sums = nullptr;
};
bool backward_input(const InputOperands& operands);

/// dw = gᵀ · a(x) and the bias's gradient; either destination's `data` may be null, but not the weight's.
/// Destinations have any strides, and are float32 or the input's type.
struct WeightOperands {
  detail::ConstTensorView grad_output, input;
  Transform transform;
  detail::TensorView grad_weight;
  detail::GradientWrite weight_write = detail::GradientWrite::Overwrite;
  detail::TensorView grad_bias;
  detail::GradientWrite bias_write = detail::GradientWrite::Overwrite;
  detail::GradientParts* parts = nullptr;  ///< where the weight's gradient is left, in place of grad_weight
};
bool backward_weight(const WeightOperands& operands);

// For benchmarks and tests.

/// The text of device/, which a Plan's kernel is compiled from.
const detail::cuda::Sources& device_sources();

/// A plan and its kernel, ready to run.
struct Chosen {
  lamella::pointwise::Plan plan;
  const void* kernel = nullptr;
};
/// The best plan by estimate whose kernel can be had, chosen once in a process; null: none.
const Chosen* choose(const lamella::pointwise::Problem& problem, Device device);

/// While it lives, this thread's calls run this plan instead.
class UsePlan {
 public:
  explicit UsePlan(const Chosen& chosen);
  ~UsePlan();
  UsePlan(const UsePlan&) = delete;
  UsePlan& operator=(const UsePlan&) = delete;
};

}  // namespace lamella::cuda::pointwise
