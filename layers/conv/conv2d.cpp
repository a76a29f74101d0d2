#include <optional>

#include "autograd/autocast.h"
#include "autograd/record.h"
#include "lamella/layers/conv.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "layers/back_through.h"
#include "layers/conv/check.h"
#include "layers/conv/few_channels.h"
#include "layers/conv/kernels.h"
#include "layers/conv/pending.h"
#include "layers/dense.h"
#include "tensor/dispatch.h"
#include "tensor/moments.h"

namespace lamella {

using detail::ConstTensorView;
using detail::DenseTarget;
using detail::GradientContext;
using detail::GradientTarget;
using detail::GradientWrite;
using detail::Output;
using detail::read;
using detail::read_pending;
using detail::Saved;

namespace {

constexpr const char* kName = "conv2d";

/// Whether there may be kernels that fold a pending input: for 1x1 convolutions in sixteen bits, channels
/// last, of a GPU.
bool folds(const Conv2dGeometry& g, const Tensor& x) {
  return x.device().is_cuda() && size_of(x.dtype()) == 2 && x.memory_format() == MemoryFormat::ChannelsLast &&
         g.kernel == Size2(1) && g.groups == 1;
}

/// The same for those that read an image of few channels, in float32, too, which Autocast would round first.
/// The type of the result; none: no kernel.
std::optional<DType> reads_few(const Conv2dGeometry& g, const Tensor& x) {
  if (!x.device().is_cuda() || !detail::fusion_enabled() || g.batch == 0 || g.groups != 1 ||
      g.in_channels > detail::kFewChannels || x.memory_format() != MemoryFormat::ChannelsLast ||
      detail::is_pending(x))
    return std::nullopt;
  if (size_of(x.dtype()) == 2) return x.dtype();
  if (x.dtype() != DType::Float32) return std::nullopt;
  const std::optional<DType> rounded = autocast_dtype();
  if (!rounded) return DType::Float32;
  // A gradient of the image goes by way of the rounded one.
  return detail::wants_gradient(x) ? std::nullopt : rounded;
}

}  // namespace

Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  detail::check_conv_operands(kName, input, weight, bias);
  const Conv2dGeometry geometry = detail::conv_geometry(kName, input.shape(), weight.shape(), options);
  if (geometry.is_depthwise() && geometry.groups > 1)
    return depthwise_conv2d(input, weight, bias,
                            {options.stride, options.padding, options.dilation, options.same_padding});
  const std::optional<DType> of_few = reads_few(geometry, input);
  Tensor x = of_few ? input : detail::as_dense(detail::lowered(input)),
         w = detail::lowered_parameter(x, weight);
  const MemoryFormat format = x.memory_format();
  const Output y(geometry.output_shape(), of_few.value_or(x.dtype()), x.device(), format);
  const ConstTensorView b = bias.defined() ? read(bias) : ConstTensorView{};
  const bool with_moments = detail::take_moments_request(), owes = detail::is_pending(x);
  // Without Autocast a float32 weight is not rounded.
  bool few = of_few && (w.dtype() == *of_few || *of_few != x.dtype());
  bool done = false;
  if (few || (folds(geometry, x) && (with_moments || owes))) {
    detail::LeftParts moments(x.device(), geometry.out_channels);
    LAMELLA_KERNEL(x.device(), conv2d_forward_pending(geometry, read_pending(x), read(w), b, y.write(),
                                                      with_moments ? &moments : nullptr, done));
    if (done && with_moments) detail::leave_moments(y.unrecorded(), moments);
    if (done && owes) detail::count_folded();
  }
  few = few && done;
  if (!done) {
    if (of_few && *of_few != x.dtype()) x = detail::lowered(x), w = detail::lowered_parameter(x, weight);
    LAMELLA_KERNEL(x.device(), conv2d_forward(geometry, read(x), read(w), b, y.write()));
  }
  return detail::record(
      kName, {x, weight, bias}, y,
      [geometry, format, few, fuses = detail::fusion_enabled(),
       x = Saved::when(detail::wants_gradient(weight), x),
       weight = Saved::when(detail::wants_gradient(x), w)](GradientContext& context) {
        const Tensor grad = context.grad().contiguous(format), input = x.get();
        const bool owes = input.defined() && detail::is_pending(input) && folds(geometry, input);
        bool done = false;
        if (DenseTarget dx(context, 0, format); dx) {
          if (owes && detail::may_leave_sums(context, 0, input, dx.write())) {
            detail::LeftParts sums(grad.device(), geometry.in_channels);
            LAMELLA_KERNEL(grad.device(),
                           conv2d_backward_input_pending(geometry, read(grad), read(weight.get()),
                                                         read_pending(input), dx.view(), sums, done));
            if (done) context.leave_sums(0, sums.tensor());
          }
          if (!done)
            LAMELLA_KERNEL(grad.device(), conv2d_backward_input(geometry, read(grad), read(weight.get()),
                                                                dx.view(), dx.write()));
          dx.finish();
        }
        const bool with_weight = context.needs(1), with_bias = context.needs(2);
        if (!with_weight && !with_bias) return;
        done = false;
        // Of an input that owes nothing, too: the kernels are faster than cuBLAS, and leave their parts.
        const bool weighs = with_weight && (few || owes || (fuses && folds(geometry, input)));
        if (weighs && !with_bias && context.takes_parts(1)) {
          detail::GradientParts parts(grad.device());
          const ConstTensorView g = read(grad);
          const detail::PendingView a = read_pending(input);
          context.beside(1, {grad, input}, [&] {
            LAMELLA_KERNEL(grad.device(),
                           conv2d_backward_weight_pending(geometry, g, a, {}, {}, {}, {}, &parts, done));
          });
          if (done) return context.add_parts(1, parts);
        }
        const GradientTarget dw = context.target(1), db = context.target(2);
        if (weighs)
          LAMELLA_KERNEL(grad.device(),
                         conv2d_backward_weight_pending(geometry, read(grad), read_pending(input), dw.view,
                                                        dw.write, db.view, db.write, nullptr, done));
        if (done) return;
        const Tensor rounded = with_weight && few ? input.to(grad.dtype()) : input;
        LAMELLA_KERNEL(grad.device(), conv2d_backward_weight(geometry, read(grad),
                                                             with_weight ? read(rounded) : ConstTensorView{},
                                                             dw.view, dw.write, db.view, db.write));
      });
}

}  // namespace lamella
