#pragma once

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

/// @file
/// Elementwise tests. Results are bool and have no gradient. Shapes broadcast; two tensors are compared in
/// the type that arithmetic.h gives them, so that only integers may be rounded, to a floating type. A number
/// is first rounded to the type of a floating tensor: float32 0.1 equals 0.1. They throw Error, ShapeError
/// and DeviceError as there.
namespace lamella {

/// @{
/// a = b; never for NaN.
LAMELLA_API Tensor equal(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor equal(const Tensor& a, double b);
/// @}
/// @{
/// a ≠ b; always for NaN.
LAMELLA_API Tensor not_equal(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor not_equal(const Tensor& a, double b);
/// @}
/// @{
/// a < b; never for NaN, here and below.
LAMELLA_API Tensor less(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor less(const Tensor& a, double b);
/// @}
/// @{
/// a ≤ b.
LAMELLA_API Tensor less_equal(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor less_equal(const Tensor& a, double b);
/// @}
/// @{
/// a > b.
LAMELLA_API Tensor greater(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor greater(const Tensor& a, double b);
/// @}
/// @{
/// a ≥ b.
LAMELLA_API Tensor greater_equal(const Tensor& a, const Tensor& b);
LAMELLA_API Tensor greater_equal(const Tensor& a, double b);
/// @}

/// Whether x is false. Of any type: an element counts as true unless it is 0 (NaN is true), here and below.
LAMELLA_API Tensor logical_not(const Tensor& x);
/// Whether both are true.
LAMELLA_API Tensor logical_and(const Tensor& a, const Tensor& b);
/// Whether either is true, or both.
LAMELLA_API Tensor logical_or(const Tensor& a, const Tensor& b);

/// True where x is NaN; nowhere for integers.
LAMELLA_API Tensor isnan(const Tensor& x);

}  // namespace lamella
