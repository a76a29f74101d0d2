#pragma once

#include "layers/depthwise_conv2d/cuda/cut_boxes.h"
#include "layers/depthwise_conv2d/cuda/cut_positions.h"
#include "tensor/view.h"

/// What the copy engine is told of tensors.
namespace lamella::cuda::depthwise {

/// A map to move boxes of a tensor; false: it cannot be moved so.
bool describe(const detail::ConstTensorView& view, const lamella::depthwise::BoxSizes& box,
              lamella::depthwise::TensorMap& map);
/// A map to move runs of several images of dense planes [N,C,H,W] with one copy; false: it cannot.
bool describe(const detail::ConstTensorView& view, const lamella::depthwise::ImageRuns& runs,
              lamella::depthwise::TensorMap& map);

}  // namespace lamella::cuda::depthwise
