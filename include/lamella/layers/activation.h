#pragma once

#include <cstdint>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

/// @file
/// Activations: shape, type and memory format as the input's; elementwise but for softmax(). They throw
/// DTypeError unless the type is floating, Error for an undefined input. float16 and bfloat16 are computed in
/// float32 and rounded once. NaN stays NaN.
namespace lamella {

/// max(x, 0); its gradient at 0 is 0.
LAMELLA_API Tensor relu(const Tensor& x);
/// min(max(x, 0), 6); its gradient is 0 at 0 and at 6.
LAMELLA_API Tensor relu6(const Tensor& x);
/// x where x > 0, else slope · x.
LAMELLA_API Tensor leaky_relu(const Tensor& x, double slope = 0.01);
/// x · min(max(x + 3, 0), 6) / 6 ("Searching for MobileNetV3", arXiv 1905.02244). Its gradient is 0 at −3 and
/// 1 at 3.
LAMELLA_API Tensor hardswish(const Tensor& x);
/// min(max(x + 3, 0), 6) / 6; its gradient is 0 at ±3.
LAMELLA_API Tensor hardsigmoid(const Tensor& x);
/// 1 / (1 + exp(−x)).
LAMELLA_API Tensor sigmoid(const Tensor& x);
/// x · sigmoid(x), also called swish.
LAMELLA_API Tensor silu(const Tensor& x);

/// How gelu() computes the normal distribution function Φ.
enum class GeluApproximation : std::uint8_t {
  None,  ///< by the error function
  Tanh   ///< (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
};
/// x · Φ(x) ("Gaussian Error Linear Units", arXiv 1606.08415).
LAMELLA_API Tensor gelu(const Tensor& x, GeluApproximation approximation = GeluApproximation::None);
/// Hyperbolic tangent.
LAMELLA_API Tensor tanh(const Tensor& x);

/// exp(x) / Σ exp(x) along `axis` (negative counts from the end; ShapeError out of range), computed after
/// subtracting the largest element.
LAMELLA_API Tensor softmax(const Tensor& x, int axis);
/// log(softmax(x, axis)) without the loss of digits.
LAMELLA_API Tensor log_softmax(const Tensor& x, int axis);

}  // namespace lamella
