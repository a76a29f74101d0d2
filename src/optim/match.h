#pragma once

#include "lamella/tensor/tensor.h"

namespace lamella::optim {

/// The numbers with the type and on the device of `like`, in its memory format; the tensor itself where it
/// is so already.
inline Tensor match(const Tensor& tensor, const Tensor& like) {
  return tensor.to(like.device()).to(like.dtype()).contiguous(like.memory_format());
}

inline bool is_supported(DType dtype) { return dtype == DType::Float32 || dtype == DType::Float64; }

}  // namespace lamella::optim
