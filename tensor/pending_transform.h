#pragma once

#include <limits>
#include <optional>

#include "tensor/door.h"

namespace lamella::detail {

/// What a pending tensor owes, as kernels do it that fold it into their reading: activation(scale[c] · x +
/// shift[c]), where the activation keeps within bounds or is hardswish.
struct PendingTransform {
  const float *scale = nullptr, *shift = nullptr;  ///< [C]; null: nothing is owed
  float low = 0, high = 0;
  bool hardswish = false;
};

/// None: something else is owed, which no kernel folds.
inline std::optional<PendingTransform> transform_of(const PendingView& input) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  PendingTransform t;
  if (input.scale == nullptr && input.shift == nullptr && input.activation == PendingActivation::None)
    return t;
  if (input.scale == nullptr || input.shift == nullptr) return std::nullopt;
  t.scale = static_cast<const float*>(input.scale), t.shift = static_cast<const float*>(input.shift);
  t.low = -kInfinity, t.high = kInfinity;
  switch (input.activation) {
    case PendingActivation::None:
      return t;
    case PendingActivation::Relu:
      t.low = 0;
      return t;
    case PendingActivation::Relu6:
      t.low = 0, t.high = 6;
      return t;
    case PendingActivation::Hardswish:
      t.hardswish = true;
      return t;
    case PendingActivation::Silu:
      break;
  }
  return std::nullopt;
}

}  // namespace lamella::detail
