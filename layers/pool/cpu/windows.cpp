#include "layers/pool/cpu/windows.h"

#include <algorithm>

namespace lamella::cpu {

namespace {

AxisWindows make(const detail::Pool2dGeometry& g, std::int64_t in, std::int64_t out, std::int64_t kernel,
                 std::int64_t stride, std::int64_t padding, std::int64_t dilation) {
  AxisWindows windows;
  std::vector<std::vector<std::int64_t>> covering(static_cast<std::size_t>(in));
  for (std::int64_t o = 0; o < out; ++o) {
    // Position of tap k: start + k · step.
    std::int64_t start = o * stride - padding, step = dilation, taps = kernel;
    if (g.adaptive) {
      start = o * in / out;
      step = 1;
      taps = ((o + 1) * in + out - 1) / out - start;
    }
    // Only the taps inside the input: a window may be mostly padding.
    const std::int64_t first = start < 0 ? (-start + step - 1) / step : 0;
    const std::int64_t last = start < in ? std::min(taps - 1, (in - 1 - start) / step) : -1;
    for (std::int64_t k = first; k <= last; ++k) {
      const std::int64_t i = start + k * step;
      windows.inputs.at.push_back(i);
      covering[static_cast<std::size_t>(i)].push_back(o);
    }
    const auto covered = static_cast<std::int64_t>(windows.inputs.at.size()) - windows.inputs.begin.back();
    windows.inputs.begin.push_back(static_cast<std::int64_t>(windows.inputs.at.size()));
    const bool with_padding = g.count_include_pad && !g.adaptive;
    windows.divisor.push_back(with_padding ? std::min(taps, in + padding - start) : covered);
  }
  for (const std::vector<std::int64_t>& outputs : covering) {
    windows.outputs.at.insert(windows.outputs.at.end(), outputs.begin(), outputs.end());
    windows.outputs.begin.push_back(static_cast<std::int64_t>(windows.outputs.at.size()));
  }
  return windows;
}

}  // namespace

PoolWindows::PoolWindows(const detail::Pool2dGeometry& g)
    : h(make(g, g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h)),
      w(make(g, g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w)) {}

}  // namespace lamella::cpu
