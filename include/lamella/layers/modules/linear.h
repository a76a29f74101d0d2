#pragma once

#include <cstdint>

#include "lamella/layers/module.h"

namespace lamella {

/// y = x · weightᵀ + bias along the last axis: see linear(). Parameters weight [out, in] and bias [out]; both
/// start uniform within ±1/√in, as PyTorch's. Throws ShapeError for sizes below 1.
class LAMELLA_API Linear : public Module {
 public:
  /// From `in` to `out` features; without `bias`, nothing is added.
  Linear(std::int64_t in, std::int64_t out, bool bias = true);
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

  /// [out, in].
  const Tensor& weight() const { return weight_; }
  /// [out]; undefined if there is none.
  const Tensor& bias() const { return bias_; }

 private:
  Parameter weight_;
  Parameter bias_;
};

}  // namespace lamella
