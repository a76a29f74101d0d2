#include "layers/pool/geometry.h"

#include "core/check.h"
#include "tensor/door.h"

namespace lamella::detail {

namespace {

std::int64_t output_size(const char* op, std::int64_t in, std::int64_t kernel, std::int64_t stride,
                         std::int64_t padding, std::int64_t dilation, bool ceil_mode) {
  LAMELLA_CHECK(ShapeError, kernel >= 1 && stride >= 1 && dilation >= 1, op, ": kernel ", kernel, ", stride ",
                stride, ", dilation ", dilation, "; each must be at least 1");
  LAMELLA_CHECK(ShapeError, padding >= 0 && padding <= kernel / 2, op, ": padding ", padding, " for kernel ",
                kernel, "; it must be in [0, kernel / 2]");
  if (!ceil_mode) return conv_output_size(op, in, kernel, stride, padding, dilation);
  // The ceiling of a quotient is the floor of one with stride − 1 more on top.
  std::int64_t longer = 0;
  LAMELLA_CHECK(ShapeError, !__builtin_add_overflow(in, stride - 1, &longer), op, ": stride ", stride,
                " exceeds what the output size can be computed with");
  const std::int64_t out = conv_output_size(op, longer, kernel, stride, padding, dilation);
  return (out - 1) * stride >= in + padding ? out - 1 : out;
}

}  // namespace

void check_pool_input(const char* op, const Tensor& x) {
  check_floating(op, "input", x);
  LAMELLA_CHECK(ShapeError, x.dim() == 4 && x.size(2) >= 1 && x.size(3) >= 1, op, ": input ", x.describe(),
                "; it must be [N,C,H,W] with H and W at least 1");
}

Pool2dGeometry make_pool2d_geometry(const char* op, const Tensor& x, Size2 kernel, Size2 stride,
                                    Size2 padding, Size2 dilation, bool ceil_mode) {
  Pool2dGeometry g;
  g.batch = x.size(0);
  g.channels = x.size(1);
  g.in = {x.size(2), x.size(3)};
  g.kernel = kernel;
  g.stride = stride;
  g.padding = padding;
  g.dilation = dilation;
  g.out.h = output_size(op, g.in.h, kernel.h, stride.h, padding.h, dilation.h, ceil_mode);
  g.out.w = output_size(op, g.in.w, kernel.w, stride.w, padding.w, dilation.w, ceil_mode);
  g.channels_last = x.memory_format() == MemoryFormat::ChannelsLast;
  return g;
}

}  // namespace lamella::detail
