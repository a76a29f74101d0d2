#include "autograd/record.h"
#include "core/check.h"
#include "lamella/layers/pool.h"
#include "layers/dense.h"
#include "layers/pool/kernels.h"
#include "layers/squeeze_excite/squeeze_excite.h"

namespace lamella {

using namespace detail;

namespace {

Tensor average(const char* op, const Tensor& x, const Pool2dGeometry& geometry) {
  const Output y({geometry.batch, geometry.channels, geometry.out.h, geometry.out.w}, x.dtype(), x.device(),
                 x.memory_format());
  LAMELLA_KERNEL(x.device(), avg_pool2d_forward(read(x), geometry, y.write()));
  return record(op, {x}, y, [geometry, format = x.memory_format()](GradientContext& context) {
    const Tensor grad = context.grad().contiguous(format);
    DenseTarget dx(context, 0, format);
    LAMELLA_KERNEL(grad.device(), avg_pool2d_backward(read(grad), geometry, dx.view(), dx.write()));
    dx.finish();
  });
}

}  // namespace

Tensor avg_pool2d(const Tensor& input, const AvgPool2dOptions& options) {
  check_pool_input("avg_pool2d", input);
  const Tensor x = as_dense(input);
  Pool2dGeometry geometry =
      make_pool2d_geometry("avg_pool2d", x, options.kernel, options.stride.value_or(options.kernel),
                           options.padding, 1, options.ceil_mode);
  geometry.count_include_pad = options.count_include_pad;
  return average("avg_pool2d", x, geometry);
}

Tensor adaptive_avg_pool2d(const Tensor& input, Size2 output) {
  check_pool_input("adaptive_avg_pool2d", input);
  LAMELLA_CHECK(ShapeError, output.h >= 1 && output.w >= 1, "adaptive_avg_pool2d: output size ", output.h,
                " x ", output.w, " for input ", input.describe(), "; both must be at least 1");
  const Tensor x = as_dense(input);
  // With what the input owes, as the end of a network has it.
  if (output == Size2(1) && is_pending(x) && can_squeeze(x)) return plane_means("adaptive_avg_pool2d", x);
  Pool2dGeometry geometry;
  geometry.batch = x.size(0);
  geometry.channels = x.size(1);
  geometry.in = {x.size(2), x.size(3)};
  geometry.out = output;
  geometry.adaptive = true;
  geometry.channels_last = x.memory_format() == MemoryFormat::ChannelsLast;
  return average("adaptive_avg_pool2d", x, geometry);
}

}  // namespace lamella
