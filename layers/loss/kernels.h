#pragma once

#include "lamella/layers/loss.h"
#include "tensor/view.h"

namespace lamella::detail {

/// One cross-entropy, for kernels by value. Sample s = n · inner + i has its class c at
/// n · classes · inner + (channels_last ? i · classes + c : c · inner + i).
struct CrossEntropyShape {
  std::int64_t batch = 0;
  std::int64_t classes = 0;
  std::int64_t inner = 1;
  bool channels_last = false;
  bool indices = true;  ///< target holds labels, one per sample; else probabilities, laid out like the logits
  double smoothing = 0;
  std::int64_t ignore_index = -100;
  Reduction reduction = Reduction::Mean;

  std::int64_t samples() const { return batch * inner; }
};

/// Losses of one number and its target.
enum class PointwiseLoss : std::uint8_t { Squared, BinaryCrossEntropy };

/// Operands of a pointwise loss: x and target of one type, weight and pos_weight (data null: 1) of its
/// compute type; all of one shape and dense in one format.
struct PointwiseOperands {
  ConstTensorView x, target, weight, pos_weight;
};

}  // namespace lamella::detail

namespace lamella::cpu {

/// *bad = first sample whose label (dense int64) is neither a class nor ignored; −1 if none. For the CPU
/// alone: a GPU would have to be waited for.
void find_bad_label(const detail::ConstTensorView& target, const detail::CrossEntropyShape& shape,
                    std::int64_t* bad);

/// Logits are dense; probabilities are dense and of the logits' compute type; weight ([classes]) may have no
/// data. loss: one per sample, or a single number; log_sum (float64) one per sample: log Σ exp(logit);
/// divisor (float64): what a mean divides by, else 1.
void cross_entropy_forward(const detail::ConstTensorView& logits, const detail::ConstTensorView& target,
                           const detail::ConstTensorView& weight, const detail::CrossEntropyShape& shape,
                           const detail::TensorView& loss, const detail::TensorView& log_sum,
                           const detail::TensorView& divisor);

/// dlogits (dense like the logits) in one pass over the logits; grad is dense.
void cross_entropy_backward(const detail::ConstTensorView& grad, const detail::ConstTensorView& logits,
                            const detail::ConstTensorView& target, const detail::ConstTensorView& weight,
                            const detail::CrossEntropyShape& shape, const detail::ConstTensorView& log_sum,
                            const detail::ConstTensorView& divisor, const detail::TensorView& dlogits,
                            detail::GradientWrite write);

/// The gradient of the probabilities, dense like the logits and of their compute type.
void cross_entropy_backward_target(const detail::ConstTensorView& grad, const detail::ConstTensorView& logits,
                                   const detail::ConstTensorView& weight,
                                   const detail::CrossEntropyShape& shape,
                                   const detail::ConstTensorView& log_sum,
                                   const detail::ConstTensorView& divisor, const detail::TensorView& dtarget,
                                   detail::GradientWrite write);

/// loss: one per element, or a single number; added up in float64 in fixed chunks.
void pointwise_loss_forward(detail::PointwiseLoss kind, const detail::PointwiseOperands& operands,
                            Reduction reduction, const detail::TensorView& loss);

/// Gradient of x or, if `of_target`, of the target. grad: dense like x, or a single number.
void pointwise_loss_backward(detail::PointwiseLoss kind, const detail::PointwiseOperands& operands,
                             Reduction reduction, const detail::ConstTensorView& grad, bool of_target,
                             const detail::TensorView& to, detail::GradientWrite write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::cross_entropy_forward) cross_entropy_forward;
decltype(cpu::cross_entropy_backward) cross_entropy_backward;
decltype(cpu::cross_entropy_backward_target) cross_entropy_backward_target;
decltype(cpu::pointwise_loss_forward) pointwise_loss_forward;
decltype(cpu::pointwise_loss_backward) pointwise_loss_backward;

}  // namespace lamella::cuda
