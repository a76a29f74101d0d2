#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "layers/pool/cpu/windows.h"
#include "layers/pool/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::Pool2dGeometry;
using detail::TensorView;

namespace {

template <class T, class C>
void store(T& to, C value, bool accumulate) {
  to = static_cast<T>(accumulate ? value + static_cast<C>(to) : value);
}

/// True where each channel has one window, its whole plane.
bool is_global(const Pool2dGeometry& g, const PoolWindows& windows) {
  return g.out == Size2(1) && windows.h.divisor[0] == g.in.h && windows.w.divisor[0] == g.in.w &&
         static_cast<std::int64_t>(windows.h.inputs.at.size()) == g.in.h &&
         static_cast<std::int64_t>(windows.w.inputs.at.size()) == g.in.w;
}

std::int64_t grain_for(std::int64_t elements_per_item) {
  return std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, elements_per_item));
}

/// Sum of a dense run: in lanes, over at most 1024 numbers each, then in double.
template <class T>
double sum_of(const T* x, std::int64_t n) {
  using C = ComputeType<T>;
  constexpr std::int64_t kLanes = 16, kBlock = kLanes * 1024;
  double total = 0;
  for (std::int64_t at = 0; at < n; at += kBlock) {
    const std::int64_t end = std::min(n, at + kBlock);
    C lanes[kLanes] = {};
    std::int64_t i = at;
    for (; i + kLanes <= end; i += kLanes)
      for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += static_cast<C>(x[i + l]);
    for (std::int64_t l = 0; i < end; ++i, ++l) lanes[l] += static_cast<C>(x[i]);
    for (const C lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

template <class T>
void forward_planes(const T* x, const Pool2dGeometry& g, const PoolWindows& windows, T* y) {
  using C = ComputeType<T>;
  const std::int64_t plane = g.in.h * g.in.w, out_plane = g.out.h * g.out.w;
  const bool global = is_global(g, windows);
  detail::parallel_for(
      g.batch * g.channels, grain_for(plane + out_plane), [&](std::int64_t begin, std::int64_t end) {
        if (global) {
          for (std::int64_t p = begin; p < end; ++p)
            y[p] = static_cast<T>(static_cast<C>(sum_of(x + p * plane, plane) / static_cast<double>(plane)));
          return;
        }
        std::vector<C> columns(static_cast<std::size_t>(g.in.w));  // sums over the rows of a window
        for (std::int64_t p = begin; p < end; ++p)
          for (std::int64_t oh = 0; oh < g.out.h; ++oh) {
            std::fill(columns.begin(), columns.end(), C(0));
            for (auto* h = windows.h.inputs.first(oh); h != windows.h.inputs.last(oh); ++h) {
              const T* const row = x + p * plane + *h * g.in.w;
              for (std::int64_t w = 0; w < g.in.w; ++w)
                columns[static_cast<std::size_t>(w)] += static_cast<C>(row[w]);
            }
            T* const to = y + p * out_plane + oh * g.out.w;
            for (std::int64_t ow = 0; ow < g.out.w; ++ow) {
              C total = 0;
              for (auto* w = windows.w.inputs.first(ow); w != windows.w.inputs.last(ow); ++w)
                total += columns[static_cast<std::size_t>(*w)];
              to[ow] =
                  static_cast<T>(total / static_cast<C>(windows.h.divisor[static_cast<std::size_t>(oh)] *
                                                        windows.w.divisor[static_cast<std::size_t>(ow)]));
            }
          }
      });
}

/// A row of the window is summed, then added to the window: short chains of additions even for large windows.
template <class T>
void forward_pixels(const T* x, const Pool2dGeometry& g, const PoolWindows& windows, T* y) {
  using C = ComputeType<T>;
  const std::int64_t channels = g.channels;
  const std::int64_t taps =
      static_cast<std::int64_t>(windows.h.inputs.at.size() * windows.w.inputs.at.size());
  const std::int64_t grain = grain_for(channels * (taps / (g.out.h * g.out.w) + 1));
  detail::parallel_for(g.batch * g.out.h * g.out.w, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<C> sums(static_cast<std::size_t>(2 * channels));
    C* const total = sums.data();
    C* const line = total + channels;
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      const std::int64_t ow = pixel % g.out.w, oh = pixel / g.out.w % g.out.h,
                         n = pixel / (g.out.w * g.out.h);
      std::fill_n(total, channels, C(0));
      for (auto* h = windows.h.inputs.first(oh); h != windows.h.inputs.last(oh); ++h) {
        std::fill_n(line, channels, C(0));
        for (auto* w = windows.w.inputs.first(ow); w != windows.w.inputs.last(ow); ++w) {
          const T* const from = x + ((n * g.in.h + *h) * g.in.w + *w) * channels;
          for (std::int64_t c = 0; c < channels; ++c) line[c] += static_cast<C>(from[c]);
        }
        for (std::int64_t c = 0; c < channels; ++c) total[c] += line[c];
      }
      const C divisor = static_cast<C>(windows.h.divisor[static_cast<std::size_t>(oh)] *
                                       windows.w.divisor[static_cast<std::size_t>(ow)]);
      T* const to = y + pixel * channels;
      for (std::int64_t c = 0; c < channels; ++c) to[c] = static_cast<T>(total[c] / divisor);
    }
  });
}

template <class T>
void backward_planes(const T* grad, const Pool2dGeometry& g, const PoolWindows& windows, T* dx,
                     bool accumulate) {
  using C = ComputeType<T>;
  const std::int64_t plane = g.in.h * g.in.w, out_plane = g.out.h * g.out.w;
  const bool global = is_global(g, windows);
  detail::parallel_for(
      g.batch * g.channels, grain_for(plane + out_plane), [&](std::int64_t begin, std::int64_t end) {
        std::vector<C> columns(static_cast<std::size_t>(g.out.w));  // shares of the windows over a row
        const std::vector<C> widths(windows.w.divisor.begin(), windows.w.divisor.end());
        for (std::int64_t p = begin; p < end; ++p) {
          T* const to = dx + p * plane;
          if (global) {
            const C share = static_cast<C>(grad[p]) / static_cast<C>(plane);
            for (std::int64_t i = 0; i < plane; ++i) store(to[i], share, accumulate);
            continue;
          }
          for (std::int64_t h = 0; h < g.in.h; ++h) {
            std::fill(columns.begin(), columns.end(), C(0));
            for (auto* oh = windows.h.outputs.first(h); oh != windows.h.outputs.last(h); ++oh) {
              const T* const row = grad + p * out_plane + *oh * g.out.w;
              const C rows = static_cast<C>(windows.h.divisor[static_cast<std::size_t>(*oh)]);
              for (std::size_t ow = 0; ow < columns.size(); ++ow)
                columns[ow] += static_cast<C>(row[ow]) / (rows * widths[ow]);
            }
            for (std::int64_t w = 0; w < g.in.w; ++w) {
              C total = 0;
              for (auto* ow = windows.w.outputs.first(w); ow != windows.w.outputs.last(w); ++ow)
                total += columns[static_cast<std::size_t>(*ow)];
              store(to[h * g.in.w + w], total, accumulate);
            }
          }
        }
      });
}

template <class T>
void backward_pixels(const T* grad, const Pool2dGeometry& g, const PoolWindows& windows, T* dx,
                     bool accumulate) {
  using C = ComputeType<T>;
  const std::int64_t channels = g.channels;
  detail::parallel_for(
      g.batch * g.in.h * g.in.w, grain_for(2 * channels), [&](std::int64_t begin, std::int64_t end) {
        std::vector<C> sums(static_cast<std::size_t>(channels));
        C* const total = sums.data();
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
          const std::int64_t w = pixel % g.in.w, h = pixel / g.in.w % g.in.h, n = pixel / (g.in.w * g.in.h);
          std::fill_n(total, channels, C(0));
          for (auto* oh = windows.h.outputs.first(h); oh != windows.h.outputs.last(h); ++oh)
            for (auto* ow = windows.w.outputs.first(w); ow != windows.w.outputs.last(w); ++ow) {
              const T* const from = grad + ((n * g.out.h + *oh) * g.out.w + *ow) * channels;
              const C share = C(1) / static_cast<C>(windows.h.divisor[static_cast<std::size_t>(*oh)] *
                                                    windows.w.divisor[static_cast<std::size_t>(*ow)]);
              for (std::int64_t c = 0; c < channels; ++c) total[c] += static_cast<C>(from[c]) * share;
            }
          T* const to = dx + pixel * channels;
          if (accumulate)
            for (std::int64_t c = 0; c < channels; ++c) store(to[c], total[c], true);
          else
            for (std::int64_t c = 0; c < channels; ++c) store(to[c], total[c], false);
        }
      });
}

}  // namespace

void avg_pool2d_forward(const ConstTensorView& x, const Pool2dGeometry& g, const TensorView& y) {
  if (y.numel() == 0) return;
  const PoolWindows windows(g);
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (g.channels_last)
      forward_pixels(x.as<T>(), g, windows, y.as<T>());
    else
      forward_planes(x.as<T>(), g, windows, y.as<T>());
  });
}

void avg_pool2d_backward(const ConstTensorView& grad, const Pool2dGeometry& g, const TensorView& dx,
                         GradientWrite write) {
  if (dx.numel() == 0) return;
  const PoolWindows windows(g);
  const bool accumulate = write == GradientWrite::Accumulate;
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (g.channels_last)
      backward_pixels(grad.as<T>(), g, windows, dx.as<T>(), accumulate);
    else
      backward_planes(grad.as<T>(), g, windows, dx.as<T>(), accumulate);
  });
}

}  // namespace lamella::cpu
