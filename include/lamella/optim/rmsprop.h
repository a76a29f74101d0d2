#pragma once

#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/optim/optimizer.h"

namespace lamella::optim {

/// How RMSprop updates; names and defaults are PyTorch's. The formulas below say what each is.
struct RMSpropOptions {
  double lr = 1e-2;              ///< learning rate, not negative
  double alpha = 0.99;           ///< share of the old s and a, in [0, 1]
  double eps = 1e-8;             ///< not negative
  double weight_decay = 0;       ///< added to the gradient as this times p, not negative
  double momentum = 0;           ///< share of the old b, not negative
  bool centered = false;         ///< divide by the deviation instead of the magnitude
  bool eps_inside_sqrt = false;  ///< as TensorFlow has it; MobileNet's published settings mean this
};

/// RMSprop (Hinton's lecture "rmsprop: Divide the gradient by a running average of its recent magnitude",
/// 2012), with PyTorch's formulas:
///
///   g ← g + weight_decay · p
///   s ← alpha · s + (1 − alpha) · g²
///   d ← s, or s − a² with a ← alpha · a + (1 − alpha) · g where centered
///   r ← g / (√d + eps), or g / √(d + eps) where eps_inside_sqrt
///   p ← p − lr · r, or p − lr · b with b ← momentum · b + r where momentum is above 0
///
/// A d that rounding makes negative counts as 0. It keeps "square_avg" (s) and, where used, "momentum_buffer"
/// (b) and "grad_avg" (a).
class LAMELLA_API RMSprop : public Optimizer {
 public:
  /// Throws Error naming an option that is out of range: alpha must be in [0, 1], the others not negative.
  /// See Optimizer for the parameters.
  explicit RMSprop(const Tensors& params, const RMSpropOptions& options = {});
  /// The same for groups with settings of their own.
  explicit RMSprop(const std::vector<ParamGroup>& groups, const RMSpropOptions& options = {});

 protected:
  std::vector<std::string> state_names() const override;
  void update(const UpdateBatch& batch) override;
  bool reads_skip() const override { return true; }

 private:
  RMSpropOptions options_;
};

}  // namespace lamella::optim
