#pragma once

#include <cstdint>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

/// Fillers for parameters. Each changes the numbers in place (a parameter's too: nothing is recorded) and
/// returns the tensor. Random ones draw on the CPU from the process-wide sequence (core/random.h), so that
/// every device and memory format gets the same numbers; they throw DTypeError unless the type is floating.
/// All throw Error for an undefined tensor.
namespace lamella::init {

/// Which side of a weight keeps its variance.
enum class FanMode : std::uint8_t {
  FanIn,  ///< inputs of one output: the forward pass
  FanOut  ///< outputs of one input: the backward pass
};

/// What follows the layer; sets the gain.
enum class Nonlinearity : std::uint8_t { Linear, Sigmoid, Tanh, Relu, LeakyRelu, Selu };

/// PyTorch's gains: 1 for Linear and Sigmoid, 5/3 for Tanh, √2 for Relu, √(2 / (1 + a²)) for LeakyRelu with
/// slope a, 3/4 for Selu.
LAMELLA_API double gain(Nonlinearity nonlinearity, double a = 0.01);

/// Fans of a weight [out, in / groups, kernel…]: in = size 1 times the kernel, out = size 0 times the kernel.
struct Fans {
  std::int64_t in = 0;   ///< inputs of one output
  std::int64_t out = 0;  ///< outputs of one input, counted as PyTorch counts them
};
/// Fans of a weight of this shape. Throws ShapeError for fewer than two axes.
LAMELLA_API Fans fans(const Shape& weight);

/// Delving Deep into Rectifiers (arXiv 1502.01852). The default is PyTorch's for kaiming_*; its layers
/// use a = √5.
struct KaimingOptions {
  double a = 0;                                         ///< negative slope, for LeakyRelu
  FanMode mode = FanMode::FanIn;                        ///< which fan counts
  Nonlinearity nonlinearity = Nonlinearity::LeakyRelu;  ///< sets the gain
};

/// Every element `value`, converted to the type.
LAMELLA_API Tensor constant_(Tensor tensor, double value);
/// Every element 0.
inline Tensor zeros_(Tensor tensor) { return constant_(tensor, 0); }
/// Every element 1.
inline Tensor ones_(Tensor tensor) { return constant_(tensor, 1); }
/// Uniform in [low, high). Throws ShapeError unless low <= high and both are finite.
LAMELLA_API Tensor uniform_(Tensor tensor, double low = 0, double high = 1);
/// Normal. Throws ShapeError for a deviation that is negative or not finite, or such a mean.
LAMELLA_API Tensor normal_(Tensor tensor, double mean = 0, double deviation = 1);
/// Normal, cut to [low, high] by the inverse of its distribution function: nothing piles up at the ends. The
/// bounds are absolute, not in deviations. Throws ShapeError unless low < high, the deviation is positive and
/// all are finite.
LAMELLA_API Tensor trunc_normal_(Tensor tensor, double mean = 0, double deviation = 1, double low = -2,
                                 double high = 2);
/// Uniform within ±gain·√(3 / fan). Throws ShapeError for fewer than two axes, here and below.
LAMELLA_API Tensor kaiming_uniform_(Tensor weight, const KaimingOptions& options = {});
/// Normal with deviation gain / √fan.
LAMELLA_API Tensor kaiming_normal_(Tensor weight, const KaimingOptions& options = {});
/// Glorot and Bengio, AISTATS 2010: uniform within ±gain·√(6 / (in + out)).
LAMELLA_API Tensor xavier_uniform_(Tensor weight, double gain = 1);
/// Normal with deviation gain·√(2 / (in + out)).
LAMELLA_API Tensor xavier_normal_(Tensor weight, double gain = 1);

}  // namespace lamella::init
