#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tensor/view.h"

/// Updates of parameters. One call takes many of them. Parameter, gradient and state have one shape and one
/// type, float32 or float64; any strides, but those dense in one order are fastest.
namespace lamella::cpu {

struct ParamUpdate {
  detail::TensorView param;
  detail::ConstTensorView grad;
  std::array<detail::TensorView, 3> state;  ///< what the optimizer keeps; data null where there is none
  const std::int64_t* step = nullptr;       ///< updates of this parameter, this one included; device memory
};
using ParamUpdates = std::vector<ParamUpdate>;

/// Adds 1 to each.
void advance_steps(const std::vector<std::int64_t*>& steps);

struct SgdSettings {
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};
/// See lamella/optim/sgd.h. `lr` points to device memory, here and below. State: v.
void sgd_step(const ParamUpdates& updates, const double* lr, const SgdSettings& settings);

struct AdamSettings {
  double beta1 = 0;
  double beta2 = 0;
  double eps = 0;
  double weight_decay = 0;
  bool decoupled = false;  ///< the decay is AdamW's
  bool amsgrad = false;
};
/// See lamella/optim/adam.h. State: m, v, the largest v.
void adam_step(const ParamUpdates& updates, const double* lr, const AdamSettings& settings);

struct RmspropSettings {
  double alpha = 0;
  double eps = 0;
  double weight_decay = 0;
  double momentum = 0;
  bool centered = false;
  bool eps_inside_sqrt = false;
};
/// See lamella/optim/rmsprop.h. State: s, then b and a where they are used.
void rmsprop_step(const ParamUpdates& updates, const double* lr, const RmspropSettings& settings);

}  // namespace lamella::cpu
