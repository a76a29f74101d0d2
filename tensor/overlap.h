#pragma once

#include "lamella/tensor/tensor.h"

namespace lamella::detail {

/// True if several positions are one element, as after expand(): such a tensor can be read, not written.
inline bool repeats_elements(const Tensor& tensor) {
  if (tensor.numel() == 0) return false;
  for (int axis = 0; axis < tensor.dim(); ++axis)
    if (tensor.shape()[axis] > 1 && tensor.strides()[axis] == 0) return true;
  return false;
}

}  // namespace lamella::detail
