#pragma once

#include <cstdint>
#include <string>

#include "lamella/tensor/shape.h"

namespace lamella::testing {

/// Where element `flat` of a tensor of this shape lies: "[0,3,1]".
inline std::string position(std::int64_t flat, const Shape& shape) {
  Dims at = shape;
  for (int axis = shape.size() - 1; axis >= 0; --axis) {
    at[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return at.to_string();
}

}  // namespace lamella::testing
