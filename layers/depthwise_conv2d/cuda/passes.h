#pragma once

#include "layers/depthwise_conv2d/cuda/problem.h"
#include "layers/depthwise_conv2d/cuda/run.h"

/// What the passes have in common, with and without fusion.
namespace lamella::cuda::depthwise {

inline TapView tap_view(const detail::ConstTensorView& weight) {
  TapView view;
  view.taps = weight.data;
  view.taps_type = weight.dtype;
  view.channel = weight.strides[0];
  view.row = weight.strides[2];
  view.column = weight.strides[3];
  return view;
}

/// The distance between the taps of an axis that has one does not matter; a one lets the fast paths in.
inline Size2 dilation_of(const Conv2dGeometry& g) {
  return {g.kernel.h == 1 ? 1 : g.dilation.h, g.kernel.w == 1 ? 1 : g.dilation.w};
}

inline Parts parts_of(const Conv2dGeometry& g, Device device, const detail::TensorView& grad_weight,
                      detail::GradientWrite weight_write, const detail::TensorView& grad_bias,
                      detail::GradientWrite bias_write) {
  Parts to;
  to.device = device;
  to.channels = g.out_channels;
  to.kernel = g.kernel;
  to.weight = grad_weight;
  to.bias = grad_bias;
  to.add_weight = weight_write == detail::GradientWrite::Accumulate;
  to.add_bias = bias_write == detail::GradientWrite::Accumulate;
  return to;
}

}  // namespace lamella::cuda::depthwise
