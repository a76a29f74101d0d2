#pragma once

#include <optional>

#include "lamella/core/dtype.h"
#include "lamella/core/export.h"

namespace lamella {

/// Mixed precision (arXiv 1710.03740): while it lives, operators of this thread choose their types
/// themselves, as PyTorch's autocast does. Parameters stay float32, and so do their gradients.
///
/// | operators | computed in |
/// |---|---|
/// | conv2d, depthwise_conv2d, linear, matmul | `dtype`: float32 operands are rounded to it |
/// | cross_entropy, mse_loss, bce_with_logits | float32: half types are converted |
/// | all others | the types they are given, with sums and statistics in float32 or more |
///
/// A parameter is rounded once while the outermost Autocast of a thread lives, unless it is changed in
/// between: keep it around the forward pass of one step, not around the whole training. Backward needs none.
///
///     Tensor loss;
///     {
///       const Autocast mixed(bfloat16);
///       loss = cross_entropy(net(images), labels);
///     }
///     loss.backward();
///
/// Gradients keep the range of float32 in bfloat16; in float16, optim::GradScaler keeps small ones from
/// vanishing.
class LAMELLA_API Autocast {
 public:
  /// Throws DTypeError unless `dtype` is BFloat16 or Float16. `enabled` false: operators take what they are
  /// given again, inside another Autocast.
  explicit Autocast(DType dtype, bool enabled = true);
  /// Back to what was before.
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  std::optional<DType> before_;
};

/// The type that this thread's operators compute in, if an Autocast says so.
LAMELLA_API std::optional<DType> autocast_dtype();

}  // namespace lamella
