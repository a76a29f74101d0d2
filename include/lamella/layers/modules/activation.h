#pragma once

#include "lamella/layers/activation.h"
#include "lamella/layers/module.h"

/// @file
/// The activations of layers/activation.h as modules, for use in Sequential. None has parameters.
namespace lamella {

/// relu().
class LAMELLA_API ReLU : public Module {
 public:
  ReLU() : Module("ReLU") {}
  Tensor forward(const Tensor& x) override;
};

/// relu6().
class LAMELLA_API ReLU6 : public Module {
 public:
  ReLU6() : Module("ReLU6") {}
  Tensor forward(const Tensor& x) override;
};

/// hardswish().
class LAMELLA_API Hardswish : public Module {
 public:
  Hardswish() : Module("Hardswish") {}
  Tensor forward(const Tensor& x) override;
};

/// hardsigmoid().
class LAMELLA_API Hardsigmoid : public Module {
 public:
  Hardsigmoid() : Module("Hardsigmoid") {}
  Tensor forward(const Tensor& x) override;
};

/// sigmoid().
class LAMELLA_API Sigmoid : public Module {
 public:
  Sigmoid() : Module("Sigmoid") {}
  Tensor forward(const Tensor& x) override;
};

/// silu().
class LAMELLA_API SiLU : public Module {
 public:
  SiLU() : Module("SiLU") {}
  Tensor forward(const Tensor& x) override;
};

/// tanh().
class LAMELLA_API Tanh : public Module {
 public:
  Tanh() : Module("Tanh") {}
  Tensor forward(const Tensor& x) override;
};

/// leaky_relu() with slope `slope` below 0.
class LAMELLA_API LeakyReLU : public Module {
 public:
  /// See leaky_relu().
  explicit LeakyReLU(double slope = 0.01) : Module("LeakyReLU"), slope_(slope) {}
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  double slope_;
};

/// gelu().
class LAMELLA_API GELU : public Module {
 public:
  /// See GeluApproximation.
  explicit GELU(GeluApproximation approximation = GeluApproximation::None)
      : Module("GELU"), approximation_(approximation) {}
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  GeluApproximation approximation_;
};

}  // namespace lamella
