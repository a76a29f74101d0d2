#include <algorithm>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "layers/pool/cpu/pool.h"
#include "layers/pool/cpu/windows.h"
#include "tensor/cpu/strided.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::Pool2dGeometry;
using detail::TensorView;

namespace {

std::int64_t grain_for(std::int64_t elements_per_item) {
  return std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, elements_per_item));
}

std::int64_t taps_per_window(const PoolWindows& windows, const Pool2dGeometry& g) {
  const auto taps = static_cast<std::int64_t>(windows.h.inputs.at.size() * windows.w.inputs.at.size());
  return taps / (g.out.h * g.out.w) + 1;
}

template <class T, class I>
void forward_planes(const T* x, const Pool2dGeometry& g, const PoolWindows& windows, T* y, I* positions) {
  using C = ComputeType<T>;
  const std::int64_t plane = g.in.h * g.in.w, out_plane = g.out.h * g.out.w;
  const std::int64_t grain = grain_for(out_plane * taps_per_window(windows, g));
  detail::parallel_for(g.batch * g.channels, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const T* const from = x + p * plane;
      for (std::int64_t oh = 0; oh < g.out.h; ++oh)
        for (std::int64_t ow = 0; ow < g.out.w; ++ow) {
          C best = -std::numeric_limits<C>::infinity();
          std::int64_t where = -1;
          for (auto* h = windows.h.inputs.first(oh); h != windows.h.inputs.last(oh); ++h)
            for (auto* w = windows.w.inputs.first(ow); w != windows.w.inputs.last(ow); ++w) {
              const std::int64_t at = *h * g.in.w + *w;
              const C value = static_cast<C>(from[at]);
              const bool wins = value > best || value != value || where < 0;
              best = wins ? value : best;
              where = wins ? at : where;
            }
          const std::int64_t o = p * out_plane + oh * g.out.w + ow;
          y[o] = static_cast<T>(best);
          if (positions) positions[o] = static_cast<I>(where);
        }
    }
  });
}

template <class T, class I>
void forward_pixels(const T* x, const Pool2dGeometry& g, const PoolWindows& windows, T* y, I* positions) {
  using C = ComputeType<T>;
  const std::int64_t channels = g.channels;
  const std::int64_t grain = grain_for(channels * taps_per_window(windows, g));
  detail::parallel_for(g.batch * g.out.h * g.out.w, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<C> values(static_cast<std::size_t>(channels));
    std::vector<I> places(static_cast<std::size_t>(channels));
    C* const best = values.data();
    I* const where = places.data();
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      const std::int64_t ow = pixel % g.out.w, oh = pixel / g.out.w % g.out.h,
                         n = pixel / (g.out.w * g.out.h);
      std::fill_n(best, channels, -std::numeric_limits<C>::infinity());
      std::fill_n(where, channels, I(-1));
      for (auto* h = windows.h.inputs.first(oh); h != windows.h.inputs.last(oh); ++h)
        for (auto* w = windows.w.inputs.first(ow); w != windows.w.inputs.last(ow); ++w) {
          const auto at = static_cast<I>(*h * g.in.w + *w);
          const T* const from = x + (n * g.in.h * g.in.w + at) * channels;
          for (std::int64_t c = 0; c < channels; ++c) {
            const C value = static_cast<C>(from[c]);
            // A bitwise or: no branch in the way of vectors.
            const bool wins = static_cast<bool>((value > best[c]) | (value != value) | (where[c] < 0));
            best[c] = wins ? value : best[c];
            where[c] = wins ? at : where[c];
          }
        }
      for (std::int64_t c = 0; c < channels; ++c) y[pixel * channels + c] = static_cast<T>(best[c]);
      if (positions) std::copy_n(where, channels, positions + pixel * channels);
    }
  });
}

