#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tensor/view.h"

namespace lamella::detail {

struct ParamUpdate {
  TensorView param;
  ConstTensorView grad;
  std::array<TensorView, 3> state;     ///< what the optimizer keeps; data null where there is none
  const std::int64_t* step = nullptr;  ///< updates of this parameter, this one included; device memory
};
using ParamUpdates = std::vector<ParamUpdate>;

struct SgdSettings {
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};

struct AdamSettings {
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;
  double weight_decay = 0;
  bool decoupled = false;  ///< the decay is AdamW's
  bool amsgrad = false;
};

struct RmspropSettings {
  double alpha = 0;
  double eps = 0;
  double weight_decay = 0;
  double momentum = 0;
  bool centered = false;
  bool eps_inside_sqrt = false;
};

struct ScalerSettings {
  double growth = 0;
  double backoff = 0;
  std::int64_t interval = 0;
};

/// What a GradScaler keeps, all of it in device memory.
struct ScalerState {
  float* scale = nullptr;
  std::int64_t* tracker = nullptr;  ///< updates since the scale changed
  std::int64_t* skipped = nullptr;
  std::int32_t* found = nullptr;  ///< per optimizer: not 0 where a gradient is infinite or NaN
  std::int64_t optimizers = 0;    ///< how many of these
};

struct EmaPair {
  TensorView average;
  ConstTensorView value;  ///< of the same shape and type, float32 or float64
};

}  // namespace lamella::detail

/// Updates of parameters. One call takes many of them. Parameter, gradient and state have one shape and one
/// type, float32 or float64; any strides, but those dense in one order are fastest. `skip` points to device
/// memory; where it is not null and what is there is not 0, nothing is changed.
namespace lamella::cpu {

/// Adds 1 to each.
void advance_steps(const std::vector<std::int64_t*>& steps, const std::int32_t* skip);

/// See lamella/optim/sgd.h. `lr` points to device memory, here and below. State: v.
void sgd_step(const detail::ParamUpdates& updates, const double* lr, const std::int32_t* skip,
              const detail::SgdSettings& settings);

/// See lamella/optim/adam.h. State: m, v, the largest v.
void adam_step(const detail::ParamUpdates& updates, const double* lr, const std::int32_t* skip,
               const detail::AdamSettings& settings);

/// See lamella/optim/rmsprop.h. State: s, then b and a where they are used.
void rmsprop_step(const detail::ParamUpdates& updates, const double* lr, const std::int32_t* skip,
                  const detail::RmspropSettings& settings);

/// Adds 1 to *updates, then average ← d · average + (1 − d) · value, where d is `decay` or, with `warm_up`,
/// no more than (1 + n) / (10 + n), n being *updates before. `updates` points to device memory.
void ema_step(const std::vector<detail::EmaPair>& pairs, std::int64_t* updates, double decay, bool warm_up);

/// 2-norm of all gradients together to `norm`, float64 []; here and below gradients are float32 or float64,
/// of any strides.
void gradient_norm(const std::vector<detail::ConstTensorView>& gradients, const detail::TensorView& norm);
/// Times min(1, max_norm / (norm + 1e-6)). `norm` points to device memory.
void scale_gradients(const std::vector<detail::TensorView>& gradients, const double* norm, double max_norm);
/// To [-limit, limit]; NaN stays.
void limit_gradients(const std::vector<detail::TensorView>& gradients, double limit);

/// Times 1 / *scale, which points to device memory as `found` does. Sets *found to 1 where a result is
/// infinite or NaN, and leaves it as it is otherwise.
void unscale_gradients(const std::vector<detail::TensorView>& gradients, const float* scale,
                       std::int32_t* found);
/// See lamella/optim/grad_scaler.h. Sets all of state.found to 0.
void update_scale(const detail::ScalerState& state, const detail::ScalerSettings& settings);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::advance_steps) advance_steps;
decltype(cpu::sgd_step) sgd_step;
decltype(cpu::adam_step) adam_step;
decltype(cpu::rmsprop_step) rmsprop_step;
decltype(cpu::ema_step) ema_step;
decltype(cpu::gradient_norm) gradient_norm;
decltype(cpu::scale_gradients) scale_gradients;
decltype(cpu::limit_gradients) limit_gradients;
decltype(cpu::unscale_gradients) unscale_gradients;
decltype(cpu::update_scale) update_scale;

}  // namespace lamella::cuda
