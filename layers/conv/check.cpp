#include "layers/conv/check.h"

#include "core/check.h"
#include "tensor/door.h"

namespace lamella::detail {
namespace {

std::string operands(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  std::string text = concat("(input ", input.describe(), ", weight ", weight.describe());
  if (bias.defined()) text += ", bias " + bias.describe();
  return text + ")";
}

bool goes_with(DType parameter, DType input) {
  return parameter == input || (parameter == DType::Float32 && input != DType::Float64);
}

}  // namespace

void check_conv_operands(const char* op, const Tensor& input, const Tensor& weight, const Tensor& bias) {
  check_floating(op, "input", input);
  check_floating(op, "weight", weight);
  check_same_device(op, input, weight);
  LAMELLA_CHECK(DTypeError, goes_with(weight.dtype(), input.dtype()), op, ": weight must be ",
                name(input.dtype()), " like the input, or float32 for a half-precision input ",
                operands(input, weight, bias));
  if (!bias.defined()) return;
  check_floating(op, "bias", bias);
  check_same_device(op, input, bias);
  LAMELLA_CHECK(DTypeError, goes_with(bias.dtype(), input.dtype()), op, ": bias must be ",
                name(input.dtype()), " like the input, or float32 for a half-precision input ",
                operands(input, weight, bias));
  LAMELLA_CHECK(ShapeError, bias.dim() == 1 && weight.dim() > 0 && bias.size(0) == weight.size(0), op,
                ": bias must have one number for each of the ", weight.dim() > 0 ? weight.size(0) : 0,
                " output channels ", operands(input, weight, bias));
}

Conv2dGeometry conv_geometry(const char* op, const Shape& input, const Shape& weight,
                             const Conv2dOptions& options) {
  if (!options.same_padding)
    return make_conv2d_geometry(op, input, weight, options.stride, options.padding, options.dilation,
                                options.groups);
  LAMELLA_CHECK(ShapeError, options.stride == Size2(1), op, ": same_padding needs stride 1, got ",
                options.stride.h, " x ", options.stride.w);
  LAMELLA_CHECK(ShapeError, options.padding == Size2(0), op, ": same_padding and padding ", options.padding.h,
                " x ", options.padding.w, " exclude each other");
  // First with the larger side's padding on both sides, so that every size is checked.
  const auto upper_half = [](std::int64_t kernel, std::int64_t dilation) {
    std::int64_t total = 0;
    const bool fits = kernel >= 1 && dilation >= 1 && !__builtin_mul_overflow(kernel - 1, dilation, &total);
    return fits ? total / 2 + total % 2 : 0;
  };
  const Size2 kernel = weight.size() == 4 ? Size2(weight[2], weight[3]) : Size2(1);
  const Size2 padding(upper_half(kernel.h, options.dilation.h), upper_half(kernel.w, options.dilation.w));
  Conv2dGeometry g =
      make_conv2d_geometry(op, input, weight, options.stride, padding, options.dilation, options.groups);
  g.padding = {(g.kernel.h - 1) * g.dilation.h / 2, (g.kernel.w - 1) * g.dilation.w / 2};
  g.out = g.in;
  return g;
}

}  // namespace lamella::detail
