#include <algorithm>
#include <limits>
#include <type_traits>
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

std::int64_t grain_for(std::int64_t elements_per_item) {
  return std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(1, elements_per_item));
}

std::int64_t taps_per_window(const PoolWindows& windows, const Pool2dGeometry& g) {
  const auto taps = static_cast<std::int64_t>(windows.h.inputs.at.size() * windows.w.inputs.at.size());
  return taps / (g.out.h * g.out.w) + 1;
}

/// Integer quotient rounded up; b > 0.
std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a > 0 ? (a + b - 1) / b : -(-a / b); }

/// One tap of a row of windows: outputs [first, last) compare what they have with row[o · step + shift],
/// which is element `start` more of the plane.
template <std::int64_t kStep, class T, class C, class I>
void take_tap(const T* row, std::int64_t step, std::int64_t shift, std::int64_t start, std::int64_t first,
              std::int64_t last, C* __restrict best, I* __restrict where) {
  using Unsigned = std::make_unsigned_t<I>;  // o · step + shift fits, though neither part need
  const std::int64_t s = kStep > 0 ? kStep : step;
  const auto base = static_cast<Unsigned>(start + shift);
  for (std::int64_t o = first; o < last; ++o) {
    const C value = static_cast<C>(row[o * s + shift]);
    // A bitwise or: no branch in the way of vectors.
    const bool wins = static_cast<bool>((value > best[o]) | (value != value) | (where[o] < 0));
    best[o] = wins ? value : best[o];
    where[o] = wins ? static_cast<I>(base + static_cast<Unsigned>(o * s)) : where[o];
  }
}

/// One tap of the windows of a pixel, for every channel.
template <class T, class C, class I>
void take_pixel(const T* from, I at, std::int64_t channels, C* __restrict best, I* __restrict where) {
  for (std::int64_t c = 0; c < channels; ++c) {
    const C value = static_cast<C>(from[c]);
    const bool wins = static_cast<bool>((value > best[c]) | (value != value) | (where[c] < 0));
    best[c] = wins ? value : best[c];
    where[c] = wins ? at : where[c];
  }
}

template <class T, class I>
void forward_planes(const T* x, const Pool2dGeometry& g, const PoolWindows& windows, T* y, I* positions) {
  using C = ComputeType<T>;
  const std::int64_t plane = g.in.h * g.in.w, out_plane = g.out.h * g.out.w;
  const std::int64_t step = g.stride.w;
  // Taps that reach any column at all: a window may be mostly padding.
  const std::int64_t first_tap =
      std::max<std::int64_t>(0, ceil_div(g.padding.w - (g.out.w - 1) * step, g.dilation.w));
  const std::int64_t last_tap = std::min(g.kernel.w - 1, (g.in.w - 1 + g.padding.w) / g.dilation.w);
  const std::int64_t grain = grain_for(out_plane * taps_per_window(windows, g));
  detail::parallel_for(g.batch * g.channels, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<C> values(static_cast<std::size_t>(g.out.w));
    std::vector<I> places(static_cast<std::size_t>(g.out.w));
    C* const best = values.data();
    I* const where = places.data();
    for (std::int64_t row = begin * g.out.h; row < end * g.out.h; ++row) {
      const std::int64_t p = row / g.out.h, oh = row % g.out.h;
      std::fill_n(best, g.out.w, -std::numeric_limits<C>::infinity());
      std::fill_n(where, g.out.w, I(-1));
      for (auto* h = windows.h.inputs.first(oh); h != windows.h.inputs.last(oh); ++h)
        for (std::int64_t tap = first_tap; tap <= last_tap; ++tap) {
          const std::int64_t shift =
              tap * g.dilation.w - g.padding.w;  // column of output o: o · step + shift
          const std::int64_t first = std::max<std::int64_t>(0, ceil_div(-shift, step));
          const std::int64_t last = std::min(g.out.w, (g.in.w - 1 - shift) / step + 1);
          const std::int64_t start = *h * g.in.w;
          const T* const from = x + p * plane + start;
          if (step == 1)
            take_tap<1>(from, step, shift, start, first, last, best, where);
          else if (step == 2)
            take_tap<2>(from, step, shift, start, first, last, best, where);
          else
            take_tap<0>(from, step, shift, start, first, last, best, where);
        }
      for (std::int64_t o = 0; o < g.out.w; ++o) y[row * g.out.w + o] = static_cast<T>(best[o]);
      if (positions) std::copy_n(where, g.out.w, positions + row * g.out.w);
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
          take_pixel(from, at, channels, best, where);
        }
      for (std::int64_t c = 0; c < channels; ++c) y[pixel * channels + c] = static_cast<T>(best[c]);
      if (positions) std::copy_n(where, channels, positions + pixel * channels);
    }
  });
}

/// A plane is collected in the compute type, so that half types are rounded once.
template <class T, class I>
void backward_planes(const T* grad, const I* positions, const Pool2dGeometry& g, T* dx, bool accumulate) {
  using C = ComputeType<T>;
  const std::int64_t plane = g.in.h * g.in.w, out_plane = g.out.h * g.out.w;
  detail::parallel_for(g.batch * g.channels, grain_for(2 * plane), [&](std::int64_t begin, std::int64_t end) {
    std::vector<C> sums(static_cast<std::size_t>(plane));
    for (std::int64_t p = begin; p < end; ++p) {
      T* const to = dx + p * plane;
      for (std::int64_t i = 0; i < plane; ++i)
        sums[static_cast<std::size_t>(i)] = accumulate ? static_cast<C>(to[i]) : C(0);
      for (std::int64_t o = p * out_plane; o < (p + 1) * out_plane; ++o)
        if (positions[o] >= 0) sums[static_cast<std::size_t>(positions[o])] += static_cast<C>(grad[o]);
      for (std::int64_t i = 0; i < plane; ++i) to[i] = static_cast<T>(sums[static_cast<std::size_t>(i)]);
    }
  });
}

template <class T, class C, class I>
void add_where(const T* grad, const I* positions, I me, std::int64_t channels, C* __restrict total) {
  for (std::int64_t c = 0; c < channels; ++c) {
    const C value = static_cast<C>(grad[c]);
    total[c] += positions[c] == me ? value : C(0);
  }
}

/// Every input pixel asks the windows that cover it whether it won: nothing to clear before, and half types
/// are rounded once.
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
          T* const to = dx + pixel * channels;
          if (accumulate)
            for (std::int64_t c = 0; c < channels; ++c) total[c] = static_cast<C>(to[c]);
          else
            std::fill_n(total, channels, C(0));
          for (auto* oh = windows.h.outputs.first(h); oh != windows.h.outputs.last(h); ++oh)
            for (auto* ow = windows.w.outputs.first(w); ow != windows.w.outputs.last(w); ++ow) {
              const std::int64_t o = ((n * g.out.h + *oh) * g.out.w + *ow) * channels;
              add_where(grad + o, positions + o, static_cast<I>(h * g.in.w + w), channels, total);
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
  const bool accumulate = write == GradientWrite::Accumulate;
  detail::dispatch_floating(grad.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    with_position_type(positions.dtype, [&](auto* index) {
      const auto* const from = static_cast<const std::remove_pointer_t<decltype(index)>*>(positions.data);
      if (g.channels_last)
        backward_pixels(grad.as<T>(), from, g, PoolWindows(g), dx.as<T>(), accumulate);
      else
        backward_planes(grad.as<T>(), from, g, dx.as<T>(), accumulate);
    });
  });
}

}  // namespace lamella::cpu
