#include "autograd/record.h"
#include "core/check.h"
#include "lamella/layers/norm.h"
#include "layers/dense.h"
#include "layers/norm/kernels.h"
#include "layers/norm/operands.h"

namespace lamella {

using namespace detail;

namespace {

bool ends_in(const Shape& shape, const Shape& tail) {
  if (tail.empty() || tail.size() > shape.size()) return false;
  for (int axis = 0; axis < tail.size(); ++axis)
    if (shape[shape.size() - tail.size() + axis] != tail[axis]) return false;
  return true;
}

}  // namespace

Tensor layer_norm(const Tensor& input, const Shape& normalized_shape, const Tensor& weight,
                  const Tensor& bias, double eps) {
  check_floating("layer_norm", "input", input);
  const std::int64_t size = normalized_shape.product();
  LAMELLA_CHECK(ShapeError, ends_in(input.shape(), normalized_shape) && size > 0, "layer_norm: input ",
                input.describe(), " must end in normalized_shape ", normalized_shape.to_string(),
                ", which must have elements");
  check_norm_parameter("layer_norm", "weight", weight, input, normalized_shape);
  check_norm_parameter("layer_norm", "bias", bias, input, normalized_shape);

  const Tensor x = input.contiguous();
  const Device device = x.device();
  const Tensor statistics = allocate({2, x.numel() / size}, DType::Float64, device);
  const Output y = Output::like(x);
  LAMELLA_KERNEL(device, layer_norm_forward(read(x), size, view_or_none(weight), view_or_none(bias), eps,
                                            y.write(), write(statistics, "layer_norm")));
  const Tensor result =
      record("layer_norm", {x, weight, bias}, y,
             [x = Saved(x), weight = Saved(weight), statistics, size](GradientContext& context) {
               const Tensor input = x.get(), w = weight.get(), grad = context.grad().contiguous();
               if (DenseTarget dx(context, 0, MemoryFormat::Contiguous); dx) {
                 LAMELLA_KERNEL(grad.device(),
                                layer_norm_backward_input(read(grad), read(input), size, view_or_none(w),
                                                          read(statistics), dx.view(), dx.write()));
                 dx.finish();
               }
               if (!context.needs(1) && !context.needs(2)) return;
               const Tensor sums = allocate({2, size}, DType::Float64, grad.device());
               LAMELLA_KERNEL(grad.device(),
                              layer_norm_backward_parameters(read(grad), read(input), size, read(statistics),
                                                             write(sums, "layer_norm")));
               write_parameter_gradients(context, sums);
             });
  return result.contiguous(input.memory_format());
}

}  // namespace lamella
