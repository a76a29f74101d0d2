#include "layers/depthwise_conv2d/cuda/passes.h"
#include "layers/depthwise_conv2d/kernels.h"

// The passes with a transform of the input, statistics of the output, or sums of the input's gradient; and
// what all passes need before they run.
namespace lamella::cuda {
namespace {

using detail::ConstTensorView;
using detail::DepthwiseFusion;
using detail::GradientWrite;
using detail::TensorView;
using lamella::depthwise::Hook;
using lamella::depthwise::Transform;
using namespace depthwise;

Transform transform_of(const DepthwiseFusion& fusion) {
  return {fusion.scale, fusion.shift, fusion.low, fusion.high};
}

Operands forward_operands(const DepthwiseFusion& fusion, const ConstTensorView& input,
                          const ConstTensorView& weight, const ConstTensorView& bias,
                          const TensorView& output) {
  Operands operands;
  operands.input = input;
  operands.weight = weight;
  operands.bias = bias;
  operands.output = output;
  operands.transform = transform_of(fusion);
  if (fusion.mean != nullptr) operands.hook = Hook::Statistics;
  operands.results.mean = fusion.mean, operands.results.variance = fusion.variance;
  return operands;
}

/// Of the gradients that have a place to go to: `grad_input`, those of `to`, or both.
Operands gradient_operands(const DepthwiseFusion& fusion, const ConstTensorView& grad_output,
                           const ConstTensorView& input, const ConstTensorView& weight,
                           const TensorView& grad_input, GradientWrite write, const Parts* to) {
  Operands operands;
  operands.grad_output = grad_output;
  operands.to = to;
  const bool sums = grad_input.data != nullptr && fusion.sum != nullptr;
  if (to != nullptr || sums) {
    operands.input = input;
    operands.transform = transform_of(fusion);
  }
  if (grad_input.data == nullptr) return operands;
  operands.weight = weight;
  operands.grad_input = grad_input;
  operands.accumulate = write == GradientWrite::Accumulate;
  if (!sums) return operands;
  operands.hook = Hook::NormSums;
  operands.results.center = fusion.center;
  operands.results.sum = fusion.sum, operands.results.product = fusion.product;
  return operands;
}

Fused generic_of(const Conv2dGeometry& g, const Operands& operands) {
  Fused problem;
  problem.geometry = g;
  problem.geometry.dilation = dilation_of(g);
  problem.taps = tap_view(operands.weight);
  problem.transform = operands.transform;
  problem.results = operands.results;
  return problem;
}

Weighing weighing_of(const Conv2dGeometry& g, const DepthwiseFusion& fusion,
                     const ConstTensorView& grad_output, const ConstTensorView& input) {
  Weighing problem{g, input, grad_output, transform_of(fusion)};
  problem.geometry.dilation = dilation_of(g);
  return problem;
}

}  // namespace

void depthwise_conv2d_forward_fused(const Conv2dGeometry& g, const DepthwiseFusion& fusion,
                                    const ConstTensorView& input, const ConstTensorView& weight,
                                    const ConstTensorView& bias, const TensorView& output) {
  const Operands operands = forward_operands(fusion, input, weight, bias, output);
  if (g.batch > 0 && run_planned(g, operands)) return;
  Fused problem = generic_of(g, operands);
  problem.source = input;
  problem.target = output;
  if (bias.data != nullptr) {
    problem.taps.bias = bias.data;
    problem.taps.bias_type = bias.dtype;
    problem.taps.bias_step = bias.strides[0];
  }
  fused_generic(problem);
}

void depthwise_conv2d_backward_fused(const Conv2dGeometry& g, const DepthwiseFusion& fusion,
                                     const ConstTensorView& grad_output, const ConstTensorView& input,
                                     const ConstTensorView& weight, const TensorView& grad_input,
                                     GradientWrite input_write, const TensorView& grad_weight,
                                     GradientWrite weight_write, const TensorView& grad_bias,
                                     GradientWrite bias_write) {
  const bool weighs = grad_weight.data != nullptr || grad_bias.data != nullptr;
  const Parts to = parts_of(g, input.device, grad_weight, weight_write, grad_bias, bias_write);
  const auto operands_of = [&](const TensorView& dx, const Parts* parts) {
    return gradient_operands(fusion, grad_output, input, weight, dx, input_write, parts);
  };
  if (g.batch > 0 && grad_input.data != nullptr && weighs && run_planned(g, operands_of(grad_input, &to)))
    return;
  if (fusion.sum != nullptr) {
    const Operands operands = operands_of(grad_input, nullptr);
    if (g.batch == 0) {
      HookResults results;
      results.sum = fusion.sum, results.product = fusion.product;
      finish_norm_sums(nullptr, 0, g.in_channels, input.device, results);
    } else if (!run_planned(g, operands)) {
      Fused problem = generic_of(g, operands);
      problem.backward = true;
      problem.source = grad_output;
      problem.target = grad_input;
      problem.input = input;
      problem.accumulate = operands.accumulate;
      fused_generic(problem);
    }
  } else if (grad_input.data != nullptr) {
    depthwise_conv2d_backward_input(g, grad_output, weight, grad_input, input_write);
  }
  if (!weighs) return;
  if (g.batch == 0) return finish_parts(nullptr, 0, input.dtype, to);
  if (!run_planned(g, operands_of({}, &to))) weigh_generic(weighing_of(g, fusion, grad_output, input), to);
}

void depthwise_conv2d_prepare(const Conv2dGeometry& g, const DepthwiseFusion& fusion,
                              const ConstTensorView& input, const ConstTensorView& weight,
                              const TensorView& output, const ConstTensorView& grad_output,
                              const TensorView& grad_input, GradientWrite input_write,
                              const TensorView& grad_weight, const TensorView& grad_bias,
                              std::int64_t& workspace_bytes) {
  // What was taken of lent memory is aligned to as much, and is not given back between two passes.
  constexpr std::int64_t kAlignment = 256;
  workspace_bytes = 0;
  if (g.batch == 0) return;
  if (output.data != nullptr) {
    const auto bytes = planned_workspace(g, forward_operands(fusion, input, weight, {}, output));
    workspace_bytes = bytes.value_or(fusion.mean != nullptr ? fused_generic_workspace(g, false) : 0);
    return;
  }
  const bool weighs = grad_weight.data != nullptr || grad_bias.data != nullptr;
  const Parts to = parts_of(g, input.device, grad_weight, {}, grad_bias, {});
  const auto planned = [&](const TensorView& dx, const Parts* parts) {
    return planned_workspace(g,
                             gradient_operands(fusion, grad_output, input, weight, dx, input_write, parts));
  };
  if (grad_input.data != nullptr) {
    if (weighs) {
      if (const auto bytes = planned(grad_input, &to)) {
        workspace_bytes = *bytes;
        return;
      }
    }
    workspace_bytes =
        planned(grad_input, nullptr).value_or(fusion.sum != nullptr ? fused_generic_workspace(g, true) : 0);
  }
  if (!weighs) return;
  workspace_bytes =
      (workspace_bytes + kAlignment - 1) / kAlignment * kAlignment +
      planned({}, &to).value_or(weigh_generic_workspace(weighing_of(g, fusion, grad_output, input)));
}

}  // namespace lamella::cuda