/// Every input element asks the windows that cover it whether it won: nothing to clear before, and half types
/// are rounded once.
template <class T, class I>
void backward_planes(const T* grad, const I* positions, const Pool2dGeometry& g, const PoolWindows& windows,
                     T* dx, bool accumulate) {
  using C = ComputeType<T>;
  const std::int64_t plane = g.in.h * g.in.w, out_plane = g.out.h * g.out.w;
  detail::parallel_for(g.batch * g.channels, grain_for(2 * plane), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      for (std::int64_t h = 0; h < g.in.h; ++h)
        for (std::int64_t w = 0; w < g.in.w; ++w) {
          const auto me = static_cast<I>(h * g.in.w + w);
          T& to = dx[p * plane + me];
          C total = accumulate ? static_cast<C>(to) : C(0);
          for (auto* oh = windows.h.outputs.first(h); oh != windows.h.outputs.last(h); ++oh)
            for (auto* ow = windows.w.outputs.first(w); ow != windows.w.outputs.last(w); ++ow) {
              const std::int64_t o = p * out_plane + *oh * g.out.w + *ow;
              if (positions[o] == me) total += static_cast<C>(grad[o]);
            }
          to = static_cast<T>(total);
        }
  });
}

template <class T, class I>
void backward_pixels(const T* grad, const I* positions, const Pool2dGeometry& g, const PoolWindows& windows,
                     T* dx, bool accumulate) {
  using C = ComputeType<T>;
  const std::int64_t channels = g.channels;
  detail::parallel_for(
      g.batch * g.in.h * g.in.w, grain_for(2 * channels), [&](std::int64_t begin, std::int64_t end) {
        std::vector<C> sums(static_cast<std::size_t>(channels));
        C* const total = sums.data();
        for (std::int64_t pixel = begin; pixel < end; ++pixel) {
          const std::int64_t w = pixel % g.in.w, h = pixel / g.in.w % g.in.h, n = pixel / (g.in.w * g.in.h);
          const auto me = static_cast<I>(h * g.in.w + w);
          T* const to = dx + pixel * channels;
          for (std::int64_t c = 0; c < channels; ++c) total[c] = accumulate ? static_cast<C>(to[c]) : C(0);
          for (auto* oh = windows.h.outputs.first(h); oh != windows.h.outputs.last(h); ++oh)
            for (auto* ow = windows.w.outputs.first(w); ow != windows.w.outputs.last(w); ++ow) {
              const std::int64_t o = ((n * g.out.h + *oh) * g.out.w + *ow) * channels;
              for (std::int64_t c = 0; c < channels; ++c)
                total[c] += positions[o + c] == me ? static_cast<C>(grad[o + c]) : C(0);
            }
          for (std::int64_t c = 0; c < channels; ++c) to[c] = static_cast<T>(total[c]);
        }
      });
}

/// Calls body with a null pointer of the positions' type.
template <class Body>
void with_position_type(DType dtype, const Body& body) {
  if (dtype == DType::Int64)
    body(static_cast<std::int64_t*>(nullptr));
  else
    body(static_cast<std::int32_t*>(nullptr));
}

}  // namespace

void max_pool2d_forward(const ConstTensorView& x, const Pool2dGeometry& g, const TensorView& y,
                        const TensorView& positions) {
  if (y.numel() == 0) return;
  const PoolWindows windows(g);
  const bool wide = g.in.h * g.in.w > std::numeric_limits<std::int32_t>::max();
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_position_type(wide ? DType::Int64 : DType::Int32, [&](auto* index) {
      auto* const to = static_cast<decltype(index)>(positions.data);
      if (g.channels_last)
        forward_pixels(x.as<T>(), g, windows, y.as<T>(), to);
      else
        forward_planes(x.as<T>(), g, windows, y.as<T>(), to);
    });
  });
}

void max_pool2d_backward(const ConstTensorView& grad, const ConstTensorView& positions,
                         const Pool2dGeometry& g, const TensorView& dx, GradientWrite write) {
  if (dx.numel() == 0) return;
  const PoolWindows windows(g);
  const bool accumulate = write == GradientWrite::Accumulate;
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_position_type(positions.dtype, [&](auto* index) {
      const auto* const from = static_cast<const std::remove_pointer_t<decltype(index)>*>(positions.data);
      if (g.channels_last)
        backward_pixels(grad.as<T>(), from, g, windows, dx.as<T>(), accumulate);
      else
        backward_planes(grad.as<T>(), from, g, windows, dx.as<T>(), accumulate);
    });
  });
}

}  // namespace lamella::cpu
