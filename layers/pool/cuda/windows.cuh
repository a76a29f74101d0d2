#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "core/cuda/divisor.cuh"
#include "layers/pool/geometry.h"

/// Where windows lie, by formulas; cpu/windows.h lists the same. `I` is std::int32_t where every number below
/// fits, with quick divisions, else std::int64_t.
namespace lamella::cuda {

/// A size that positions are divided by.
template <class I>
struct Extent;
template <>
struct Extent<std::int32_t> {
  Extent() = default;
  explicit Extent(std::int64_t size) : divisor(static_cast<std::uint32_t>(size)) {}
  __device__ std::int32_t size() const { return static_cast<std::int32_t>(divisor.value); }
  /// n / size for n >= 0.
  __device__ std::int32_t divide(std::int32_t n) const {
    return static_cast<std::int32_t>(divisor.divide(static_cast<std::uint32_t>(n)));
  }
  detail::cuda::Divisor divisor;
};
template <>
struct Extent<std::int64_t> {
  Extent() = default;
  explicit Extent(std::int64_t size) : value(size) {}
  __device__ std::int64_t size() const { return value; }
  __device__ std::int64_t divide(std::int64_t n) const { return n / value; }
  std::int64_t value = 1;
};

/// Splits the innermost position off n.
template <class I>
__device__ I take(const Extent<I>& extent, I& n) {
  const I outer = extent.divide(n);
  const I inner = n - outer * extent.size();
  n = outer;
  return inner;
}

/// The windows along one axis.
template <class I>
struct PoolAxis {
  Extent<I> in, out, stride, dilation;
  I kernel = 1, padding = 0;
  bool adaptive = false, with_padding = false;

  /// Input positions first, first + dilation, … of a window.
  struct Inputs {
    I first, count;
    I divisor;  ///< what an average divides by
  };
  __device__ Inputs inputs(I o) const {
    if (adaptive) {
      const I first = out.divide(o * in.size());
      const I end = out.divide((o + 1) * in.size() + out.size() - 1);
      return {first, end - first, end - first};
    }
    const I start = o * stride.size() - padding;
    // Only the taps inside the input: a window may be mostly padding.
    const I first = start < 0 ? dilation.divide(dilation.size() - 1 - start) : 0;
    const I last = start < in.size() ? min(kernel - 1, dilation.divide(in.size() - 1 - start)) : -1;
    const I count = max(last - first + 1, I(0));
    return {start + first * dilation.size(), count,
            with_padding ? min(kernel, in.size() + padding - start) : count};
  }

  /// The windows first … last that reach over input position i; with dilation it may lie between their taps.
  struct Outputs {
    I first, last;
  };
  __device__ Outputs outputs(I i) const {
    if (adaptive) return {in.divide(i * out.size()), in.divide((i + 1) * out.size() + in.size() - 1) - 1};
    const I before = i + padding - (kernel - 1) * dilation.size();
    return {before > 0 ? stride.divide(before + stride.size() - 1) : 0,
            min(out.size() - 1, stride.divide(i + padding))};
  }
};

template <class I>
PoolAxis<I> pool_axis(const detail::Pool2dGeometry& g, std::int64_t Size2::*axis) {
  PoolAxis<I> result;
  result.in = Extent<I>(g.in.*axis);
  result.out = Extent<I>(g.out.*axis);
  result.adaptive = g.adaptive;
  if (g.adaptive) return result;
  result.stride = Extent<I>(g.stride.*axis);
  result.dilation = Extent<I>(g.dilation.*axis);
  result.kernel = static_cast<I>(g.kernel.*axis);
  result.padding = static_cast<I>(g.padding.*axis);
  result.with_padding = g.count_include_pad;
  return result;
}

/// Images of in.h × in.w pixels with some numbers each, which threads take a lot at a time. Planes, where
/// channels do not come last, are images with one number per pixel.
template <class I>
struct Pooling {
  PoolAxis<I> h, w;
  Extent<I> lots;  ///< per pixel

  __device__ I input(I image, I row, I column, I lot) const {
    return ((image * h.in.size() + row) * w.in.size() + column) * lots.size() + lot;
  }
  __device__ I output(I image, I row, I column, I lot) const {
    return ((image * h.out.size() + row) * w.out.size() + column) * lots.size() + lot;
  }
};

template <class I>
Pooling<I> make_pooling(const detail::Pool2dGeometry& g, int lot_size) {
  return {pool_axis<I>(g, &Size2::h), pool_axis<I>(g, &Size2::w),
          Extent<I>(g.channels_last ? g.channels / lot_size : 1)};
}

/// Whether all positions, and what is computed on the way to them, are below 2^31.
inline bool fits_32_bits(const detail::Pool2dGeometry& g) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  if (g.batch * g.channels * std::max(g.in.h * g.in.w, g.out.h * g.out.w) > kLargest) return false;
  const auto fits = [&](std::int64_t Size2::*axis) {
    const std::int64_t in = g.in.*axis, out = g.out.*axis;
    if (g.adaptive) return in * out + in + out <= kLargest;
    return in + 2 * g.padding.*axis + (g.kernel.*axis) * (g.dilation.*axis) + 2 * g.stride.*axis <= kLargest;
  };
  return fits(&Size2::h) && fits(&Size2::w);
}

}  // namespace lamella::cuda
