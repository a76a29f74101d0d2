#pragma once

#include <optional>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

/// @file
/// Elementwise arithmetic. All of it has gradients, follows the rules below, and throws Error for an
/// undefined operand, ShapeError where shapes do not broadcast, DeviceError where devices differ:
/// - Shapes broadcast as in NumPy (broadcast_shapes()).
/// - Two tensors give the type promote() names; one without axes counts only if it is of a higher kind (bool,
///   integer, floating) than one with axes. A tensor with a number keeps its type if that is floating and
///   gives float32 otherwise. Integers wrap around.
/// - float16 and bfloat16 are computed in float32 and rounded once.
/// - The result has the memory format of the first operand of the result's shape.
namespace lamella {

/// @{
/// a + b. Of two bool tensors: whether either is true.
LAMELLA_API Tensor add(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor add(const Tensor& a, double b);
/// @}
/// @{
/// a − b. Throws DTypeError for two bool tensors.
LAMELLA_API Tensor sub(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor sub(const Tensor& a, double b);
LAMELLA_API Tensor sub(double a, const Tensor& b);
/// @}
/// @{
/// a · b. Of two bool tensors: whether both are true.
LAMELLA_API Tensor mul(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor mul(const Tensor& a, double b);
/// @}
/// @{
/// a / b. True division: integers give float32.
LAMELLA_API Tensor div(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor div(const Tensor& a, double b);
LAMELLA_API Tensor div(double a, const Tensor& b);
/// @}
/// The larger of two elements; NaN if either is. Equal elements get half of the gradient each.
LAMELLA_API Tensor maximum(const Tensor& a, const Tensor& b);
/// The smaller of two elements; otherwise as maximum().
LAMELLA_API Tensor minimum(const Tensor& a, const Tensor& b);
/// base to the power of exponent. The gradient with respect to the base is 0 where the exponent is 0, and
/// that with respect to the exponent where the base is 0 and the exponent not negative. Throws DTypeError
/// unless the type of the result is floating.
LAMELLA_API Tensor pow(const Tensor& base, const Tensor& exponent);
/// The same for one exponent; an integer base gives float32.
LAMELLA_API Tensor pow(const Tensor& base, double exponent);

/// @{
/// add().
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator+(const Tensor& a, double b) { return add(a, b); }
inline Tensor operator+(double a, const Tensor& b) { return add(b, a); }
/// @}
/// @{
/// sub().
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator-(const Tensor& a, double b) { return sub(a, b); }
inline Tensor operator-(double a, const Tensor& b) { return sub(a, b); }
/// @}
/// @{
/// mul().
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator*(const Tensor& a, double b) { return mul(a, b); }
inline Tensor operator*(double a, const Tensor& b) { return mul(b, a); }
/// @}
/// @{
/// div().
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator/(const Tensor& a, double b) { return div(a, b); }
inline Tensor operator/(double a, const Tensor& b) { return div(a, b); }
/// @}

/// −x, in the type of x. Throws DTypeError for bool.
LAMELLA_API Tensor neg(const Tensor& x);
/// neg().
inline Tensor operator-(const Tensor& x) { return neg(x); }
/// |x|, in the type of x; its gradient at 0 is 0.
LAMELLA_API Tensor abs(const Tensor& x);
/// e to the power of x. Integers give float32, here and in log(), sqrt() and clamp().
LAMELLA_API Tensor exp(const Tensor& x);
/// Natural logarithm: −∞ at 0, NaN below.
LAMELLA_API Tensor log(const Tensor& x);
/// Square root: NaN below 0; its gradient at 0 is infinite.
LAMELLA_API Tensor sqrt(const Tensor& x);
/// min(max(x, low), high), of the bounds that are given; ShapeError if none is. NaN stays, and
/// a bound that is NaN makes every element NaN. The gradient passes where low <= x <= high, the bounds
/// included.
LAMELLA_API Tensor clamp(const Tensor& x, std::optional<double> low, std::optional<double> high = {});
/// a where `condition` holds, else b; all three broadcast. a and b share a type as in arithmetic, and get
/// gradients. Throws DTypeError unless `condition` is bool.
LAMELLA_API Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

}  // namespace lamella
