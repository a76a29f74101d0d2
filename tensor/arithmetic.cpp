#include "lamella/tensor/arithmetic.h"

#include "core/check.h"
#include "core/profiling_bytes.h"
#include "tensor/dispatch.h"
#include "tensor/elementwise.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/plane_product.h"

namespace lamella {

using detail::BinaryOp;
using detail::GradientContext;
using detail::GradientTarget;
using detail::GradientWrite;
using detail::Operand;
using detail::Output;
using detail::PendingActivation;
using detail::read;
using detail::Saved;
using detail::TensorView;
using detail::TernaryOp;

namespace {

void check_not_bool(const char* op, DType type) {
  LAMELLA_CHECK(DTypeError, type != DType::Bool, op,
                ": bool operands; use logical_not() or convert them to a number type");
}

Output binary(const char* name, BinaryOp op, const Tensor& a, const Tensor& b, DType type) {
  const Shape shape = broadcast_shapes(name, a.shape(), b.shape());
  Output y(shape, type, a.device(), detail::result_format(shape, {a, b}));
  LAMELLA_KERNEL(a.device(), binary(op, broadcast_to(read(a), shape), broadcast_to(read(b), shape), y.write(),
                                    GradientWrite::Overwrite));
  return y;
}

Output binary(BinaryOp op, const Tensor& a, double b) {
  Output y(a.shape(), detail::number_type(a.dtype()), a.device(), a.memory_format());
  LAMELLA_KERNEL(a.device(), binary(op, read(a), b, y.write(), GradientWrite::Overwrite));
  return y;
}

Output binary(BinaryOp op, double a, const Tensor& b) {
  Output y(b.shape(), detail::number_type(b.dtype()), b.device(), b.memory_format());
  LAMELLA_KERNEL(b.device(), binary(op, a, read(b), y.write(), GradientWrite::Overwrite));
  return y;
}

/// Writes grad op other.
void grad_op(GradientContext& context, int input, const Operand& operand, BinaryOp op, const Tensor& other) {
  detail::operand_gradient(context, input, operand, [&](const TensorView& view, GradientWrite write) {
    const Tensor& grad = context.grad();
    LAMELLA_KERNEL(view.device, binary(op, read(grad), broadcast_to(read(other), grad.shape()), view, write));
  });
}
void grad_op(GradientContext& context, int input, BinaryOp op, double number) {
  if (const GradientTarget target = context.target(input))
    LAMELLA_KERNEL(target.view.device, binary(op, read(context.grad()), number, target.view, target.write));
}

/// The gradient of one factor of a product. Of a gate, [N,C,1,1] on [N,C,H,W], in one pass.
void factor_gradient(GradientContext& context, int input, const Operand& factor, const Tensor& other) {
  if (!context.needs(input)) return;
  const Tensor& grad = context.grad();
  const Shape& shape = grad.shape();
  const bool gate = shape.size() == 4 && factor.shape == Shape{shape[0], shape[1], 1, 1} &&
                    shape[2] * shape[3] > 1 && other.shape() == shape;
  if (!gate) return grad_op(context, input, factor, BinaryOp::Mul, other);
  const GradientTarget target = context.target(input);
  LAMELLA_KERNEL(target.view.device, plane_product(read(grad), read(other), target.view, target.write));
}

/// Writes op(grad, a, b).
void grad_op(GradientContext& context, int input, const Operand& operand, TernaryOp op, const Tensor& a,
             const Tensor& b) {
  detail::operand_gradient(context, input, operand, [&](const TensorView& view, GradientWrite write) {
    const Tensor& grad = context.grad();
    LAMELLA_KERNEL(view.device, ternary(op, read(grad), broadcast_to(read(a), grad.shape()),
                                        broadcast_to(read(b), grad.shape()), view, write));
  });
}

/// The extremes differ in their names alone. Each operand's gradient has the operands the other way round.
Tensor extreme(const char* name, BinaryOp op, TernaryOp gradient, const Tensor& a, const Tensor& b) {
  detail::check_two(name, a, b);
  const Output y = binary(name, op, a, b, detail::result_type(a, b));
  return detail::record(
      name, {a, b}, y,
      [gradient, a = Saved(a), b = Saved(b), of_a = Operand(a), of_b = Operand(b)](GradientContext& context) {
        grad_op(context, 0, of_a, gradient, a.get(), b.get());
        grad_op(context, 1, of_b, gradient, b.get(), a.get());
      });
}

/// Whether `x` owes scale and shift only: a sum applies them on the way (the end of a residual block).
bool can_fold(const Tensor& x) {
  const detail::profiling::BytesApart only_a_look;
  return detail::fusion_enabled() && detail::is_pending(x) &&
         detail::read_pending(x).activation == PendingActivation::None;
}

Output sum_of(const Tensor& a, const Tensor& b) {
  const bool alike = a.shape() == b.shape() && a.dtype() == b.dtype();
  const bool fold_a = alike && can_fold(a);
  if (!fold_a && !(alike && can_fold(b)))
    return binary("add", BinaryOp::Add, a, b, detail::result_type(a, b));
  const Tensor& owing = fold_a ? a : b;
  const Tensor& other = fold_a ? b : a;
  Output y = Output::like(a);
  const auto values = read(other);  // first: it may be the same tensor, and is then applied
  LAMELLA_KERNEL(a.device(), add_pending(detail::read_pending(owing), values, y.write()));
  detail::count_folded();
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  detail::check_two("add", a, b);
  const Output y = sum_of(a, b);
  return detail::record("add", {a, b}, y, [of_a = Operand(a), of_b = Operand(b)](GradientContext& context) {
    detail::pass_gradient(context, 0, of_a);
    detail::pass_gradient(context, 1, of_b);
  });
}

Tensor add(const Tensor& a, double b) {
  detail::check_defined("add", "first operand", a);
  const Output y = binary(BinaryOp::Add, a, b);
  return detail::record("add", {a}, y,
                        [of_a = Operand(a)](GradientContext& context) { pass_gradient(context, 0, of_a); });
}

Tensor sub(const Tensor& a, const Tensor& b) {
  detail::check_two("sub", a, b);
  const DType type = detail::result_type(a, b);
  check_not_bool("sub", type);
  const Output y = binary("sub", BinaryOp::Sub, a, b, type);
  return detail::record("sub", {a, b}, y, [of_a = Operand(a), of_b = Operand(b)](GradientContext& context) {
    detail::pass_gradient(context, 0, of_a);
    if (!context.needs(1)) return;
    const Tensor& grad = context.grad();
    if (grad.shape() == of_b.shape)
      grad_op(context, 1, BinaryOp::Mul, -1);
    else  // the sum is the smaller one to turn
      context.add(1, neg(sum_to(grad, of_b.shape)).to(of_b.dtype));
  });
}

Tensor sub(const Tensor& a, double b) {
  detail::check_defined("sub", "first operand", a);
  const Output y = binary(BinaryOp::Sub, a, b);
  return detail::record("sub", {a}, y,
                        [of_a = Operand(a)](GradientContext& context) { pass_gradient(context, 0, of_a); });
}

Tensor sub(double a, const Tensor& b) {
  detail::check_defined("sub", "second operand", b);
  const Output y = binary(BinaryOp::Sub, a, b);
  return detail::record("sub", {b}, y,
                        [](GradientContext& context) { grad_op(context, 0, BinaryOp::Mul, -1); });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  detail::check_two("mul", a, b);
  const Output y = binary("mul", BinaryOp::Mul, a, b, detail::result_type(a, b));
  return detail::record(
      "mul", {a, b}, y,
      [a = Saved::when(detail::wants_gradient(b), a), b = Saved::when(detail::wants_gradient(a), b),
       of_a = Operand(a), of_b = Operand(b)](GradientContext& context) {
        factor_gradient(context, 0, of_a, b.get());
        factor_gradient(context, 1, of_b, a.get());
      });
}

Tensor mul(const Tensor& a, double b) {
  detail::check_defined("mul", "first operand", a);
  const Output y = binary(BinaryOp::Mul, a, b);
  return detail::record("mul", {a}, y,
                        [b](GradientContext& context) { grad_op(context, 0, BinaryOp::Mul, b); });
}

Tensor div(const Tensor& a, const Tensor& b) {
  detail::check_two("div", a, b);
  const Output y = binary("div", BinaryOp::Div, a, b, detail::number_type(detail::result_type(a, b)));
  return detail::record("div", {a, b}, y,
                        [a = Saved::when(detail::wants_gradient(b), a), b = Saved(b), of_a = Operand(a),
                         of_b = Operand(b)](GradientContext& context) {
                          grad_op(context, 0, of_a, BinaryOp::Div, b.get());
                          grad_op(context, 1, of_b, TernaryOp::DivisorGradient, a.get(), b.get());
                        });
}

Tensor div(const Tensor& a, double b) {
  detail::check_defined("div", "first operand", a);
  const Output y = binary(BinaryOp::Div, a, b);
  return detail::record("div", {a}, y,
                        [b](GradientContext& context) { grad_op(context, 0, BinaryOp::Div, b); });
}

Tensor div(double a, const Tensor& b) {
  detail::check_defined("div", "second operand", b);
  const Output y = binary(BinaryOp::Div, a, b);
  return detail::record("div", {b}, y, [a, b = Saved(b)](GradientContext& context) {
    const GradientTarget target = context.target(0);
    LAMELLA_KERNEL(target.view.device, ternary(TernaryOp::DivisorGradient, read(context.grad()), a,
                                               read(b.get()), target.view, target.write));
  });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  return extreme("maximum", BinaryOp::Maximum, TernaryOp::MaximumGradient, a, b);
}

Tensor minimum(const Tensor& a, const Tensor& b) {
  return extreme("minimum", BinaryOp::Minimum, TernaryOp::MinimumGradient, a, b);
}

Tensor pow(const Tensor& base, const Tensor& exponent) {
  detail::check_two("pow", base, exponent);
  const DType type = detail::result_type(base, exponent);
  LAMELLA_CHECK(DTypeError, is_floating(type), "pow: one operand must be floating, got ", base.describe(),
                " and ", exponent.describe());
  const Output y = binary("pow", BinaryOp::Pow, base, exponent, type);
  return detail::record("pow", {base, exponent}, y,
                        [a = Saved(base), b = Saved(exponent), of_a = Operand(base),
                         of_b = Operand(exponent)](GradientContext& context) {
                          grad_op(context, 0, of_a, TernaryOp::BaseGradient, a.get(), b.get());
                          grad_op(context, 1, of_b, TernaryOp::ExponentGradient, a.get(), b.get());
                        });
}

Tensor pow(const Tensor& base, double exponent) {
  detail::check_defined("pow", "base", base);
  const Output y = binary(BinaryOp::Pow, base, exponent);
  return detail::record("pow", {base}, y, [a = Saved(base), exponent](GradientContext& context) {
    const GradientTarget target = context.target(0);
    LAMELLA_KERNEL(target.view.device, ternary(TernaryOp::BaseGradient, read(context.grad()), read(a.get()),
                                               exponent, target.view, target.write));
  });
}

}  // namespace lamella
