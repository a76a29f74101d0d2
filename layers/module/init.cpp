#include "lamella/layers/init.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"
#include "tensor/door.h"

namespace lamella::init {
namespace {

/// Writes f(draw) for standard draws of `tensor`'s shape.
template <class F>
Tensor fill(Tensor tensor, const Tensor& draws, const F& f) {
  const NoGrad no_grad;
  std::vector<double> values = draws.to_vector<double>();
  for (double& value : values) value = f(value);
  return tensor.copy_(from_vector(values, tensor.shape()));
}

double fan(const char* op, const Tensor& weight, FanMode mode) {
  detail::check_floating(op, "weight", weight);
  const Fans both = fans(weight.shape());
  return static_cast<double>(std::max<std::int64_t>(1, mode == FanMode::FanIn ? both.in : both.out));
}

/// Normal distribution function.
double phi(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

/// Its inverse within [low, high], where it is monotonic and known to be bracketed: Newton's steps, halved
/// intervals where they would leave it.
double inverse_phi(double p, double low, double high) {
  double x = std::clamp(0.0, low, high);
  for (int step = 0; step < 60; ++step) {
    const double excess = phi(x) - p;
    (excess > 0 ? high : low) = x;
    const double density = std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
    double next = x - excess / density;
    if (!(next > low && next < high)) next = 0.5 * (low + high);
    if (std::abs(next - x) <= 1e-12 * (1 + std::abs(x))) return next;
    x = next;
  }
  return x;
}

}  // namespace

double gain(Nonlinearity nonlinearity, double a) {
  switch (nonlinearity) {
    case Nonlinearity::Linear:
    case Nonlinearity::Sigmoid:
      return 1;
    case Nonlinearity::Tanh:
      return 5.0 / 3.0;
    case Nonlinearity::Relu:
      return std::numbers::sqrt2;
    case Nonlinearity::LeakyRelu:
      return std::sqrt(2 / (1 + a * a));
    case Nonlinearity::Selu:
      return 0.75;
  }
  return 1;
}

Fans fans(const Shape& weight) {
  LAMELLA_CHECK(ShapeError, weight.size() >= 2, "fans: a weight needs two axes or more, got ",
                weight.to_string());
  std::int64_t kernel = 1;
  for (int axis = 2; axis < weight.size(); ++axis) kernel *= weight[axis];
  return {weight[1] * kernel, weight[0] * kernel};
}

Tensor constant_(Tensor tensor, double value) {
  detail::check_defined("constant_", "tensor", tensor);
  const NoGrad no_grad;
  return tensor.fill_(value);
}

Tensor uniform_(Tensor tensor, double low, double high) {
  detail::check_floating("uniform_", "tensor", tensor);
  LAMELLA_CHECK(ShapeError, low <= high && std::isfinite(high - low), "uniform_: from ", low, " to ", high);
  return fill(tensor, rand(tensor.shape()), [=](double u) { return low + (high - low) * u; });
}

Tensor normal_(Tensor tensor, double mean, double deviation) {
  detail::check_floating("normal_", "tensor", tensor);
  LAMELLA_CHECK(ShapeError, deviation >= 0 && std::isfinite(deviation) && std::isfinite(mean),
                "normal_: mean ", mean, ", deviation ", deviation);
  return fill(tensor, randn(tensor.shape(), {.dtype = float64}),
              [=](double z) { return mean + deviation * z; });
}

Tensor trunc_normal_(Tensor tensor, double mean, double deviation, double low, double high) {
  detail::check_floating("trunc_normal_", "tensor", tensor);
  LAMELLA_CHECK(ShapeError,
                low < high && deviation > 0 && std::isfinite(mean) && std::isfinite(deviation) &&
                    std::isfinite(high - low),
                "trunc_normal_: mean ", mean, ", deviation ", deviation, ", from ", low, " to ", high);
  const double z_low = (low - mean) / deviation, z_high = (high - mean) / deviation;
  const double p_low = phi(z_low), p_high = phi(z_high);
  return fill(tensor, rand(tensor.shape()), [=](double u) {
    const double z = inverse_phi(p_low + (p_high - p_low) * u, z_low, z_high);
    return std::clamp(mean + deviation * z, low, high);
  });
}

Tensor kaiming_uniform_(Tensor weight, const KaimingOptions& options) {
  const double bound =
      gain(options.nonlinearity, options.a) * std::sqrt(3 / fan("kaiming_uniform_", weight, options.mode));
  return uniform_(weight, -bound, bound);
}

Tensor kaiming_normal_(Tensor weight, const KaimingOptions& options) {
  return normal_(
      weight, 0,
      gain(options.nonlinearity, options.a) / std::sqrt(fan("kaiming_normal_", weight, options.mode)));
}

Tensor xavier_uniform_(Tensor weight, double gain) {
  const double sum =
      fan("xavier_uniform_", weight, FanMode::FanIn) + fan("xavier_uniform_", weight, FanMode::FanOut);
  const double bound = gain * std::sqrt(6 / sum);
  return uniform_(weight, -bound, bound);
}

Tensor xavier_normal_(Tensor weight, double gain) {
  const double sum =
      fan("xavier_normal_", weight, FanMode::FanIn) + fan("xavier_normal_", weight, FanMode::FanOut);
  return normal_(weight, 0, gain * std::sqrt(2 / sum));
}

}  // namespace lamella::init
