#pragma once

#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/tensor.h"

namespace lamella::detail {

/// One 2-D pooling, validated, for kernels by value.
struct Pool2dGeometry {
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  Size2 in;
  Size2 out;
  Size2 kernel;
  Size2 stride{1};
  Size2 padding{0};
  Size2 dilation{1};
  bool count_include_pad = true;  ///< of averages
  bool adaptive = false;          ///< windows come from in and out alone; kernel … dilation mean nothing
  bool channels_last = false;     ///< of input and output, both dense
};

/// Throws ShapeError or DTypeError naming `op` unless x is a floating [N,C,H,W].
void check_pool_input(const char* op, const Tensor& x);

/// Checks sizes and computes `out`; `x` must be dense.
Pool2dGeometry make_pool2d_geometry(const char* op, const Tensor& x, Size2 kernel, Size2 stride,
                                    Size2 padding, Size2 dilation, bool ceil_mode);

}  // namespace lamella::detail
