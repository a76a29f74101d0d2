#include "layers/norm/operands.h"

#include "core/check.h"
#include "layers/norm/kernels.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"

namespace lamella::detail {

void check_norm_parameter(const char* op, const char* what, const Tensor& parameter, const Tensor& x,
                          const Shape& shape) {
  if (!parameter.defined()) return;
  LAMELLA_CHECK(ShapeError, parameter.shape() == shape, op, ": ", what, ' ', parameter.describe(),
                " for input ", x.describe(), "; it must be ", shape.to_string());
  const bool half = size_of(x.dtype()) == 2;
  LAMELLA_CHECK(DTypeError, parameter.dtype() == x.dtype() || (half && parameter.dtype() == DType::Float32),
                op, ": ", what, ' ', parameter.describe(), " for input ", x.describe(), "; it must be ",
                name(x.dtype()), half ? " or float32" : "");
  check_same_device(op, x, parameter);
}

ConstTensorView view_or_none(const Tensor& tensor) {
  return tensor.defined() ? read(tensor) : ConstTensorView{};
}

void write_parameter_gradients(GradientContext& context, const Tensor& sums) {
  for (const int i : {1, 2}) {
    if (!context.needs(i)) continue;
    const Tensor row = sums.select(0, 2 - i);
    const GradientTarget to = context.target(i);
    LAMELLA_KERNEL(to.view.device, write_parameter_gradient(read(row), to.view, to.write));
  }
}

}  // namespace lamella::detail
