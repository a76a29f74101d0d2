#include "layers/depthwise_conv2d/cuda/passes.h"
#include "layers/depthwise_conv2d/kernels.h"
#include "tensor/dispatch.h"

namespace lamella::cuda {
namespace {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;
using namespace depthwise;

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
  const Parts to = parts_of(g, input.device, grad_weight, weight_write, grad_bias, bias_write);
  // Nothing to add up: zeros where the gradients are replaced.
  if (g.batch == 0) return finish_parts(nullptr, 0, input.dtype, to);
  Operands operands;
  operands.input = input;
  operands.grad_output = grad_output;
  operands.to = &to;
  if (run_planned(g, operands)) return;
  Weighing problem{g, input, grad_output, {}};
  problem.geometry.dilation = dilation_of(g);
  weigh_generic(problem, to);
}

void depthwise_conv2d_backward(const Conv2dGeometry& g, const ConstTensorView& grad_output,
                               const ConstTensorView& input, const ConstTensorView& weight,
                               const TensorView& grad_input, GradientWrite input_write,
                               const TensorView& grad_weight, GradientWrite weight_write,
                               const TensorView& grad_bias, GradientWrite bias_write) {
  if (grad_input.numel() > 0) {
    const Parts to = parts_of(g, input.device, grad_weight, weight_write, grad_bias, bias_write);
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

}  // namespace lamella::cuda
