#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/optim/optimizer.h"

namespace lamella::optim {

/// How Adam updates; names and defaults are PyTorch's. The formulas below say what each is.
struct AdamOptions {
  double lr = 1e-3;                                ///< learning rate, not negative
  std::pair<double, double> betas = {0.9, 0.999};  ///< β1 and β2, each in [0, 1)
  double eps = 1e-8;                               ///< not negative
  double weight_decay = 0;                         ///< added to the gradient as this times p, not negative
  bool amsgrad = false;                            ///< use the largest v so far
};

/// Adam ("Adam: A Method for Stochastic Optimization", arXiv 1412.6980), with PyTorch's formulas, t being the
/// number of the parameter's updates:
///
///   g ← g + weight_decay · p
///   m ← β1 · m + (1 − β1) · g
///   v ← β2 · v + (1 − β2) · g²
///   p ← p − lr / (1 − β1^t) · m / (√(v / (1 − β2^t)) + eps)
///
/// With amsgrad ("On the Convergence of Adam and Beyond", arXiv 1904.09237) the largest v so far stands in
/// the last line. It keeps "exp_avg" (m), "exp_avg_sq" (v) and, with amsgrad, "max_exp_avg_sq".
class LAMELLA_API Adam : public Optimizer {
 public:
  /// Throws Error naming an option that is out of range: both betas must be in [0, 1), the others not
  /// negative. See Optimizer for the parameters.
  explicit Adam(const Tensors& params, const AdamOptions& options = {});
  /// The same for groups with settings of their own.
  explicit Adam(const std::vector<ParamGroup>& groups, const AdamOptions& options = {});

 protected:
  /// For AdamW: `kind` as for Optimizer, `decoupled` for decoupled weight decay.
  Adam(const char* kind, const std::vector<ParamGroup>& groups, const AdamOptions& options, bool decoupled);
  std::vector<std::string> state_names() const override;
  void update(const UpdateBatch& batch) override;
  bool reads_skip() const override { return true; }

 private:
  AdamOptions options_;
  bool decoupled_;
};

/// How AdamW updates; as AdamOptions, but for the default and the meaning of weight_decay.
struct AdamWOptions {
  double lr = 1e-3;                                ///< learning rate, not negative
  std::pair<double, double> betas = {0.9, 0.999};  ///< β1 and β2, each in [0, 1)
  double eps = 1e-8;                               ///< not negative
  double weight_decay = 1e-2;                      ///< p shrinks by lr times this, not negative
  bool amsgrad = false;                            ///< use the largest v so far
};

/// Adam with decoupled weight decay ("Decoupled Weight Decay Regularization", arXiv 1711.05101), as
/// PyTorch's: p ← p − lr · weight_decay · p comes first, and the gradient stays as it is.
class LAMELLA_API AdamW : public Adam {
 public:
  /// Throws as Adam's does.
  explicit AdamW(const Tensors& params, const AdamWOptions& options = {});
  /// The same for groups with settings of their own.
  explicit AdamW(const std::vector<ParamGroup>& groups, const AdamWOptions& options = {});
};

}  // namespace lamella::optim
