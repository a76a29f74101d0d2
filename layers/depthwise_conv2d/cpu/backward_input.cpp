#include "layers/depthwise_conv2d/cpu/correlate.h"
#include "layers/depthwise_conv2d/cpu/relayout.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace lamella::cpu {

// A stride-1 correlation of grad_output for each residue of the input position modulo the stride: at stride 1
// one with the flipped kernel, at stride 2 four with a quarter of the taps each.
void depthwise_conv2d_backward_input(const Conv2dGeometry& g, const detail::ConstTensorView& grad_output,
                                     const detail::ConstTensorView& weight,
                                     const detail::TensorView& grad_input, detail::GradientWrite write) {
  // The planar loops write a strided gradient class by class, which costs more.
  const std::int64_t small_plane = g.stride.w == 1 ? kSmallPlanes : kSmallPlanes * 3 / 2;
  if (prefer_relayout(g, grad_input, grad_output, small_plane)) {
    ChannelsLast y(grad_output), x(grad_input);
    if (write == detail::GradientWrite::Accumulate) x.load();
    depthwise_conv2d_backward_input(g, y.load().view(), weight, x.view(), write);
    return x.store(grad_input);
  }
  Correlation problem;
  problem.source = grad_output;
  problem.target = grad_input;
  problem.weight = weight;
  problem.rows = scattering_taps(g.in.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
  problem.columns = scattering_taps(g.in.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  problem.reduce = g.multiplier();
  problem.accumulate = write == detail::GradientWrite::Accumulate;
  correlate(problem);
}

}  // namespace lamella::cpu
