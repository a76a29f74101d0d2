#pragma once

#include "tensor/view.h"

namespace lamella::detail {

/// The view over a shape that its own broadcasts to: stride 0 along repeated axes.
inline ConstTensorView broadcast_to(const ConstTensorView& view, const Shape& shape) {
  ConstTensorView result = view;
  result.shape = shape;
  result.strides = Dims::filled(shape.size(), 0);
  const int added = shape.size() - view.shape.size();
  for (int axis = 0; axis < view.shape.size(); ++axis)
    if (view.shape[axis] != 1) result.strides[added + axis] = view.strides[axis];
  return result;
}

/// A [C] vector over a shape whose axis 1 has C positions; a vector without axes 1 stays one number.
inline ConstTensorView along_channels(const void* data, DType dtype, const Shape& shape, Device device) {
  ConstTensorView result{data, shape, Dims::filled(shape.size(), 0), dtype, device};
  if (shape.size() > 1) result.strides[1] = 1;
  return result;
}

}  // namespace lamella::detail
