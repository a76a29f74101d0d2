#pragma once

#include "lamella/optim/optimizer.h"
#include "optim/kernels.h"
#include "tensor/door.h"

namespace lamella::optim {

/// Views for a kernel; `op` changes parameters and state.
inline detail::ParamUpdates views(const UpdateBatch& batch, const char* op) {
  detail::ParamUpdates updates(batch.params.size());
  for (std::size_t i = 0; i < updates.size(); ++i) {
    updates[i].grad = detail::read(batch.params[i].grad());
    updates[i].param = detail::write(batch.params[i], op);
    for (std::size_t k = 0; k < batch.state[i].size(); ++k)
      updates[i].state[k] = detail::write(batch.state[i][k], op);
    updates[i].step = detail::read(batch.steps[i]).as<std::int64_t>();
  }
  return updates;
}

inline const double* lr_of(const UpdateBatch& batch) { return detail::read(batch.lr).as<double>(); }

/// Null: never skip.
inline const std::int32_t* skip_of(const UpdateBatch& batch) {
  return batch.skip.defined() ? detail::read(batch.skip).as<std::int32_t>() : nullptr;
}

}  // namespace lamella::optim
