#pragma once

#include <cstdint>
#include <vector>

#include "tensor/view.h"

namespace lamella::cpu {

struct EmaPair {
  detail::TensorView average;
  detail::ConstTensorView value;  ///< of the same shape and type, float32 or float64
};

/// Adds 1 to *updates, then average ← d · average + (1 − d) · value, where d is `decay` or, with `warm_up`,
/// no more than (1 + n) / (10 + n), n being *updates before. `updates` points to device memory.
void ema_step(const std::vector<EmaPair>& pairs, std::int64_t* updates, double decay, bool warm_up);

}  // namespace lamella::cpu
