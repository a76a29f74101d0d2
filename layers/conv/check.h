#pragma once

#include "lamella/layers/conv.h"

namespace lamella::detail {

/// Checks the operands of a convolution (defined, floating, one device, types that go together, bias of the
/// right size); messages start with `op`.
void check_conv_operands(const char* op, const Tensor& input, const Tensor& weight, const Tensor& bias);

/// Checks sizes and options. With same_padding the geometry's padding is that at the beginning, and `out`
/// counts one more at the end where needed.
Conv2dGeometry conv_geometry(const char* op, const Shape& input, const Shape& weight,
                             const Conv2dOptions& options);

}  // namespace lamella::detail
