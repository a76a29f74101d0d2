#include "autograd/record.h"
#include "core/check.h"
#include "lamella/layers/norm.h"
#include "layers/dense.h"
#include "layers/norm/kernels.h"
#include "layers/norm/operands.h"
#include "tensor/kernels/copy.h"

namespace lamella {

using namespace detail;

Tensor group_norm(const Tensor& input, std::int64_t groups, const Tensor& weight, const Tensor& bias,
                  double eps) {
  check_floating("group_norm", "input", input);
  LAMELLA_CHECK(ShapeError, input.dim() >= 2, "group_norm: input ", input.describe(),
                "; it must be [N,C] or [N,C,...]");
  LAMELLA_CHECK(ShapeError, groups >= 1 && input.size(1) % groups == 0 && input.size(1) > 0,
                "group_norm: ", groups, " groups for the ", input.size(1), " channels of input ",
                input.describe(), "; it must divide them");
  check_norm_parameter("group_norm", "weight", weight, input, {input.size(1)});
  check_norm_parameter("group_norm", "bias", bias, input, {input.size(1)});

  const Tensor x = as_dense(input);
  const Device device = x.device();
  const ChannelLayout layout = channel_layout(x.shape(), x.memory_format(), true);
  const Tensor statistics = allocate({2, layout.segments, groups}, DType::Float64, device);
  const Output y = Output::like(x);
  const bool empty = x.numel() == 0;  // the kernels divide by the number of elements
  if (!empty)
    LAMELLA_KERNEL(device,
                   group_norm_forward(read(x), layout, groups, view_or_none(weight), view_or_none(bias), eps,
                                      y.write(), write(statistics, "group_norm")));
  return record(
      "group_norm", {x, weight, bias}, y,
      [x = Saved(x), weight = Saved(weight), statistics, layout, groups, empty](GradientContext& context) {
        const Tensor input = x.get(), w = weight.get();
        const MemoryFormat format = input.memory_format();
        const Tensor grad = context.grad().contiguous(format);
        const Tensor sums = allocate({2, layout.channels}, DType::Float64, grad.device());
        DenseTarget dx(context, 0, format);
        if (empty)
          LAMELLA_KERNEL(grad.device(), fill(write(sums, "group_norm"), 0));
        else
          LAMELLA_KERNEL(
              grad.device(),
              group_norm_backward(read(grad), read(input), layout, groups, view_or_none(w), read(statistics),
                                  write(sums, "group_norm"), dx.view(), dx.write()));
        dx.finish();
        write_parameter_gradients(context, sums);
      });
}

}  // namespace lamella
