#pragma once

#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/optim/optimizer.h"

namespace lamella::optim {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
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
  /// Throws Error naming an option that is out of range: lr, momentum and weight_decay must not be negative;
  /// nesterov needs momentum above 0 and dampening 0. See Optimizer for the parameters.
  explicit SGD(const Tensors& params, const SGDOptions& options = {});
  /// The same for groups with settings of their own.
  explicit SGD(const std::vector<ParamGroup>& groups, const SGDOptions& options = {});

 protected:
  std::vector<std::string> state_names() const override;
  void update(const UpdateBatch& batch) override;

 private:
  SGDOptions options_;
};

}  // namespace lamella::optim
