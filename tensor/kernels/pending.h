#pragma once

#include "tensor/door.h"

namespace lamella::cpu {

/// output = activation(stored · scale[c] + shift[c]), c along axis 1; floating types, float32 arithmetic for
/// half types.
void apply_pending(const detail::PendingView& pending, const detail::TensorView& output);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::apply_pending) apply_pending;

}  // namespace lamella::cuda
