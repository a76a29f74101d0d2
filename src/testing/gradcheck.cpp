#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/philox.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"

namespace lamella::testing {

namespace {

double dot(const Tensor& y, const std::vector<double>& r) {
  const auto values = y.to_vector<double>();
  double total = 0;
  for (std::size_t i = 0; i < values.size(); ++i) total += values[i] * r[i];
  return total;
}

}  // namespace

Tensor random_tensor(const Shape& shape, std::uint64_t seed, const RandomOptions& options) {
  std::vector<double> values(static_cast<std::size_t>(shape.product()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto bits = lamella::detail::philox4x32(seed, i, 0x7e57u);
    double value = options.low + (options.high - options.low) * static_cast<double>(bits.lane[0]) * 0x1p-32;
    for (const double kink : options.kinks)
      if (std::abs(value - kink) < options.gap) value = kink + (value < kink ? -options.gap : options.gap);
    values[i] = value;
  }
  return from_vector(
      values, shape,
      {.dtype = options.dtype, .format = options.format, .requires_grad = options.requires_grad});
}

Comparison gradcheck(const std::function<Tensor(const Tensors&)>& function, const Tensors& inputs,
                     const GradcheckOptions& options) {
  const EnableGrad enable;
  Tensors checked;
  for (const Tensor& input : inputs) {
    if (!input.defined() || !input.requires_grad()) continue;
    LAMELLA_CHECK(Error, input.is_leaf(), "gradcheck: ", input.describe(),
                  " is the result of an operator; detach it");
    LAMELLA_CHECK(DTypeError, input.dtype() == DType::Float64, "gradcheck: ", input.describe(),
                  " is not float64");
    checked.push_back(input);
  }
  LAMELLA_CHECK(Error, !checked.empty(), "gradcheck: no input requires a gradient");

  const Tensor y = function(inputs);
  const Tensor cotangent = random_tensor(y.shape(), options.seed + 1, {.dtype = y.dtype()}).to(y.device());
  const std::vector<double> r = cotangent.to_vector<double>();
  const Tensors gradients = gradients_of({y}, checked, {cotangent});

  const NoGrad no_grad;
  for (std::size_t i = 0; i < checked.size(); ++i) {
    Tensor input = checked[i];
    const std::int64_t count = input.numel();
    const std::vector<double> analytic = gradients[i].defined()
                                             ? gradients[i].to_vector<double>()
                                             : std::vector<double>(static_cast<std::size_t>(count));
    const std::vector<double> original = input.to_vector<double>();
    const std::int64_t stride =
        std::max<std::int64_t>(1, count / std::max<std::int64_t>(1, options.max_elements));
    const auto at = [&](std::int64_t element, double value) {
      std::vector<double> moved = original;
      moved[static_cast<std::size_t>(element)] = value;
      input.copy_(from_vector(moved, input.shape()).to(input.device()));
      return dot(function(inputs), r);
    };
    Comparison result;
    for (std::int64_t k = 0; k < count && result; k += stride) {
      const auto at_k = static_cast<std::size_t>(k);
      const double numeric =
          (at(k, original[at_k] + options.step) - at(k, original[at_k] - options.step)) / (2 * options.step);
      const double error = std::abs(analytic[at_k] - numeric) / std::max(1.0, std::abs(numeric));
      if (!(error <= options.tolerance)) {
        std::ostringstream out;
        out.precision(12);
        out << "gradcheck: input " << i << ' ' << input.describe() << ", element " << k << ": gradient "
            << analytic[at_k] << ", central difference " << numeric << ", error " << error << " (allowed "
            << options.tolerance << ")";
        result = {false, out.str()};
      }
    }
    input.copy_(from_vector(original, input.shape()).to(input.device()));
    if (!result) return result;
  }
  return {};
}

}  // namespace lamella::testing
