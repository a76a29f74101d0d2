#pragma once

#include <optional>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

/// Elementwise arithmetic. All of it has gradients, shares the following rules, and throws ShapeError where
/// shapes do not broadcast, DeviceError where devices differ, DTypeError where a type is not supported:
/// - Shapes broadcast as in NumPy (broadcast_shapes()).
/// - Two tensors give the type promote() names; one without axes counts only if it is of a higher kind (bool,
///   integer, floating) than one with axes. A tensor with a number keeps its type if that is floating and
///   gives float32 otherwise. Integers wrap around.
/// - float16 and bfloat16 are computed in float32 and rounded once.
/// - The result has the memory format of the first operand of the result's shape.
namespace lamella {

LAMELLA_API Tensor add(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor add(const Tensor& a, double b);
/// Throws DTypeError for bool.
LAMELLA_API Tensor sub(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor sub(const Tensor& a, double b);
LAMELLA_API Tensor sub(double a, const Tensor& b);
LAMELLA_API Tensor mul(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor mul(const Tensor& a, double b);
/// True division: integers give float32.
LAMELLA_API Tensor div(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor div(const Tensor& a, double b);
LAMELLA_API Tensor div(double a, const Tensor& b);
/// The larger and the smaller of two elements; NaN if either is. Equal elements get half of the gradient
/// each.
LAMELLA_API Tensor maximum(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor minimum(const Tensor& a, const Tensor& b);
/// a to the power b. Floating results only. The gradient with respect to the base is 0 where the exponent is
/// 0, and that with respect to the exponent where the base is 0 and the exponent not negative.
LAMELLA_API Tensor pow(const Tensor& base, const Tensor& exponent);
LAMELLA_API Tensor pow(const Tensor& base, double exponent);

inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator+(const Tensor& a, double b) { return add(a, b); }
inline Tensor operator+(double a, const Tensor& b) { return add(b, a); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator-(const Tensor& a, double b) { return sub(a, b); }
inline Tensor operator-(double a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator*(const Tensor& a, double b) { return mul(a, b); }
inline Tensor operator*(double a, const Tensor& b) { return mul(b, a); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator/(const Tensor& a, double b) { return div(a, b); }
inline Tensor operator/(double a, const Tensor& b) { return div(a, b); }

/// −x. Throws DTypeError for bool.
LAMELLA_API Tensor neg(const Tensor& x);
inline Tensor operator-(const Tensor& x) { return neg(x); }
/// |x|; its gradient at 0 is 0.
LAMELLA_API Tensor abs(const Tensor& x);
/// Integers give float32, here and in log() and sqrt().
LAMELLA_API Tensor exp(const Tensor& x);
/// Natural logarithm.
LAMELLA_API Tensor log(const Tensor& x);
LAMELLA_API Tensor sqrt(const Tensor& x);
/// min(max(x, low), high), of the bounds that are given (ShapeError if none is). NaN stays. The gradient
/// passes where low <= x <= high, the bounds included.
LAMELLA_API Tensor clamp(const Tensor& x, std::optional<double> low, std::optional<double> high = {});
/// a where `condition` (bool; DTypeError otherwise) holds, else b; all three broadcast.
LAMELLA_API Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

}  // namespace lamella
