#include "layers/depthwise_conv2d/cpu/taps.h"

#include <algorithm>
#include <limits>

namespace lamella::cpu {

std::vector<AxisTaps> gathering_taps(std::int64_t out, std::int64_t kernel, std::int64_t stride,
                                     std::int64_t padding, std::int64_t dilation) {
  AxisTaps axis;
  axis.count = out;
  axis.in_step = stride;
  for (std::int64_t k = 0; k < kernel; ++k) {
    axis.base.push_back(k * dilation - padding);
    axis.tap.push_back(k);
  }
  return {axis};
}

std::vector<AxisTaps> scattering_taps(std::int64_t in, std::int64_t kernel, std::int64_t stride,
                                      std::int64_t padding, std::int64_t dilation) {
  std::vector<AxisTaps> classes;
  for (std::int64_t residue = 0; residue < std::min(stride, in); ++residue) {
    AxisTaps axis;
    axis.count = (in - residue + stride - 1) / stride;
    axis.out_first = residue;
    axis.out_step = stride;
    for (std::int64_t k = kernel - 1; k >= 0; --k) {
      const std::int64_t distance = residue + padding - k * dilation;
      if (distance % stride != 0) continue;
      axis.base.push_back(distance / stride);
      axis.tap.push_back(k);
    }
    classes.push_back(std::move(axis));
  }
  return classes;
}

Reach reach_of(const std::vector<AxisTaps>& classes, std::int64_t first, std::int64_t last) {
  Reach reach{std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min()};
  for (const AxisTaps& axis : classes) {
    const std::int64_t end = std::min(last, axis.count);
    if (axis.base.empty() || first >= end) continue;
    reach.begin = std::min(reach.begin, first * axis.in_step + axis.base.front());
    reach.end = std::max(reach.end, (end - 1) * axis.in_step + axis.base.back() + 1);
  }
  if (reach.begin > reach.end) return {};
  return reach;
}

Reach reach_of(const std::vector<AxisTaps>& classes) {
  return reach_of(classes, 0, std::numeric_limits<std::int64_t>::max());
}

}  // namespace lamella::cpu
