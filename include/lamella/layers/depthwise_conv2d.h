#pragma once

#include "lamella/core/export.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// See Conv2dOptions; groups is always the number of input channels.
struct DepthwiseConv2dOptions {
  Size2 stride = 1;           ///< distance between windows
  Size2 padding = 0;          ///< zeros on each side
  Size2 dilation = 1;         ///< distance between taps
  bool same_padding = false;  ///< output as large as the input; see Conv2dOptions
};

/// 2-D convolution of each channel by itself: conv2d() with groups == C, by kernels of its own that run at
/// the speed of memory. Input [N,C,H,W], weight [C·m,1,kh,kw], bias [C·m] unless undefined; output channel
/// c·m + j comes from input channel c (m is the channel multiplier, 1 in MobileNets). The output has the
/// input's type and memory format. Weight and bias have the input's type, or float32 for a float16 or
/// bfloat16 input; sums are in float32 (float64 for float64). An empty batch is allowed. Throws ShapeError,
/// DTypeError or DeviceError naming the operands.
LAMELLA_API Tensor depthwise_conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias = Tensor(),
                                    const DepthwiseConv2dOptions& options = {});

}  // namespace lamella
