#include <limits>

#include "autograd/record.h"
#include "lamella/layers/pool.h"
#include "layers/dense.h"
#include "layers/pool/kernels.h"

namespace lamella {

using namespace detail;

Tensor max_pool2d(const Tensor& input, const MaxPool2dOptions& options) {
  check_pool_input("max_pool2d", input);
  const Tensor x = as_dense(input);
  const Pool2dGeometry geometry =
      make_pool2d_geometry("max_pool2d", x, options.kernel, options.stride.value_or(options.kernel),
                           options.padding, options.dilation, options.ceil_mode);
  const MemoryFormat format = x.memory_format();
  const Output y({geometry.batch, geometry.channels, geometry.out.h, geometry.out.w}, x.dtype(), x.device(),
                 format);
  Tensor positions;  // only the gradient reads them
  if (wants_gradient(x)) {
    const bool narrow = geometry.in.h * geometry.in.w <= std::numeric_limits<std::int32_t>::max();
    positions = allocate(y.unrecorded().shape(), narrow ? DType::Int32 : DType::Int64, x.device(), format);
  }
  const TensorView to = positions.defined() ? write(positions, "max_pool2d") : TensorView{};
  LAMELLA_KERNEL(x.device(), max_pool2d_forward(read(x), geometry, y.write(), to));
  return record("max_pool2d", {x}, y, [positions, geometry, format](GradientContext& context) {
    const Tensor grad = context.grad().contiguous(format);
    DenseTarget dx(context, 0, format);
    LAMELLA_KERNEL(grad.device(),
                   max_pool2d_backward(read(grad), read(positions), geometry, dx.view(), dx.write()));
    dx.finish();
  });
}

}  // namespace lamella
