#pragma once

#include <cstdint>

#include "lamella/core/export.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// What a loss does with its values, one per sample or element.
enum class Reduction : std::uint8_t {
  None,  ///< returns them
  Mean,  ///< their mean; NaN if there are none
  Sum    ///< their sum
};

/// Options of cross_entropy(); names and defaults are PyTorch's.
struct CrossEntropyOptions {
  double label_smoothing = 0;        ///< ε in [0, 1]: targets become (1 − ε) · target + ε / classes
  std::int64_t ignore_index = -100;  ///< samples of this label count for nothing; class indices only
  Reduction reduction = Reduction::Mean;  ///< what is returned
  /// [C], one factor per class, of the logits' type or float32 beside a half type; undefined: 1.
  Tensor weight = {};
};

/// −Σ_c weight_c · target_c · log softmax(logits)_c over axis 1 of logits [N,C] or [N,C,d1,…]. `target` holds
/// either class indices, int64 [N,d1,…], or probabilities of the logits' shape (any floating type).
///
/// As in PyTorch, Mean divides by the sum of the weights of the labels that are not ignored (their number, if
/// there are no weights), or for probabilities by the number of samples: an empty batch, or one that is
/// ignored altogether, gives NaN (and zero gradients). Label smoothing gives class c the share weight_c · ε /
/// C of each sample. The result has the logits' type; it is computed and added up in float32 and float64.
/// Gradients: logits, and probabilities.
///
/// Throws ShapeError, DTypeError or DeviceError where operands do not fit, ShapeError for label_smoothing
/// outside [0, 1]; Error for a weight that requires a gradient, and for a label outside [0, C) that is not
/// ignore_index, naming it and its position (checked on the CPU only).
LAMELLA_API Tensor cross_entropy(const Tensor& logits, const Tensor& target,
                                 const CrossEntropyOptions& options = {});

/// (x − target)², for equal shapes and floating types. Gradients for both. Throws ShapeError, DTypeError or
/// DeviceError where they differ.
LAMELLA_API Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::Mean);

/// Options of bce_with_logits().
struct BceOptions {
  Tensor weight = {};      ///< factor of each element; broadcast to the logits' shape; undefined: 1
  Tensor pos_weight = {};  ///< factor of the positive term, often one per class; likewise
  Reduction reduction = Reduction::Mean;  ///< what is returned
};

/// Binary cross-entropy of sigmoid(logits): −weight · (pos_weight · t · log σ(x) + (1 − t) · log(1 − σ(x))),
/// computed so that it neither overflows nor loses small probabilities. `target` has the logits' shape and
/// type and holds numbers in [0, 1] (not checked). Mean divides by the number of elements. Gradients: logits
/// and target. Throws ShapeError, DTypeError or DeviceError where operands do not fit, Error for a weight or
/// pos_weight that requires a gradient.
LAMELLA_API Tensor bce_with_logits(const Tensor& logits, const Tensor& target,
                                   const BceOptions& options = {});

}  // namespace lamella
