#include <cmath>
#include <limits>

#include "core/check.h"
#include "lamella/tensor/arithmetic.h"
#include "tensor/dispatch.h"
#include "tensor/elementwise.h"
#include "tensor/kernels/copy.h"
#include "tensor/kernels/elementwise.h"

namespace lamella {

using detail::GradientContext;
using detail::GradientTarget;
using detail::GradientWrite;
using detail::Operand;
using detail::Output;
using detail::read;
using detail::Saved;
using detail::TensorView;
using detail::UnaryKind;
using detail::UnaryOp;

namespace {

Output unary(const char* name, const UnaryOp& op, const Tensor& x, bool keeps_integers = false) {
  detail::check_defined(name, "input", x);
  const DType type = keeps_integers ? x.dtype() : detail::number_type(x.dtype());
  Output y(x.shape(), type, x.device(), x.memory_format());
  LAMELLA_KERNEL(x.device(), unary(op, read(x), y.write()));
  return y;
}

/// `saved` is what the gradient's formula reads (functions.h): the input or the output.
Tensor record_unary(const char* name, const UnaryOp& op, const Tensor& x, const Output& y,
                    const Tensor& saved) {
  return detail::record(name, {x}, y, [op, saved = Saved(saved)](GradientContext& context) {
    const GradientTarget target = context.target(0);
    LAMELLA_KERNEL(target.view.device,
                   unary_gradient(op, read(context.grad()), read(saved.get()), target.view, target.write));
  });
}

}  // namespace

Tensor neg(const Tensor& x) {
  detail::check_defined("neg", "input", x);
  LAMELLA_CHECK(DTypeError, x.dtype() != DType::Bool, "neg: ", x.describe(), "; use logical_not()");
  const UnaryOp op{UnaryKind::Neg};
  const Output y = unary("neg", op, x, true);
  return detail::record("neg", {x}, y, [op](GradientContext& context) {
    const GradientTarget target = context.target(0);
    const auto grad = read(context.grad());
    LAMELLA_KERNEL(target.view.device, unary_gradient(op, grad, grad, target.view, target.write));
  });
}

Tensor abs(const Tensor& x) {
  const UnaryOp op{UnaryKind::Abs};
  const Output y = unary("abs", op, x, true);
  return record_unary("abs", op, x, y, x);
}

Tensor exp(const Tensor& x) {
  const UnaryOp op{UnaryKind::Exp};
  const Output y = unary("exp", op, x);
  return record_unary("exp", op, x, y, y.unrecorded());
}

Tensor log(const Tensor& x) {
  const UnaryOp op{UnaryKind::Log};
  const Output y = unary("log", op, x);
  return record_unary("log", op, x, y, x);
}

Tensor sqrt(const Tensor& x) {
  const UnaryOp op{UnaryKind::Sqrt};
  const Output y = unary("sqrt", op, x);
  return record_unary("sqrt", op, x, y, y.unrecorded());
}

Tensor clamp(const Tensor& x, std::optional<double> low, std::optional<double> high) {
  LAMELLA_CHECK(ShapeError, low || high, "clamp: give a lower bound, an upper bound or both");
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();  // to the kernels
  if ((low && std::isnan(*low)) || (high && std::isnan(*high))) {
    detail::check_defined("clamp", "input", x);
    const Output y(x.shape(), detail::number_type(x.dtype()), x.device(), x.memory_format());
    LAMELLA_KERNEL(x.device(), fill(y.write(), kNone));
    return detail::record("clamp", {x}, y, [](GradientContext& context) {
      const GradientTarget target = context.target(0);
      if (target.write == GradientWrite::Overwrite) LAMELLA_KERNEL(target.view.device, fill(target.view, 0));
    });
  }
  const UnaryOp op{UnaryKind::Clamp, low.value_or(kNone), high.value_or(kNone)};
  const Output y = unary("clamp", op, x);
  return record_unary("clamp", op, x, y, x);
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  detail::check_defined("where", "condition", condition);
  detail::check_two("where", a, b);
  detail::check_same_device("where", condition, a);
  LAMELLA_CHECK(DTypeError, condition.dtype() == DType::Bool, "where: the condition must be bool, got ",
                condition.describe());
  const Shape shape =
      broadcast_shapes("where", condition.shape(), broadcast_shapes("where", a.shape(), b.shape()));
  const Output y(shape, detail::result_type(a, b), a.device(),
                 detail::result_format(shape, {a, b, condition}));
  LAMELLA_KERNEL(a.device(), where(broadcast_to(read(condition), shape), broadcast_to(read(a), shape),
                                   broadcast_to(read(b), shape), y.write()));
  return detail::record(
      "where", {a, b}, y,
      [condition = Saved(condition), of_a = Operand(a), of_b = Operand(b)](GradientContext& context) {
        const Tensor& grad = context.grad();
        const auto choose = [&](bool side) {
          return [&, side](const TensorView& view, GradientWrite write) {
            LAMELLA_KERNEL(view.device,
                           where_gradient(side, broadcast_to(read(condition.get()), grad.shape()), read(grad),
                                          view, write));
          };
        };
        detail::operand_gradient(context, 0, of_a, choose(true));
        detail::operand_gradient(context, 1, of_b, choose(false));
      });
}

}  // namespace lamella
