#include "layers/conv/pending.h"

#include "layers/conv/cuda/pointwise/pointwise.h"
#include "layers/conv/cuda/results.h"
#include "layers/conv/cuda/stem/stem.h"
#include "layers/conv/few_channels.h"
#include "tensor/pending_transform.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::PendingActivation;
using detail::PendingTransform;
using detail::PendingView;
using detail::TensorView;

namespace {

bool is_pointwise(const Conv2dGeometry& g) {
  return g.batch > 0 && g.groups == 1 && g.kernel == Size2(1) && g.stride == Size2(1) &&
         g.padding == Size2(0) && g.in == g.out;
}

bool has_few_channels(const Conv2dGeometry& g) {
  return g.batch > 0 && g.groups == 1 && g.in_channels <= detail::kFewChannels;
}

bool is_plain(const PendingView& input) {
  return input.scale == nullptr && input.shift == nullptr && input.activation == PendingActivation::None;
}

pointwise::Transform as_load(const PendingTransform& of) {
  pointwise::Transform t;
  if (of.scale == nullptr) return t;
  t.scale = of.scale, t.shift = of.shift, t.low = of.low, t.high = of.high;
  t.load = of.hardswish ? pointwise::Load::HardSwish : pointwise::Load::Clamp;
  return t;
}

}  // namespace

void conv2d_forward_pending(const Conv2dGeometry& geometry, const PendingView& input,
                            const ConstTensorView& weight, const ConstTensorView& bias,
                            const TensorView& output, detail::LeftParts* moments, bool& done) {
  done = false;
  if (has_few_channels(geometry)) {
    if (is_plain(input)) done = stem::forward(geometry, {input.stored, weight, bias, output, moments});
    return;
  }
  const auto transform = detail::transform_of(input);
  if (!is_pointwise(geometry) || !transform) return;
  pointwise::ForwardOperands o;
  o.input = input.stored, o.weight = weight, o.bias = bias, o.output = output;
  o.transform = as_load(*transform);
  o.moments = moments;
  done = pointwise::forward(o);
}

void conv2d_backward_input_pending(const Conv2dGeometry& geometry, const ConstTensorView& grad_output,
                                   const ConstTensorView& weight, const PendingView& input,
                                   const TensorView& grad_input, detail::LeftParts& sums, bool& done) {
  done = false;
  const auto transform = detail::transform_of(input);
  if (!is_pointwise(geometry) || !transform || transform->scale == nullptr || input.center == nullptr) return;
  const pointwise::NormSums norm{input.stored, as_load(*transform), static_cast<const float*>(input.center),
                                 &sums};
  done = pointwise::backward_input({grad_output, weight, grad_input, &norm});
}

void conv2d_backward_weight_pending(const Conv2dGeometry& geometry, const ConstTensorView& grad_output,
                                    const PendingView& input, const TensorView& grad_weight,
                                    GradientWrite weight_write, const TensorView& grad_bias,
                                    GradientWrite bias_write, detail::GradientParts* parts, bool& done) {
  done = false;
  if (grad_weight.data == nullptr && parts == nullptr) return;
  if (has_few_channels(geometry)) {
    done = is_plain(input) &&
           stem::backward_weight(geometry, {grad_output, input.stored, grad_weight, weight_write, parts});
    if (done && grad_bias.data != nullptr) sum_channels(grad_output, true, grad_bias, bias_write);
    return;
  }
  const auto transform = detail::transform_of(input);
  if (!is_pointwise(geometry) || !transform) return;
  done = pointwise::backward_weight({grad_output, input.stored, as_load(*transform), grad_weight,
                                     weight_write, grad_bias, bias_write, parts});
}

}  // namespace lamella::cuda
