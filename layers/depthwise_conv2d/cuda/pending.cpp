#include "layers/depthwise_conv2d/pending.h"

#include "layers/depthwise_conv2d/cuda/run.h"
#include "layers/depthwise_conv2d/kernels.h"
#include "tensor/pending_transform.h"

namespace lamella::cuda {

using depthwise::Operands;
using depthwise::Parts;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PendingTransform;
using detail::PendingView;
using detail::TensorView;
using lamella::depthwise::Hook;
using lamella::depthwise::Transform;

namespace {

Transform as_load(const PendingTransform& of) { return {of.scale, of.shift, of.low, of.high, of.hardswish}; }

}  // namespace

void depthwise_conv2d_forward_pending(const Conv2dGeometry& geometry, const PendingView& input,
                                      const ConstTensorView& weight, const ConstTensorView& bias,
                                      const TensorView& output, detail::LeftParts* moments, bool& done) {
  done = false;
  const auto transform = detail::transform_of(input);
  if (!transform || output.numel() == 0) return;
  Operands o;
  o.input = input.stored, o.weight = weight, o.bias = bias, o.output = output;
  o.transform = as_load(*transform);
  if (moments != nullptr) o.hook = Hook::Statistics;
  o.results.left = moments;
  done = run_planned(geometry, o);
}

void depthwise_conv2d_backward_pending(const Conv2dGeometry& geometry, const ConstTensorView& grad_output,
                                       const PendingView& input, const ConstTensorView& weight,
                                       const TensorView& grad_input, GradientWrite input_write,
                                       detail::LeftParts* sums, const TensorView& grad_weight,
                                       GradientWrite weight_write, const TensorView& grad_bias,
                                       GradientWrite bias_write, detail::GradientParts* parts, bool& done,
                                       bool& summed) {
  done = summed = false;
  const auto transform = detail::transform_of(input);
  if (!transform || geometry.batch == 0) return;
  Parts to;
  to.device = grad_output.device;
  to.channels = geometry.out_channels;
  to.kernel = geometry.kernel;
  to.weight = grad_weight, to.bias = grad_bias;
  to.add_weight = weight_write == GradientWrite::Accumulate;
  to.add_bias = bias_write == GradientWrite::Accumulate;
  to.left = parts;
  Operands both;
  both.input = input.stored, both.weight = weight, both.grad_output = grad_output;
  both.grad_input = grad_input;
  both.accumulate = input_write == GradientWrite::Accumulate;
  both.to = &to;
  both.transform = as_load(*transform);
  if (sums != nullptr) {
    both.hook = Hook::NormSums;
    both.results.center = static_cast<const float*>(input.center);
    both.results.left = sums;
  }
  if (grad_input.data != nullptr && run_planned(geometry, both)) {
    done = true;
    summed = sums != nullptr;
    return;
  }
  // One after the other. Only the weight's gradient needs the input's values, so it goes first: where it
  // cannot fold them, nothing has been written.
  Operands weights = both;
  weights.grad_input = {};
  weights.accumulate = false;
  weights.hook = Hook::None;
  if (!run_planned(geometry, weights)) return;
  done = true;
  if (grad_input.data == nullptr) return;
  both.to = nullptr;
  summed = sums != nullptr && run_planned(geometry, both);
  if (!summed) depthwise_conv2d_backward_input(geometry, grad_output, weight, grad_input, input_write);
}

}  // namespace lamella::cuda
