#pragma once

#include <cmath>
#include <cstdint>

#include "core/philox.h"
#include "optim/kernels.h"

namespace lamella::detail {

/// What is the same for all elements of a parameter in a step of Adam or AdamW.
template <class T>
struct AdamConstants {
  T shrink;  ///< what decoupled decay leaves of the parameter
  T decay;   ///< what goes into the gradient
  T keep1, take1, keep2, take2;
  T rate;        ///< lr / (1 − β1^t)
  T root_scale;  ///< 1 / √(1 − β2^t)
  T eps;
  bool amsgrad;
};

/// `step`: updates of the parameter, this one included.
template <class T>
LAMELLA_HOST_DEVICE inline AdamConstants<T> adam_constants(const AdamSettings& settings, double lr,
                                                           std::int64_t step) {
  const double t = static_cast<double>(step);
  return {static_cast<T>(settings.decoupled ? 1 - lr * settings.weight_decay : 1),
          static_cast<T>(settings.decoupled ? 0 : settings.weight_decay),
          static_cast<T>(settings.beta1),
          static_cast<T>(1 - settings.beta1),
          static_cast<T>(settings.beta2),
          static_cast<T>(1 - settings.beta2),
          static_cast<T>(lr / (1 - std::pow(settings.beta1, t))),
          static_cast<T>(1 / std::sqrt(1 - std::pow(settings.beta2, t))),
          static_cast<T>(settings.eps),
          settings.amsgrad};
}

}  // namespace lamella::detail
