#include "layers/depthwise_conv2d/cpu/correlate.h"
#include "layers/depthwise_conv2d/cpu/relayout.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace lamella::cpu {

void depthwise_conv2d_forward(const Conv2dGeometry& g, const detail::ConstTensorView& input,
                              const detail::ConstTensorView& weight, const detail::ConstTensorView& bias,
                              const detail::TensorView& output) {
  if (prefer_relayout(g, input, output)) {
    ChannelsLast x(input), y(output);
    depthwise_conv2d_forward(g, x.load().view(), weight, bias, y.view());
    return y.store(output);
  }
  Correlation problem;
  problem.source = input;
  problem.target = output;
  problem.weight = weight;
  problem.bias = bias;
  problem.rows = gathering_taps(g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
  problem.columns = gathering_taps(g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  problem.repeat = g.multiplier();
  correlate(problem);
}

}  // namespace lamella::cpu
