#pragma once

#include <lamella/lamella.h>

#include <cmath>

/// log(1 + exp(x)), as a user's own operator: numbers in, numbers out, and a gradient.
struct Softplus : lamella::Function {
  std::string name() const override { return "softplus"; }

  lamella::Tensors forward(const lamella::Tensors& inputs) override {
    const lamella::Tensor& x = inputs[0];
    save_for_backward({x});
    // log(1 + exp(-|x|)) + max(x, 0): exp cannot overflow.
    return {lamella::log(lamella::exp(-lamella::abs(x)) + 1.0) + lamella::relu(x)};
  }

  lamella::Tensors backward(const lamella::Tensors& grad_outputs) override {
    return {grad_outputs[0] * lamella::sigmoid(saved_tensors()[0])};
  }
};

/// softplus(x) times a learned factor per channel: a user's own layer.
struct SoftplusScale : lamella::Module {
  lamella::Parameter scale;

  explicit SoftplusScale(std::int64_t channels) : Module("SoftplusScale") {
    scale = add_parameter("scale", lamella::ones({channels, 1, 1}));
  }
  lamella::Tensor forward(const lamella::Tensor& x) override {
    return lamella::apply<Softplus>({x})[0] * scale;
  }
};
