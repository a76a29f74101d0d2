#pragma once

#include "core/philox.h"
#include "optim/kernels.h"

namespace lamella::detail {

/// The least and the largest scale of a GradScaler: the powers of two at the ends of what a float32 holds in
/// full, together with its inverse.
inline constexpr double kLeastScale = 0x1p-126;
inline constexpr double kLargestScale = 0x1p126;

/// The rule by which a GradScaler changes its scale, for every device.
LAMELLA_HOST_DEVICE inline void adapt(const ScalerState& state, const ScalerSettings& settings) {
  bool found = false;
  for (std::int64_t i = 0; i < state.optimizers; ++i) {
    found = found || state.found[i] != 0;
    state.found[i] = 0;
  }
  double scale = *state.scale;
  if (found) {
    scale *= settings.backoff;
    *state.tracker = 0;
    ++*state.skipped;
  } else if (++*state.tracker >= settings.interval) {
    scale *= settings.growth;
    *state.tracker = 0;
  }
  scale = scale < kLeastScale ? kLeastScale : scale;
  *state.scale = static_cast<float>(scale > kLargestScale ? kLargestScale : scale);
}

}  // namespace lamella::detail
