#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/tensor.h"

/// @file
/// Help for testing layers and operators. No test framework is needed here; for GoogleTest there is
/// lamella/testing/matchers.h. Link lamella::testing.
namespace lamella {
class Module;
}

/// Comparisons, checks of gradients and layers, plain reference operators.
namespace lamella::testing {

/// Yes, or no and why.
struct Comparison {
  bool ok = true;       ///< whether it is so
  std::string message;  ///< empty when ok
  /// ok.
  explicit operator bool() const { return ok; }
};

/// Two elements are close if |actual − expected| <= absolute + relative · |expected|. NaN equals NaN,
/// infinities equal themselves.
struct Tolerance {
  double relative = 1e-5;  ///< times |expected|
  double absolute = 1e-8;  ///< whatever the numbers
};

/// Compares shape and every element (types may differ). The message gives the first and the worst difference
/// with their positions, and how many elements differ.
LAMELLA_API Comparison all_close(const Tensor& actual, const Tensor& expected, Tolerance tolerance = {});
/// Compares shape, type and every bit.
LAMELLA_API Comparison equal_bits(const Tensor& actual, const Tensor& expected);
/// ‖actual − expected‖ / ‖expected‖ in float64 over all elements; ‖actual‖ if expected is all zero; NaN if
/// any element is. Throws ShapeError for different shapes.
LAMELLA_API double relative_error(const Tensor& actual, const Tensor& expected);

/// How gradcheck() compares.
struct GradcheckOptions {
  double step = 1e-5;  ///< of the central difference; 1 is exact and best for functions linear in each input
  double tolerance = 1e-6;          ///< on |analytic − numeric| / max(1, |numeric|)
  std::uint64_t seed = 0;           ///< of the random cotangent and of the sampled elements
  std::int64_t max_elements = 200;  ///< elements checked per input, sampled evenly beyond
};
/// Compares the gradient of `function` with central differences of ⟨function(inputs), r⟩ for a random r.
/// Checks the inputs that require a gradient; they must be float64 leaves (throws DTypeError, Error
/// otherwise). `function` must be deterministic. Keep inputs away from kinks.
LAMELLA_API Comparison gradcheck(const std::function<Tensor(const Tensors&)>& function, const Tensors& inputs,
                                 const GradcheckOptions& options = {});

/// Everything a layer should promise, at once: in float64, gradcheck over the input and every parameter;
/// gradients overwrite after zero_grad() even if the old ones are NaN, and add up otherwise; two runs give
/// the same bits, and so does any number of threads; for a four-axis input, channels_last gives the same
/// numbers; state_dict() holds every number the output depends on. The module is left in float64. Layers that
/// draw random numbers are restarted from the same random state.
LAMELLA_API Comparison check_layer(const std::function<Tensor(const Tensor&)>& forward, Module& module,
                                   const Tensor& input, const GradcheckOptions& options = {});
/// check_layer for a module's own forward().
LAMELLA_API Comparison check_layer(Module& module, const Tensor& input, const GradcheckOptions& options = {});

/// What random_tensor() makes.
struct RandomOptions {
  double low = -1;                                 ///< least value
  double high = 1;                                 ///< values stay below
  std::vector<double> kinks = {};                  ///< points to stay away from
  double gap = 0.01;                               ///< least distance from a kink
  DType dtype = DType::Float64;                    ///< of the elements
  MemoryFormat format = MemoryFormat::Contiguous;  ///< of the tensor
  bool requires_grad = false;                      ///< see Tensor::set_requires_grad()
};
/// Uniform values in [low, high) with a distance of at least `gap` from every kink, from a sequence of their
/// own: the process-wide random state does not move.
LAMELLA_API Tensor random_tensor(const Shape& shape, std::uint64_t seed, const RandomOptions& options = {});

/// Slow, plain operators to test against: nested loops in float64, results in float64 NCHW. No gradients.
namespace reference {
/// Cross-correlation with any groups; `bias` may be undefined.
LAMELLA_API Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias, Size2 stride = 1,
                          Size2 padding = 0, Size2 dilation = 1, std::int64_t groups = 1);
/// Gradient of conv2d with respect to its input.
LAMELLA_API Tensor conv2d_backward_input(const Tensor& grad_output, const Tensor& weight,
                                         const Shape& input_shape, Size2 stride = 1, Size2 padding = 0,
                                         Size2 dilation = 1, std::int64_t groups = 1);
/// Gradient of conv2d with respect to its weight.
LAMELLA_API Tensor conv2d_backward_weight(const Tensor& grad_output, const Tensor& input,
                                          const Shape& weight_shape, Size2 stride = 1, Size2 padding = 0,
                                          Size2 dilation = 1, std::int64_t groups = 1);
/// [m,k] times [k,n].
LAMELLA_API Tensor matmul(const Tensor& a, const Tensor& b);
/// Normalises each channel of [N,C,…] by its own mean and biased variance, then weight and bias (may be
/// undefined).
LAMELLA_API Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps = 1e-5);
/// log(softmax) along the last axis of [N,C].
LAMELLA_API Tensor log_softmax(const Tensor& logits);
}  // namespace reference

}  // namespace lamella::testing
