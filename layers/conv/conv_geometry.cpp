#include "lamella/layers/conv_geometry.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/check.h"

namespace lamella {
namespace {

// With these no product of the kernels' index arithmetic leaves int64.
constexpr std::int64_t kMostSize = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMostPadding = std::int64_t{1} << 20;  // some kernels' working memory grows with it

// False where a sum or product leaves int64.
bool dilated_extent(std::int64_t kernel, std::int64_t dilation, std::int64_t& extent) {
  return !__builtin_mul_overflow(dilation, kernel - 1, &extent) &&
         !__builtin_add_overflow(extent, 1, &extent);
}
bool padded_size(std::int64_t in, std::int64_t padding, std::int64_t& padded) {
  return !__builtin_mul_overflow(padding, 2, &padded) && !__builtin_add_overflow(padded, in, &padded);
}

void check_countable(const char* op, const char* what, const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size == 0) continue;  // an empty batch does not excuse the other sizes
    LAMELLA_CHECK(ShapeError, !__builtin_mul_overflow(count, size, &count), op, ": ", what, " ",
                  shape.to_string(), " has more elements than a 64-bit number counts");
  }
}

}  // namespace

std::int64_t conv_output_size(const char* op, std::int64_t in, std::int64_t kernel, std::int64_t stride,
                              std::int64_t padding, std::int64_t dilation) {
  const auto describe = [&] {
    return detail::concat("(input ", in, ", kernel ", kernel, ", stride ", stride, ", padding ", padding,
                          ", dilation ", dilation, ")");
  };
  LAMELLA_CHECK(ShapeError, in >= 1, op, ": input size ", in, " must be at least 1 ", describe());
  LAMELLA_CHECK(ShapeError, kernel >= 1, op, ": kernel size ", kernel, " must be at least 1 ", describe());
  LAMELLA_CHECK(ShapeError, stride >= 1, op, ": stride ", stride, " must be at least 1 ", describe());
  LAMELLA_CHECK(ShapeError, padding >= 0, op, ": padding ", padding, " must not be negative ", describe());
  LAMELLA_CHECK(ShapeError, dilation >= 1, op, ": dilation ", dilation, " must be at least 1 ", describe());
  for (const auto& [what, value] : {std::pair{"kernel size", kernel}, std::pair{"stride", stride},
                                    std::pair{"dilation", dilation}, std::pair{"padding", padding}})
    LAMELLA_CHECK(ShapeError, value <= kMostSize, op, ": ", what, " ", value, " must be at most ", kMostSize,
                  " ", describe());
  std::int64_t extent, padded;
  LAMELLA_CHECK(ShapeError, dilated_extent(kernel, dilation, extent) && padded_size(in, padding, padded), op,
                ": sizes exceed 64 bits ", describe());
  LAMELLA_CHECK(ShapeError, extent <= padded, op, ": the dilated kernel covers ", extent,
                " but the padded input has only ", padded, " ", describe());
  return (padded - extent) / stride + 1;
}

Conv2dGeometry make_conv2d_geometry(const char* op, const Shape& input, const Shape& weight, Size2 stride,
                                    Size2 padding, Size2 dilation, std::int64_t groups) {
  const auto shapes = [&] {
    return detail::concat("(input ", input.to_string(), ", weight ", weight.to_string(), ", groups ", groups,
                          ")");
  };
  LAMELLA_CHECK(ShapeError, input.size() == 4, op, ": input must have 4 axes [N,C,H,W], has ", input.size(),
                " ", shapes());
  LAMELLA_CHECK(ShapeError, weight.size() == 4, op, ": weight must have 4 axes [O,C/groups,kh,kw], has ",
                weight.size(), " ", shapes());
  LAMELLA_CHECK(ShapeError, groups >= 1, op, ": groups must be at least 1 ", shapes());
  LAMELLA_CHECK(ShapeError, input[0] >= 0, op, ": batch size must not be negative ", shapes());
  LAMELLA_CHECK(ShapeError, input[1] >= 1 && weight[0] >= 1, op,
                ": input and output need at least 1 channel ", shapes());
  LAMELLA_CHECK(ShapeError, input[1] % groups == 0, op, ": ", input[1], " input channels do not divide into ",
                groups, " groups ", shapes());
  LAMELLA_CHECK(ShapeError, weight[0] % groups == 0, op, ": ", weight[0],
                " output channels do not divide into ", groups, " groups ", shapes());
  LAMELLA_CHECK(ShapeError, weight[1] == input[1] / groups, op, ": weight takes ", weight[1],
                " channels per group but input has ", input[1], " channels in ", groups,
                " groups, so it must be ", input[1] / groups, " ", shapes());
  Conv2dGeometry g;
  g.batch = input[0];
  g.in_channels = input[1];
  g.out_channels = weight[0];
  g.groups = groups;
  g.in = {input[2], input[3]};
  g.kernel = {weight[2], weight[3]};
  g.stride = stride;
  g.padding = padding;
  g.dilation = dilation;
  const auto output_size = [&](const char* axis, std::int64_t in, std::int64_t kernel, std::int64_t s,
                               std::int64_t p, std::int64_t d) {
    try {
      return conv_output_size(op, in, kernel, s, p, d);
    } catch (const ShapeError& error) {
      throw ShapeError(detail::concat(error.what(), " along ", axis, " ", shapes()));
    }
  };
  LAMELLA_CHECK(ShapeError, std::max(padding.h, padding.w) <= kMostPadding, op, ": padding ", padding.h,
                " x ", padding.w, " must be at most ", kMostPadding, " ", shapes());
  g.out.h = output_size("height", g.in.h, g.kernel.h, stride.h, padding.h, dilation.h);
  g.out.w = output_size("width", g.in.w, g.kernel.w, stride.w, padding.w, dilation.w);
  // Where there is no second window the stride means nothing; a large one would only cost working memory.
  if (g.out.h == 1) g.stride.h = std::min(g.stride.h, g.in.h);
  if (g.out.w == 1) g.stride.w = std::min(g.stride.w, g.in.w);
  check_countable(op, "input", input);
  check_countable(op, "weight", weight);
  check_countable(op, "output", g.output_shape());
  return g;
}

}  // namespace lamella
