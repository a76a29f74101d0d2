#include "autograd/autocast.h"
#include "autograd/record.h"
#include "lamella/layers/conv.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "layers/conv/check.h"
#include "layers/conv/kernels.h"
#include "layers/dense.h"
#include "tensor/dispatch.h"

namespace lamella {

using detail::ConstTensorView;
using detail::DenseTarget;
using detail::GradientContext;
using detail::GradientTarget;
using detail::Output;
using detail::read;
using detail::Saved;

Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  constexpr const char* kName = "conv2d";
  detail::check_conv_operands(kName, input, weight, bias);
  const Conv2dGeometry geometry = detail::conv_geometry(kName, input.shape(), weight.shape(), options);
  if (geometry.is_depthwise() && geometry.groups > 1)
    return depthwise_conv2d(input, weight, bias,
                            {options.stride, options.padding, options.dilation, options.same_padding});
  const Tensor x = detail::as_dense(detail::lowered(input)), w = detail::lowered_parameter(x, weight);
  const MemoryFormat format = x.memory_format();
  const Output y(geometry.output_shape(), x.dtype(), x.device(), format);
  LAMELLA_KERNEL(x.device(), conv2d_forward(geometry, read(x), read(w),
                                            bias.defined() ? read(bias) : ConstTensorView{}, y.write()));
  return detail::record(
      kName, {x, weight, bias}, y,
      [geometry, format, x = Saved::when(detail::wants_gradient(weight), x),
       weight = Saved::when(detail::wants_gradient(x), w)](GradientContext& context) {
        const Tensor grad = context.grad().contiguous(format);
        if (DenseTarget dx(context, 0, format); dx) {
          LAMELLA_KERNEL(grad.device(), conv2d_backward_input(geometry, read(grad), read(weight.get()),
                                                              dx.view(), dx.write()));
          dx.finish();
        }
        const bool with_weight = context.needs(1), with_bias = context.needs(2);
        if (!with_weight && !with_bias) return;
        const GradientTarget dw = context.target(1), db = context.target(2);
        LAMELLA_KERNEL(grad.device(), conv2d_backward_weight(geometry, read(grad),
                                                             with_weight ? read(x.get()) : ConstTensorView{},
                                                             dw.view, dw.write, db.view, db.write));
      });
}

}  // namespace lamella
