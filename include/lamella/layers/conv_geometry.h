#pragma once

#include <cstdint>
#include <string>

#include "lamella/core/export.h"
#include "lamella/tensor/shape.h"

namespace lamella {

/// A number for height and one for width; converts from a single number that serves both.
struct Size2 {
  std::int64_t h = 0;  ///< for the height
  std::int64_t w = 0;  ///< for the width
  constexpr Size2() = default;
  /// One number for both.
  // NOLINTNEXTLINE(google-explicit-constructor): as in PyTorch
  constexpr Size2(std::int64_t both) : h(both), w(both) {}
  /// Height first.
  constexpr Size2(std::int64_t h, std::int64_t w) : h(h), w(w) {}
  /// Equal in both.
  friend constexpr bool operator==(const Size2&, const Size2&) = default;
};

/// Sizes of one 2-D convolution or pooling, validated once and passed to kernels by value.
struct Conv2dGeometry {
  std::int64_t batch = 0;         ///< N
  std::int64_t in_channels = 0;   ///< C
  std::int64_t out_channels = 0;  ///< O
  std::int64_t groups = 1;        ///< divide both
  Size2 in;                       ///< input height, width
  Size2 out;                      ///< output height, width: see conv_output_size()
  Size2 kernel;                   ///< taps
  Size2 stride{1};                ///< distance between windows
  Size2 padding{0};               ///< zeros on each side
  Size2 dilation{1};              ///< distance between taps

  /// Output channels per input channel of a depthwise convolution (groups == in_channels).
  std::int64_t multiplier() const { return in_channels == 0 ? 0 : out_channels / in_channels; }
  /// True if each input channel is a group of its own.
  bool is_depthwise() const { return groups == in_channels; }
  /// [batch, in_channels, in.h, in.w].
  Shape input_shape() const { return {batch, in_channels, in.h, in.w}; }
  /// [batch, out_channels, out.h, out.w].
  Shape output_shape() const { return {batch, out_channels, out.h, out.w}; }
  /// [out_channels, in_channels / groups, kernel.h, kernel.w], PyTorch's order.
  Shape weight_shape() const {
    return {out_channels, groups == 0 ? 0 : in_channels / groups, kernel.h, kernel.w};
  }
};

/// floor((in + 2·padding − dilation·(kernel − 1) − 1) / stride) + 1, the only output-size formula of the
/// project. Throws ShapeError naming `op` where a size, stride or dilation is below 1, padding is negative,
/// any of them but `in` exceeds 2^31 − 1, or the dilated kernel is larger than the padded input.
LAMELLA_API std::int64_t conv_output_size(const char* op, std::int64_t in, std::int64_t kernel,
                                          std::int64_t stride, std::int64_t padding, std::int64_t dilation);

/// Checks everything and fills `out`. `input` is [N,C,H,W], `weight` [O,C/groups,kh,kw]; an empty batch is
/// allowed, no other size may be zero, and padding is at most 2^20. A stride beyond the input that has no
/// second window is cut to the input's size. Throws ShapeError naming `op` and both shapes.
LAMELLA_API Conv2dGeometry make_conv2d_geometry(const char* op, const Shape& input, const Shape& weight,
                                                Size2 stride, Size2 padding, Size2 dilation,
                                                std::int64_t groups);

}  // namespace lamella
