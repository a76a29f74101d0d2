#pragma once

#include "autograd/record.h"
#include "core/profiling_bytes.h"
#include "tensor/door.h"

/// For operators that can take their input's gradient back through what the input owes.
namespace lamella::detail {

inline bool has_slope_of_0_or_1(PendingActivation activation) {
  return activation == PendingActivation::None || activation == PendingActivation::Relu ||
         activation == PendingActivation::Relu6;
}

/// Whether the gradient of `input`, number `index`, which is about to be written, may go back through what
/// the input owes and leave sums: a norm made it, which wants sums, and whatever is added later does no harm.
/// A slope of 0 or 1 may be applied twice; any other only to all of a gradient.
inline bool may_leave_sums(const GradientContext& context, int index, const Tensor& input,
                           GradientWrite write) {
  if (write != GradientWrite::Overwrite) return false;
  const profiling::BytesApart only_a_look;
  const PendingView owing = read_pending(input);
  if (owing.center == nullptr) return false;
  return has_slope_of_0_or_1(owing.activation) ? context.is_between_operators(index)
                                               : context.is_sole_contribution(index);
}

}  // namespace lamella::detail
