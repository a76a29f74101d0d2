#include "lamella/layers/linear.h"

#include "autograd/autocast.h"
#include "autograd/record.h"
#include "core/check.h"
#include "lamella/tensor/reduce.h"
#include "tensor/dispatch.h"
#include "tensor/kernels/gemm.h"

namespace lamella {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GemmOperand;
using detail::GradientContext;
using detail::GradientTarget;
using detail::Output;
using detail::read;
using detail::Saved;
using detail::TensorView;

namespace {

constexpr const char* kName = "linear";

GemmOperand matrix(const ConstTensorView& x, bool transposed = false) {
  const std::int64_t row = x.strides[0], column = x.strides[1];
  return {x.data, x.dtype, transposed ? column : row, transposed ? row : column, {}};
}

/// target = or += a·b; `target` is a matrix, or a vector as a column.
void multiply(const GemmOperand& a, const GemmOperand& b, const GemmOperand& bias, std::int64_t inner,
              const TensorView& target, detail::GradientWrite write) {
  Gemm g;
  g.m = target.shape[0];
  g.n = target.shape.size() == 1 ? 1 : target.shape[1];
  g.k = inner;
  g.a = a;
  g.b = b;
  g.bias = bias;
  g.c = target.data;
  g.c_dtype = target.dtype;
  g.c_row = target.strides[0];
  g.c_column = target.shape.size() == 1 ? 1 : target.strides[1];
  g.write = write;
  LAMELLA_KERNEL(target.device, gemm(g));
}

void check(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const auto operands = [&] {
    return detail::concat(" (input ", x.describe(), ", weight ", weight.describe(),
                          bias.defined() ? ", bias " + bias.describe() : "", ")");
  };
  const auto check_parameter = [&](const char* what, const Tensor& parameter) {
    detail::check_floating(kName, what, parameter);
    detail::check_same_device(kName, x, parameter);
    LAMELLA_CHECK(DTypeError,
                  parameter.dtype() == x.dtype() ||
                      (parameter.dtype() == DType::Float32 && x.dtype() != DType::Float64),
                  kName, ": ", what, " must be ", name(x.dtype()),
                  " like the input, or float32 for a half-precision input", operands());
  };
  detail::check_floating(kName, "input", x);
  check_parameter("weight", weight);
  LAMELLA_CHECK(ShapeError, x.dim() >= 1, kName, ": input needs at least one axis", operands());
  LAMELLA_CHECK(ShapeError, weight.dim() == 2, kName, ": weight must have 2 axes [out,in]", operands());
  LAMELLA_CHECK(ShapeError, x.size(-1) == weight.size(1), kName, ": weight takes ", weight.size(1),
                " features but input has ", x.size(-1), operands());
  if (!bias.defined()) return;
  check_parameter("bias", bias);
  LAMELLA_CHECK(ShapeError, bias.dim() == 1 && bias.size(0) == weight.size(0), kName, ": bias must have ",
                weight.size(0), " numbers", operands());
}

}  // namespace

Tensor linear(const Tensor& given, const Tensor& weight, const Tensor& bias) {
  check(given, weight, bias);
  const Tensor x = detail::lowered(given), w = detail::lowered_parameter(x, weight);
  if (x.dim() != 2) {
    Shape result = x.shape();
    result.erase(result.size() - 1);
    const std::int64_t rows = result.product();
    result.push_back(weight.size(0));
    return linear(x.reshape({rows, weight.size(1)}), weight, bias).reshape(result);
  }
  const std::int64_t rows = x.size(0), in = weight.size(1), out = weight.size(0);
  const Output y({rows, out}, x.dtype(), x.device());
  GemmOperand shift;
  if (bias.defined()) {
    const ConstTensorView view = read(bias);
    shift = {view.data, view.dtype, 0, view.strides[0], {}};
  }
  multiply(matrix(read(x)), matrix(read(w), true), shift, in, y.write(), detail::GradientWrite::Overwrite);
  const DType bias_type = bias.defined() ? bias.dtype() : x.dtype();
  return detail::record(
      kName, {x, weight, bias}, y,
      [rows, out, bias_type, x = Saved::when(detail::wants_gradient(weight), x),
       weight = Saved::when(detail::wants_gradient(x), w)](GradientContext& context) {
        const Tensor& grad = context.grad();
        if (const GradientTarget dx = context.target(0))
          multiply(matrix(read(grad)), matrix(read(weight.get())), {}, out, dx.view, dx.write);
        if (const GradientTarget dw = context.target(1))
          multiply(matrix(read(grad), true), matrix(read(x.get())), {}, rows, dw.view, dw.write);
        if (context.needs(2)) context.add(2, sum(context.grad().to(bias_type), {.axes = {0}}));
      });
}

}  // namespace lamella
