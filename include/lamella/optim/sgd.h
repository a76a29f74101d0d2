#pragma once

#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/optim/optimizer.h"

namespace lamella::optim {

/// How SGD updates; names and defaults are PyTorch's. The formulas below say what each is.
struct SGDOptions {
  double lr = 1e-3;         ///< learning rate, not negative
  double momentum = 0;      ///< share of the old v, not negative
  double dampening = 0;     ///< share of g that is left out of v; finite
  double weight_decay = 0;  ///< added to the gradient as this times p, not negative
  bool nesterov = false;    ///< look ahead; needs momentum above 0 and dampening 0
};

/// Stochastic gradient descent, with PyTorch's formulas:
///
///   g ← g + weight_decay · p
///   v ← momentum · v + (1 − dampening) · g      (v ← g at a parameter's first update)
///   p ← p − lr · (nesterov ? g + momentum · v : v)
///
/// without v where momentum is 0. It keeps "momentum_buffer" (v) then.
class LAMELLA_API SGD : public Optimizer {
 public:
  /// Throws Error naming an option that is out of range: see SGDOptions. See Optimizer for the parameters.
  explicit SGD(const Tensors& params, const SGDOptions& options = {});
  /// The same for groups with settings of their own.
  explicit SGD(const std::vector<ParamGroup>& groups, const SGDOptions& options = {});

 protected:
  std::vector<std::string> state_names() const override;
  void update(const UpdateBatch& batch) override;
  bool reads_skip() const override { return true; }

 private:
  SGDOptions options_;
};

}  // namespace lamella::optim
