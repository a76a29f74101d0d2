#pragma once

#include <utility>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/tensor/create.h"

namespace lamella {

/// PyTorch's SGD as a plain loop in float64, with the settings of tests/golden: learning rate 0.001, momentum
/// 0.9, weight decay 4e-5.
class PlainSgd {
 public:
  explicit PlainSgd(Tensors parameters) : parameters_(std::move(parameters)) {
    for (const Tensor& parameter : parameters_)
      velocities_.emplace_back(static_cast<std::size_t>(parameter.numel()));
  }

  void step() {
    const NoGrad no_grad;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const std::vector<double> gradient = parameters_[i].grad().to_vector<double>();
      std::vector<double> value = parameters_[i].to_vector<double>();
      std::vector<double>& velocity = velocities_[i];
      for (std::size_t k = 0; k < value.size(); ++k) {
        velocity[k] = 0.9 * velocity[k] + (gradient[k] + 4e-5 * value[k]);
        value[k] -= 0.001 * velocity[k];
      }
      parameters_[i].copy_(from_vector(value, parameters_[i].shape()));
    }
  }

 private:
  Tensors parameters_;
  std::vector<std::vector<double>> velocities_;
};

}  // namespace lamella
