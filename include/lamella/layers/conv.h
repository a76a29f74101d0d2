#pragma once

#include <cstdint>

#include "lamella/core/export.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// How a 2-D convolution walks over its input. A single number serves both height and width.
struct Conv2dOptions {
  Size2 stride = 1;         ///< distance between windows
  Size2 padding = 0;        ///< zeros on each side
  Size2 dilation = 1;       ///< distance between taps
  std::int64_t groups = 1;  ///< input channels i·C/groups … only reach output channels i·O/groups …
  /// Pads so that the output is as large as the input, as PyTorch's padding='same': dilation · (kernel − 1)
  /// zeros in all, half of them on each side and an odd one at the end (bottom, right). For stride 1 and
  /// padding 0 only.
  bool same_padding = false;
};

/// 2-D convolution (cross-correlation, as in all deep-learning frameworks) of input [N,C,H,W] with weight
/// [O,C/groups,kh,kw], plus bias [O] unless undefined:
///
///   output[n,o,y,x] = bias[o] + Σ_{c,i,j} weight[o,c,i,j]
///                     · input[n, first(o) + c, y·s_h − p_h + i·d_h, x·s_w − p_w + j·d_w]
///
/// with zeros outside the input; see conv_output_size() for the output's size. The output has the input's
/// type and memory format. Weight and bias have the input's type, or float32 for a float16 or bfloat16 input;
/// sums are in float32 (float64 for float64). groups == C goes to depthwise_conv2d() if C is above 1. An
/// empty batch is allowed. Throws ShapeError, DTypeError or DeviceError naming the operands.
LAMELLA_API Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias = Tensor(),
                          const Conv2dOptions& options = {});

}  // namespace lamella
