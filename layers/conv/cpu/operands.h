#pragma once

#include <utility>

#include "lamella/layers/conv_geometry.h"
#include "layers/dense.h"
#include "tensor/kernels/gemm.h"

/// The tensors of a convolution as operands of matrix products.
namespace lamella::cpu {

inline bool is_channels_last(const detail::ConstTensorView& input, const detail::ConstTensorView& output) {
  const auto dense = [](const detail::ConstTensorView& x) {
    return detail::is_dense(x.shape, x.strides, MemoryFormat::ChannelsLast);
  };
  return dense(input) && dense(output);
}

/// An image as matrices [channels of a group × pixels of an output row], batched over images, output rows and
/// groups.
inline detail::GemmOperand image_matrix(const detail::ConstTensorView& x, Size2 stride, std::int64_t groups) {
  const Strides& s = x.strides;
  return {x.data, x.dtype, s[1], s[3] * stride.w, {s[0], s[2] * stride.h, s[1] * (x.shape[1] / groups)}};
}

inline void set_target(detail::Gemm& g, const detail::GemmOperand& c) {
  g.c = const_cast<void*>(c.data);
  g.c_dtype = c.dtype;
  g.c_row = c.row;
  g.c_column = c.column;
  g.c_batch = c.batch;
}

inline detail::GemmOperand transposed(detail::GemmOperand x) {
  std::swap(x.row, x.column);
  return x;
}

}  // namespace lamella::cpu
