#include "lamella/tensor/compare.h"

#include "core/check.h"
#include "tensor/dispatch.h"
#include "tensor/elementwise.h"
#include "tensor/kernels/elementwise.h"

namespace lamella {

using detail::CompareOp;
using detail::Output;
using detail::read;

namespace {

Tensor compare(const char* name, CompareOp op, const Tensor& a, const Tensor& b) {
  detail::check_two(name, a, b);
  const Shape shape = broadcast_shapes(name, a.shape(), b.shape());
  const Output y(shape, DType::Bool, a.device(), detail::result_format(shape, {a, b}));
  LAMELLA_KERNEL(a.device(),
                 compare(op, broadcast_to(read(a), shape), broadcast_to(read(b), shape), y.write()));
  return detail::without_gradient(name, y);
}

/// The number as the tensor's type has it.
double round_to(double number, DType type) {
  switch (type) {
    case DType::Float32:
      return static_cast<float>(number);
    case DType::BFloat16:
      return BFloat16(static_cast<float>(number));
    case DType::Float16:
      return Float16(static_cast<float>(number));
    default:
      return number;
  }
}

Tensor compare(const char* name, CompareOp op, const Tensor& a, double b) {
  detail::check_defined(name, "first operand", a);
  const Output y(a.shape(), DType::Bool, a.device(), a.memory_format());
  LAMELLA_KERNEL(a.device(), compare(op, read(a), round_to(b, a.dtype()), y.write()));
  return detail::without_gradient(name, y);
}

}  // namespace

Tensor equal(const Tensor& a, const Tensor& b) { return compare("equal", CompareOp::Equal, a, b); }
Tensor equal(const Tensor& a, double b) { return compare("equal", CompareOp::Equal, a, b); }
Tensor not_equal(const Tensor& a, const Tensor& b) { return compare("not_equal", CompareOp::NotEqual, a, b); }
Tensor not_equal(const Tensor& a, double b) { return compare("not_equal", CompareOp::NotEqual, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return compare("less", CompareOp::Less, a, b); }
Tensor less(const Tensor& a, double b) { return compare("less", CompareOp::Less, a, b); }
Tensor less_equal(const Tensor& a, const Tensor& b) {
  return compare("less_equal", CompareOp::LessEqual, a, b);
}
Tensor less_equal(const Tensor& a, double b) { return compare("less_equal", CompareOp::LessEqual, a, b); }
Tensor greater(const Tensor& a, const Tensor& b) { return compare("greater", CompareOp::Greater, a, b); }
Tensor greater(const Tensor& a, double b) { return compare("greater", CompareOp::Greater, a, b); }
Tensor greater_equal(const Tensor& a, const Tensor& b) {
  return compare("greater_equal", CompareOp::GreaterEqual, a, b);
}
Tensor greater_equal(const Tensor& a, double b) {
  return compare("greater_equal", CompareOp::GreaterEqual, a, b);
}

Tensor logical_not(const Tensor& x) { return compare("logical_not", CompareOp::Equal, x, 0.0); }
Tensor logical_and(const Tensor& a, const Tensor& b) { return compare("logical_and", CompareOp::And, a, b); }
Tensor logical_or(const Tensor& a, const Tensor& b) { return compare("logical_or", CompareOp::Or, a, b); }

Tensor isnan(const Tensor& x) {
  detail::check_defined("isnan", "input", x);
  return compare("isnan", CompareOp::NotEqual, x, x);
}

}  // namespace lamella
