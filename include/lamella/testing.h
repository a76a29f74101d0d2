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

/// Two elements are close if |actual − expected| <= absolute + relative · |expected|. NaN equals NaN;
/// infinities equal themselves and nothing else, whatever the tolerance.
struct Tolerance {
  double relative = 1e-5;  ///< times |expected|
  double absolute = 1e-8;  ///< whatever the numbers
};

/// Compares shape and every element (types and layouts may differ). The message gives the first difference
/// and the worst (by what is allowed there) with their positions, and how many elements differ. Two undefined
/// tensors are close; one and a defined one are not.
LAMELLA_API Comparison all_close(const Tensor& actual, const Tensor& expected, Tolerance tolerance = {});
/// Compares shape, type and every bit, in row-major order whatever the layouts; 0 and −0 differ. The message
/// gives the first difference. Two undefined tensors are equal; one and a defined one are not.
LAMELLA_API Comparison equal_bits(const Tensor& actual, const Tensor& expected);
/// ‖actual − expected‖ / ‖expected‖ in float64 over all elements; ‖actual‖ if expected is all zero; NaN if
/// any element is. Throws ShapeError where the shapes differ, Error for an undefined tensor.
LAMELLA_API double relative_error(const Tensor& actual, const Tensor& expected);

/// How gradcheck() compares.
struct GradcheckOptions {
  double step = 1e-5;  ///< of the central difference; 1 is exact and best for functions linear in each input
  double tolerance = 1e-6;  ///< on |analytic − numeric| / max(1, |numeric|)
  std::uint64_t seed = 0;   ///< of the random cotangent and of the sampled elements
  /// Elements checked per input: where it has more, one at random from each of this many equal parts.
  std::int64_t max_elements = 200;
};
/// Compares the gradient of `function` with central differences of ⟨function(inputs), r⟩ for a random r.
/// Checks the inputs that require a gradient, and that a second call gives the same bits. Keep inputs away
/// from kinks. The message names the first input that is wrong by its place in `inputs`, its first and its
/// worst element, and how many are wrong. Inputs and their grad() are afterwards what they were before.
///
/// Throws DTypeError unless those inputs are float64 and the result is floating; Error unless they are leaves
/// and there is one at least, for an undefined result, and for max_elements below 1.
LAMELLA_API Comparison gradcheck(const std::function<Tensor(const Tensors&)>& function, const Tensors& inputs,
                                 const GradcheckOptions& options = {});

/// Everything a layer should promise, at once, in float64:
///   - gradcheck over the input and every parameter;
///   - gradients overwrite after zero_grad() even if the old ones are NaN, and add up otherwise;
///   - two runs give the same bits, and so do 1, 2 and 5 threads;
///   - a four-axis input in the other memory format gives the same numbers and keeps the promises above;
///   - state_dict() holds every number that learning or running changes: only the input and parameters
///     require gradients, and load_state_dict() of an earlier state brings the outputs back, in the layer's
///     mode and in eval() (so buffers that are not persistent must not matter to them).
/// Layers that draw random numbers are restarted from the same random state. Afterwards the module is in
/// float64 and has no gradients; its numbers, the modes, the random state and the number of threads are what
/// they were. Throws as gradcheck does.
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
/// Uniform values in [low, high) with a distance of at least `gap` from every kink, after rounding to `dtype`
/// (drawn anew until they are; integers are truncated toward zero instead). They come from a sequence of
/// their own: the process-wide random state does not move. Throws Error where kinks or rounding leave no
/// room.
LAMELLA_API Tensor random_tensor(const Shape& shape, std::uint64_t seed, const RandomOptions& options = {});

/// Slow, plain operators to test against: nested loops in float64, results in float64 NCHW. No gradients.
/// They throw ShapeError where sizes do not fit and Error for an undefined tensor that must not be.
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
