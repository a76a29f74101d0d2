#pragma once

#include "optim/cpu/walk.h"
#include "optim/kernels.h"

namespace lamella::cpu {

using detail::AdamSettings;
using detail::ParamUpdate;
using detail::ParamUpdates;
using detail::RmspropSettings;
using detail::SgdSettings;

/// Operands of a walk over parameters.
inline constexpr std::size_t kParam = 0, kState = 1, kGrad = 4;

inline WalkList walk_list(const ParamUpdates& updates) {
  WalkList list(updates.size());
  for (const ParamUpdate& update : updates)
    list.add({update.param, update.state[0], update.state[1], update.state[2], unwritten(update.grad)},
             0b1111);
  return list;
}

/// Of a flag that may be missing.
inline bool is_set(const std::int32_t* flag) { return flag != nullptr && *flag != 0; }

}  // namespace lamella::cpu
