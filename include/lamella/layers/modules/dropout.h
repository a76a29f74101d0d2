#pragma once

#include "lamella/layers/module.h"

namespace lamella {

/// In training sets each element to 0 with probability p and scales the others by 1 / (1 − p); x itself
/// otherwise: see dropout(). Throws ShapeError unless p is in [0, 1].
class LAMELLA_API Dropout : public Module {
 public:
  /// p: probability of each element.
  explicit Dropout(double p = 0.5);
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  double p_;
};

/// In training drops whole samples of a residual branch with probability p (stochastic depth, arXiv
/// 1603.09382): see drop_path(). Throws ShapeError unless p is in [0, 1].
class LAMELLA_API DropPath : public Module {
 public:
  /// p: probability of each sample.
  explicit DropPath(double p = 0);
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  double p_;
};

}  // namespace lamella
