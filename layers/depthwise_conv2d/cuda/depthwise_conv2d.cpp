#include "layers/depthwise_conv2d/cuda/problem.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "layers/depthwise_conv2d/kernels.h"
#include "tensor/dispatch.h"

namespace lamella::cuda {
namespace {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;
using namespace depthwise;

TapView tap_view(const ConstTensorView& weight) {
  TapView view;
  view.taps = weight.data;
  view.taps_type = weight.dtype;
  view.channel = weight.strides[0];
  view.row = weight.strides[2];
  view.column = weight.strides[3];
  return view;
}

/// The distance between the taps of an axis that has one does not matter; a one lets the fast paths in.
Size2 dilation_of(const Conv2dGeometry& g) {
  return {g.kernel.h == 1 ? 1 : g.dilation.h, g.kernel.w == 1 ? 1 : g.dilation.w};
}

Parts parts_of(const Conv2dGeometry& g, const ConstTensorView& input, const TensorView& grad_weight,
               GradientWrite weight_write, const TensorView& grad_bias, GradientWrite bias_write) {
  Parts to;
  to.device = input.device;
  to.channels = g.out_channels;
  to.kernel = g.kernel;
  to.weight = grad_weight;
  to.bias = grad_bias;
  to.add_weight = weight_write == GradientWrite::Accumulate;
  to.add_bias = bias_write == GradientWrite::Accumulate;
  return to;
}

void correlate(const Correlation& problem) {
  if (problem.target.numel() == 0) return;
  correlate_generic(problem);
}

}  // namespace

void depthwise_conv2d_forward(const Conv2dGeometry& g, const ConstTensorView& input,
                              const ConstTensorView& weight, const ConstTensorView& bias,
                              const TensorView& output) {
  Operands operands;
  operands.input = input;
  operands.weight = weight;
  operands.bias = bias;
  operands.output = output;
  if (output.numel() > 0 && run_planned(g, operands)) return;
  Correlation problem;
  problem.source = input;
  problem.target = output;
  problem.taps = tap_view(weight);
  if (bias.data != nullptr) {
    problem.taps.bias = bias.data;
    problem.taps.bias_type = bias.dtype;
    problem.taps.bias_step = bias.strides[0];
  }
  problem.kernel = g.kernel;
  problem.stride = g.stride;
  problem.padding = g.padding;
  problem.dilation = dilation_of(g);
  problem.repeat = g.multiplier();
  correlate(problem);
}

// At stride 1 a forward with the kernel turned by half a turn.
void depthwise_conv2d_backward_input(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                                     const ConstTensorView& weight, const TensorView& grad_input,
                                     GradientWrite write) {
  Operands operands;
  operands.weight = weight;
  operands.grad_output = grad_output;
  operands.grad_input = grad_input;
  operands.accumulate = write == GradientWrite::Accumulate;
  if (grad_input.numel() > 0 && run_planned(g, operands)) return;
  Correlation problem;
  problem.source = grad_output;
  problem.target = grad_input;
  problem.taps = tap_view(weight);
  problem.kernel = g.kernel;
  problem.stride = g.stride;
  problem.padding = g.padding;
  problem.dilation = dilation_of(g);
  problem.reduce = g.multiplier();
  problem.accumulate = write == GradientWrite::Accumulate;
  problem.scatters = true;
  if (g.stride == Size2(1) && problem.reduce == 1) {
    problem.scatters = false;
    problem.padding = {(g.kernel.h - 1) * problem.dilation.h - g.padding.h,
                       (g.kernel.w - 1) * problem.dilation.w - g.padding.w};
    const std::int64_t last = (g.kernel.h - 1) * problem.taps.row + (g.kernel.w - 1) * problem.taps.column;
    problem.taps.taps =
        static_cast<const char*>(weight.data) + last * static_cast<std::int64_t>(size_of(weight.dtype));
    problem.taps.row = -problem.taps.row;
    problem.taps.column = -problem.taps.column;
  }
  correlate(problem);
}

void depthwise_conv2d_backward_weight(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                                      const ConstTensorView& input, const TensorView& grad_weight,
                                      GradientWrite weight_write, const TensorView& grad_bias,
                                      GradientWrite bias_write) {
  if (grad_weight.data == nullptr && grad_bias.data == nullptr) return;
  const Parts to = parts_of(g, input, grad_weight, weight_write, grad_bias, bias_write);
  // Nothing to add up: zeros where the gradients are replaced.
  if (g.batch == 0) return finish_parts(nullptr, 0, input.dtype, to);
  Operands operands;
  operands.input = input;
  operands.grad_output = grad_output;
  operands.to = &to;
  if (run_planned(g, operands)) return;
  Weighing problem{g, input, grad_output};
  problem.geometry.dilation = dilation_of(g);
  weigh_generic(problem, to);
}

void depthwise_conv2d_backward(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                               const ConstTensorView& input, const ConstTensorView& weight,
                               const TensorView& grad_input, GradientWrite input_write,
                               const TensorView& grad_weight, GradientWrite weight_write,
                               const TensorView& grad_bias, GradientWrite bias_write) {
  if (grad_input.numel() > 0) {
    const Parts to = parts_of(g, input, grad_weight, weight_write, grad_bias, bias_write);
    Operands operands;
    operands.input = input;
    operands.weight = weight;
    operands.grad_output = grad_output;
    operands.grad_input = grad_input;
    operands.accumulate = input_write == GradientWrite::Accumulate;
    operands.to = &to;
    if (run_planned(g, operands)) return;
  }
  depthwise_conv2d_backward_input(g, grad_output, weight, grad_input, input_write);
  depthwise_conv2d_backward_weight(g, grad_output, input, grad_weight, weight_write, grad_bias, bias_write);
}

void depthwise_conv2d_prepare(const Conv2dGeometry& g, const ConstTensorView& input,
                              const ConstTensorView& weight, const TensorView& output,
                              const ConstTensorView& grad_output, const TensorView& grad_input,
                              GradientWrite input_write, const TensorView& grad_weight,
                              const TensorView& grad_bias, std::int64_t& workspace_bytes) {
  workspace_bytes = 0;
  if (g.batch == 0) return;
  Operands operands;
  operands.weight = weight;
  if (output.data != nullptr) {
    operands.input = input;
    operands.output = output;
    planned_workspace(g, operands);
    return;
  }
  operands.grad_output = grad_output;
  operands.grad_input = grad_input;
  operands.accumulate = input_write == GradientWrite::Accumulate;
  const bool weighs = grad_weight.data != nullptr || grad_bias.data != nullptr;
  if (!weighs) {
    if (grad_input.data != nullptr) planned_workspace(g, operands);
    return;
  }
  const Parts to = parts_of(g, input, grad_weight, {}, grad_bias, {});
  operands.input = input;
  if (grad_input.data != nullptr) {
    operands.to = &to;
    if (const auto bytes = planned_workspace(g, operands)) {
      workspace_bytes = *bytes;
      return;
    }
    Operands alone = operands;
    alone.to = nullptr;
    planned_workspace(g, alone);
  }
  Operands sums;
  sums.input = input;
  sums.grad_output = grad_output;
  sums.to = &to;
  Weighing generic{g, input, grad_output};
  generic.geometry.dilation = dilation_of(g);
  workspace_bytes = planned_workspace(g, sums).value_or(weigh_generic_workspace(generic));
}

}  // namespace lamella::cuda
