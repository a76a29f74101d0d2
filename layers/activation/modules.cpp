#include "core/check.h"
#include "lamella/layers/modules/activation.h"

namespace lamella {

Tensor ReLU::forward(const Tensor& x) { return relu(x); }
Tensor ReLU6::forward(const Tensor& x) { return relu6(x); }
Tensor Hardswish::forward(const Tensor& x) { return hardswish(x); }
Tensor Hardsigmoid::forward(const Tensor& x) { return hardsigmoid(x); }
Tensor Sigmoid::forward(const Tensor& x) { return sigmoid(x); }
Tensor SiLU::forward(const Tensor& x) { return silu(x); }
Tensor Tanh::forward(const Tensor& x) { return tanh(x); }

Tensor LeakyReLU::forward(const Tensor& x) { return leaky_relu(x, slope_); }
std::string LeakyReLU::settings() const { return detail::concat("negative_slope=", slope_); }

Tensor GELU::forward(const Tensor& x) { return gelu(x, approximation_); }
std::string GELU::settings() const {
  return detail::concat("approximate='", approximation_ == GeluApproximation::None ? "none" : "tanh", '\'');
}

}  // namespace lamella
