#include "lamella/layers/depthwise_conv2d.h"

#include "autograd/autocast.h"
#include "autograd/record.h"
#include "core/check.h"
#include "layers/back_through.h"
#include "layers/conv/check.h"
#include "layers/depthwise_conv2d/kernels.h"
#include "layers/depthwise_conv2d/pending.h"
#include "tensor/dispatch.h"
#include "tensor/moments.h"

namespace lamella {

using detail::ConstTensorView;
using detail::GradientContext;
using detail::GradientTarget;
using detail::GradientWrite;
using detail::Output;
using detail::read;
using detail::read_pending;
using detail::Saved;

namespace {

constexpr const char* kName = "depthwise_conv2d";

void check_channels(const Tensor& input, const Tensor& weight) {
  const auto operands = [&] {
    return detail::concat(" (input ", input.describe(), ", weight ", weight.shape().to_string(), ")");
  };
  LAMELLA_CHECK(ShapeError, input.dim() == 4, kName, ": input must have 4 axes [N,C,H,W], has ", input.dim(),
                operands());
  LAMELLA_CHECK(ShapeError, weight.dim() == 4, kName, ": weight must have 4 axes [C*m,1,kh,kw], has ",
                weight.dim(), operands());
  LAMELLA_CHECK(ShapeError, input.size(1) >= 1, kName, ": input needs at least 1 channel", operands());
  LAMELLA_CHECK(ShapeError, weight.size(0) >= 1 && weight.size(0) % input.size(1) == 0, kName,
                ": weight has ", weight.size(0), " channels but input has ", input.size(1), operands());
  LAMELLA_CHECK(ShapeError, weight.size(1) == 1, kName, ": weight takes ", weight.size(1),
                " input channels for each output channel, must be 1", operands());
}

/// Whether there may be kernels that fold a pending input.
bool folds(const Tensor& x) { return x.device().is_cuda() && x.dtype() != DType::Float64; }

/// Gradients of weight and bias, and of the input if it wants one.
void backward_of(const Conv2dGeometry& geometry, const Tensor& grad, const Tensor& x, const Tensor& weight,
                 const GradientTarget& dx, const GradientTarget& dw, const GradientTarget& db) {
  if (dx)
    LAMELLA_KERNEL(grad.device(),
                   depthwise_conv2d_backward(geometry, read(grad), read(x), read(weight), dx.view, dx.write,
                                             dw.view, dw.write, db.view, db.write));
  else
    LAMELLA_KERNEL(grad.device(), depthwise_conv2d_backward_weight(geometry, read(grad), read(x), dw.view,
                                                                   dw.write, db.view, db.write));
}

}  // namespace

Tensor depthwise_conv2d(const Tensor& given, const Tensor& weight, const Tensor& bias,
                        const DepthwiseConv2dOptions& options) {
  detail::check_floating(kName, "input", given);
  detail::check_floating(kName, "weight", weight);
  check_channels(given, weight);
  detail::check_conv_operands(kName, given, weight, bias);
  const Tensor input = detail::lowered(given), w = detail::lowered_parameter(input, weight);
  const Conv2dGeometry geometry = detail::conv_geometry(
      kName, input.shape(), weight.shape(),
      {options.stride, options.padding, options.dilation, input.size(1), options.same_padding});
  const Output y(geometry.output_shape(), input.dtype(), input.device(), input.memory_format());
  const ConstTensorView b = bias.defined() ? read(bias) : ConstTensorView{};
  const bool with_moments = detail::take_moments_request(), owes = detail::is_pending(input);
  bool done = false;
  if (folds(input) && (with_moments || owes)) {
    detail::LeftParts moments(input.device(), geometry.out_channels);
    LAMELLA_KERNEL(input.device(),
                   depthwise_conv2d_forward_pending(geometry, read_pending(input), read(w), b, y.write(),
                                                    with_moments ? &moments : nullptr, done));
    if (done && with_moments) detail::leave_moments(y.unrecorded(), moments);
    if (done && owes) detail::count_folded();
  }
  if (!done)
    LAMELLA_KERNEL(input.device(), depthwise_conv2d_forward(geometry, read(input), read(w), b, y.write()));
  return detail::record(
      kName, {input, weight, bias}, y,
      [geometry, input = Saved::when(detail::wants_gradient(weight) || detail::wants_gradient(bias), input),
       weight = Saved::when(detail::wants_gradient(input), w)](GradientContext& context) {
        const Tensor& grad = context.grad();
        const GradientTarget dx = context.target(0);
        const Tensor x = input.get();
        if (x.defined() && detail::is_pending(x) && folds(x)) {
          const bool with_sums = dx && detail::may_leave_sums(context, 0, x, dx.write);
          detail::LeftParts sums(grad.device(), geometry.in_channels);
          const bool in_parts = !context.needs(2) && context.takes_parts(1);
          detail::GradientParts parts(grad.device());
          GradientTarget dw, db;
          bool done = false, summed = false;
          if (!in_parts) dw = context.target(1), db = context.target(2);
          LAMELLA_KERNEL(grad.device(), depthwise_conv2d_backward_pending(
                                            geometry, read(grad), read_pending(x),
                                            dx ? read(weight.get()) : ConstTensorView{}, dx.view, dx.write,
                                            with_sums ? &sums : nullptr, dw.view, dw.write, db.view, db.write,
                                            in_parts ? &parts : nullptr, done, summed));
          if (done && in_parts) context.add_parts(1, parts);
          if (!done && in_parts) dw = context.target(1);
          if (summed) context.leave_sums(0, sums.tensor());
          if (done) return;
          backward_of(geometry, grad, x, weight.get(), dx, dw, db);
          return;
        }
        if (!context.needs(1) && !context.needs(2)) {
          if (dx)
            LAMELLA_KERNEL(grad.device(), depthwise_conv2d_backward_input(
                                              geometry, read(grad), read(weight.get()), dx.view, dx.write));
          return;
        }
        const GradientTarget dw = context.target(1), db = context.target(2);
        backward_of(geometry, grad, x, weight.get(), dx, dw, db);
      });
}

}  // namespace lamella
