#pragma once

#include "layers/conv/cuda/windows.h"
#include "tensor/view.h"

namespace lamella::cuda {

/// target = or += windows of the source × weight + bias.
struct Convolution {
  ConvWindows windows;
  bool channels_last = false;      ///< how source and target lie
  detail::ConstTensorView source;  ///< [N,C,H,W], dense
  detail::ConstTensorView weight;  ///< [groups, target channels, source channels of a group, taps.h, taps.w]
  detail::ConstTensorView bias;    ///< per target channel, or no data
  detail::TensorView target;       ///< [N, channels, grid.h, grid.w]
  bool target_is_dense = true;     ///< not every s-th pixel only
  detail::GradientWrite write = detail::GradientWrite::Overwrite;  ///< with bias: Overwrite
};

/// As matrix products: of the source itself where a pixel is a window, else of its columns, gathered block by
/// block into a workspace of bounded size. Sums are in float32, or float64 if all is; each result is rounded
/// once.
void convolve(const Convolution& convolution);

}  // namespace lamella::cuda
