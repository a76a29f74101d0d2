#include "depthwise_reference.h"

#include <algorithm>
#include <numeric>

namespace lamella::depthwise::checks {

std::vector<double> Draw::numbers(std::int64_t count, double bound) {
  constexpr int kSteps = 16;
  std::vector<double> some(static_cast<std::size_t>(count));
  for (double& number : some) number = bound * (*this)(-kSteps, kSteps) / kSteps;
  return some;
}

std::string to_string(const Geometry& g) {
  std::string text = std::to_string(g.batch) + "x" + std::to_string(g.channels) + " maps";
  const auto add = [&](const char* what, int h, int w) {
    text += std::string(", ") + what + " " + std::to_string(h) + "x" + std::to_string(w);
  };
  add("size", g.h, g.w), add("output", g.out_h, g.out_w), add("kernel", g.kernel_h, g.kernel_w);
  add("stride", g.stride_h, g.stride_w), add("padding", g.padding_h, g.padding_w);
  add("dilation", g.dilation_h, g.dilation_w);
  return text + ", multiplier " + std::to_string(g.repeat);
}

Geometry draw_geometry(Draw& draw, const Wanted& wanted) {
  const KernelSizes& k = wanted.kernel;
  const auto axis = [&](int kernel, int kernel_stride, int spread, int wanted_padding, int in, int& stride,
                        int& padding, int& dilation, int& out) {
    stride = kernel_stride, dilation = spread;
    if (spread == 0) {
      const bool gaps = wanted.may_have_gaps && kernel > 1 && draw.one_in(3);
      const int factor = gaps ? draw(2, 3) : 1;
      stride *= factor;
      do dilation = kernel > 1 && draw.one_in(2) ? draw(1, 3) : 1;
      while (std::gcd(dilation, kernel_stride) != 1);
      dilation *= factor;
    }
    const int reach = (kernel - 1) * dilation;
    padding = wanted_padding >= 0 ? wanted_padding : draw(0, reach + draw(0, 1));
    const int places = in + 2 * padding - reach - 1;
    out = places < 0 ? 0 : places / stride + 1;
    if (wanted.may_reach_beyond && out > 0 && stride == 1 && reach > 0 && draw.one_in(4)) ++out;
  };
  for (;;) {
    Geometry g{};
    g.batch = draw(1, wanted.most_images), g.channels = draw(1, 5) * wanted.channels, g.repeat = k.repeat;
    g.kernel_h = k.kernel_h, g.kernel_w = k.kernel_w;
    g.h = draw(1, draw.one_in(4) ? 36 : 16);
    g.w = draw(1, std::max(1, (draw.one_in(4) ? 50 : 18) / wanted.width)) * wanted.width;
    axis(k.kernel_h, k.stride_h, wanted.spread_h, wanted.padding_h, g.h, g.stride_h, g.padding_h,
         g.dilation_h, g.out_h);
    axis(k.kernel_w, k.stride_w, wanted.spread_w, wanted.padding_w, g.w, g.stride_w, g.padding_w,
         g.dilation_w, g.out_w);
    if (g.out_h > 0 && g.out_w > 0 && g.out_w % wanted.out_width == 0) return g;
  }
}

Reference::Reference(Draw& draw, const Geometry& geometry, int with_transform, double lift)
    : g(geometry),
      transforms(with_transform),
      x(draw.numbers(std::int64_t{g.batch} * g.channels * g.h * g.w)),
      y(draw.numbers(std::int64_t{g.batch} * g.channels * g.repeat * g.out_h * g.out_w)),
      taps(draw.numbers(std::int64_t{g.channels} * g.repeat * g.kernel_h * g.kernel_w)),
      bias(draw.numbers(std::int64_t{g.channels} * g.repeat)),
      scale(draw.numbers(g.channels, 4)),
      shift(draw.numbers(g.channels)),
      center(draw.numbers(g.channels)) {
  if (lift != 0) std::fill(bias.begin(), bias.end(), lift);
  if (transforms != kHardSwish) return;
  // Of multiples of three, float32 gives hardswish and its slope exactly: a step of x is one of them. Zero is
  // the one within the bend.
  for (double& number : scale) number = number < 0 ? -48 : 48;
  for (double& number : shift) number = 3 * std::round(2 * number);
}

double Reference::activate(double v) const {
  return transforms == kHardSwish ? v * std::clamp(v + 3, 0.0, 6.0) / 6 : std::clamp(v, kLow, kHigh);
}

/// Calls visit(place in x, in y, in taps, output channel, input) for all that meet.
template <class Visit>
void Reference::each_product(const Visit& visit) const {
  const auto outputs = static_cast<std::size_t>(g.channels * g.repeat);
  for (std::size_t plane = 0; plane < static_cast<std::size_t>(g.batch) * outputs; ++plane) {
    const std::size_t o = plane % outputs, from = plane / static_cast<std::size_t>(g.repeat);
    const std::size_t channel = o / static_cast<std::size_t>(g.repeat);
    for (int kh = 0; kh < g.kernel_h; ++kh)
      for (int kw = 0; kw < g.kernel_w; ++kw) {
        const std::size_t tap = (o * static_cast<std::size_t>(g.kernel_h) + static_cast<std::size_t>(kh)) *
                                    static_cast<std::size_t>(g.kernel_w) +
                                static_cast<std::size_t>(kw);
        for (int p = 0; p < g.out_h; ++p) {
          const int row = p * g.stride_h - g.padding_h + kh * g.dilation_h;
          if (row < 0 || row >= g.h) continue;
          for (int q = 0; q < g.out_w; ++q) {
            const int column = q * g.stride_w - g.padding_w + kw * g.dilation_w;
            if (column < 0 || column >= g.w) continue;
            const std::size_t in = (from * static_cast<std::size_t>(g.h) + static_cast<std::size_t>(row)) *
                                       static_cast<std::size_t>(g.w) +
                                   static_cast<std::size_t>(column);
            const std::size_t out =
                (plane * static_cast<std::size_t>(g.out_h) + static_cast<std::size_t>(p)) *
                    static_cast<std::size_t>(g.out_w) +
                static_cast<std::size_t>(q);
            const double value =
                transforms != kPlain ? activate(scale[channel] * x[in] + shift[channel]) : x[in];
            visit(in, out, tap, o, value);
          }
        }
      }
  }
}

std::vector<double> Reference::output() const {
  const std::size_t plane = static_cast<std::size_t>(g.out_h) * static_cast<std::size_t>(g.out_w);
  std::vector<double> sums(y.size());
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = bias[i / plane % bias.size()];
  each_product([&](std::size_t, std::size_t out, std::size_t tap, std::size_t, double value) {
    sums[out] += taps[tap] * value;
  });
  return sums;
}
std::vector<double> Reference::input_gradient() const {
  std::vector<double> sums(x.size());
  each_product([&](std::size_t in, std::size_t out, std::size_t tap, std::size_t, double) {
    sums[in] += taps[tap] * y[out];
  });
  return sums;
}
std::vector<double> Reference::masked_input_gradient() const {
  std::vector<double> sums = input_gradient();
  const std::size_t plane = static_cast<std::size_t>(g.h) * static_cast<std::size_t>(g.w);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const std::size_t channel = i / plane % scale.size();
    const double before = scale[channel] * x[i] + shift[channel];
    if (transforms == kHardSwish)
      sums[i] *= before <= -3 ? 0 : before < 3 ? before / 3 + 0.5 : 1;
    else if (!(before > kLow && before < kHigh))
      sums[i] = 0;
  }
  return sums;
}
std::vector<double> Reference::weight_gradient() const {
  const std::size_t plane = static_cast<std::size_t>(g.out_h) * static_cast<std::size_t>(g.out_w);
  const std::size_t all = static_cast<std::size_t>(g.kernel_h) * static_cast<std::size_t>(g.kernel_w) + 1;
  std::vector<double> sums(bias.size() * all);
  for (std::size_t i = 0; i < y.size(); ++i) sums[(i / plane % bias.size() + 1) * all - 1] += y[i];
  // A row of sums is one longer than one of taps.
  each_product([&](std::size_t, std::size_t out, std::size_t tap, std::size_t o, double value) {
    sums[tap + o] += value * y[out];
  });
  return sums;
}

}  // namespace lamella::depthwise::checks
