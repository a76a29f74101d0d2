#include "tensor/kernels/plane_product.h"

#include <algorithm>
#include <array>

#include "core/parallel.h"
#include "tensor/cpu/map.h"
#include "tensor/cpu/strided.h"

namespace lamella::cpu {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kBlock = 512;
/// Channels of one item of work where they are the dense axis.
constexpr std::int64_t kChannels = 64;

const void* at(const ConstTensorView& view, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  const std::int64_t offset =
      n * view.strides[0] + c * view.strides[1] + h * view.strides[2] + w * view.strides[3];
  return static_cast<const std::byte*>(view.data) + offset * static_cast<std::int64_t>(size_of(view.dtype));
}

template <class C>
void finish(const std::array<double, kChannels>& sums, std::int64_t n, std::int64_t c, std::int64_t count,
            const TensorView& out, GradientWrite write) {
  std::array<C, kChannels> rounded;
  for (std::size_t i = 0; i < kChannels; ++i) rounded[i] = static_cast<C>(sums[i]);
  store(out.dtype, rounded.data(), count, const_cast<void*>(at(out, n, c, 0, 0)), out.strides[1], write);
}

/// Planes one by one, each along its rows.
template <class C>
void planes(const ConstTensorView& a, const ConstTensorView& b, const TensorView& out, GradientWrite write) {
  const std::int64_t channels = a.shape[1], height = a.shape[2], width = a.shape[3];
  // Rows that follow on each other are one.
  const bool merge = a.strides[2] == width * a.strides[3] && b.strides[2] == width * b.strides[3];
  const std::int64_t rows = merge ? 1 : height, length = merge ? height * width : width;
  const std::int64_t grain = std::max<std::int64_t>(1, kElementGrain / (height * width));
  detail::parallel_for(a.shape[0] * channels, grain, [&](std::int64_t begin, std::int64_t end) {
    std::array<C, kBlock> from_a, from_b;
    for (std::int64_t plane = begin; plane < end; ++plane) {
      const std::int64_t n = plane / channels, c = plane % channels;
      std::array<double, kLanes> lanes{};
      for (std::int64_t h = 0; h < rows; ++h)
        for (std::int64_t w = 0; w < length; w += kBlock) {
          const std::int64_t count = std::min(kBlock, length - w);
          load(a.dtype, at(a, n, c, h, w), a.strides[3], count, from_a.data());
          load(b.dtype, at(b, n, c, h, w), b.strides[3], count, from_b.data());
          // Up to a whole number of lanes with zeros.
          const std::int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
          std::fill(from_a.begin() + count, from_a.begin() + padded, C(0));
          std::fill(from_b.begin() + count, from_b.begin() + padded, C(0));
          for (std::int64_t i = 0; i < padded; i += kLanes)
            for (std::int64_t k = 0; k < kLanes; ++k) {
              const auto j = static_cast<std::size_t>(i + k);
              lanes[static_cast<std::size_t>(k)] +=
                  static_cast<double>(from_a[j]) * static_cast<double>(from_b[j]);
            }
        }
      std::array<double, kChannels> sum{};
      for (const double lane : lanes) sum[0] += lane;
      finish<C>(sum, n, c, 1, out, write);
    }
  });
}

/// Up to kChannels channels side by side, pixel by pixel.
template <class C>
void pixels(const ConstTensorView& a, const ConstTensorView& b, const TensorView& out, GradientWrite write) {
  const std::int64_t height = a.shape[2], width = a.shape[3];
  const std::int64_t groups = (a.shape[1] + kChannels - 1) / kChannels;
  const std::int64_t each = (a.shape[1] + groups - 1) / groups;
  const std::int64_t grain = std::max<std::int64_t>(1, kElementGrain / (height * width * each));
  detail::parallel_for(a.shape[0] * groups, grain, [&](std::int64_t begin, std::int64_t end) {
    std::array<C, kChannels> from_a, from_b;
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t n = item / groups, c = item % groups * each;
      const std::int64_t count = std::min(each, a.shape[1] - c);
      std::array<double, kChannels> sums{};
      for (std::int64_t h = 0; h < height; ++h)
        for (std::int64_t w = 0; w < width; ++w) {
          load(a.dtype, at(a, n, c, h, w), 1, count, from_a.data());
          load(b.dtype, at(b, n, c, h, w), 1, count, from_b.data());
          for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
            sums[i] += static_cast<double>(from_a[i]) * static_cast<double>(from_b[i]);
        }
      finish<C>(sums, n, c, count, out, write);
    }
  });
}

}  // namespace

void plane_product(const ConstTensorView& a, const ConstTensorView& b, const TensorView& out,
                   GradientWrite write) {
  if (out.numel() == 0) return;
  const bool side_by_side = a.strides[1] == 1 && b.strides[1] == 1 && a.shape[1] > 1;
  dispatch_compute_floating(
      a.dtype == DType::Float64 || b.dtype == DType::Float64 ? DType::Float64 : DType::Float32,
      [&](auto tag) {
        using C = typename decltype(tag)::type;
        if (side_by_side)
          pixels<C>(a, b, out, write);
        else
          planes<C>(a, b, out, write);
      });
}

}  // namespace lamella::cpu
