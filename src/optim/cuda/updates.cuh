#pragma once

#include "optim/cuda/update.cuh"
#include "optim/kernels.h"

namespace lamella::cuda {

/// Operands of an optimizer that keeps kStates tensors per parameter, and whether it leaves them alone.
template <int kStates>
struct UpdateOperands {
  static constexpr int kParam = 0, kState = 1, kGrad = kStates + 1, kOperands = kStates + 2;
  static constexpr unsigned kWritten = (1u << kGrad) - 1;
  const std::int32_t* skip;

  static WalkItems<kOperands> items(const detail::ParamUpdates& updates) {
    WalkItems<kOperands> result(updates.size());
    for (std::size_t i = 0; i < updates.size(); ++i) {
      result[i].set(kParam, updates[i].param);
      for (std::size_t k = 0; k < kStates; ++k) result[i].set(kState + k, updates[i].state[k]);
      result[i].set(kGrad, updates[i].grad);
      result[i].step = updates[i].step;
    }
    return result;
  }
};

}  // namespace lamella::cuda
