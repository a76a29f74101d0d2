#pragma once

#include "lamella/layers/loss.h"
#include "tensor/view.h"

namespace lamella::detail {

/// Losses of one number and its target.
enum class PointwiseLoss : std::uint8_t { Squared, BinaryCrossEntropy };

/// Operands of a pointwise loss: x and target of one type, weight and pos_weight (data null: 1) of its
/// compute type; all of one shape and dense in one format.
struct PointwiseOperands {
  ConstTensorView x, target, weight, pos_weight;
};

}  // namespace lamella::detail

namespace lamella::cpu {

/// loss: one per element, or a single number; added up in float64 in fixed chunks.
void pointwise_loss_forward(detail::PointwiseLoss kind, const detail::PointwiseOperands& operands,
                            Reduction reduction, const detail::TensorView& loss);

/// Gradient of x or, if `of_target`, of the target. grad: dense like x, or a single number.
void pointwise_loss_backward(detail::PointwiseLoss kind, const detail::PointwiseOperands& operands,
                             Reduction reduction, const detail::ConstTensorView& grad, bool of_target,
                             const detail::TensorView& to, detail::GradientWrite write);

}  // namespace lamella::cpu
