#pragma once

#include "core/philox.h"
#include "tensor/view.h"

namespace lamella::detail {

/// Which elements of a dense [N,C,…] tensor stay.
struct DropoutMask {
  RandomKey key;
  std::uint32_t threshold = 0;  ///< stays if the upper 24 random bits are at least this: p · 2^24, rounded up
  double scale = 1;             ///< of what stays
  bool per_sample = false;      ///< one number per sample, else per element
  std::int64_t batch = 0;
  std::int64_t channels = 1;
  std::int64_t inner = 1;  ///< elements of one channel of one sample
  bool channels_last = false;
};

}  // namespace lamella::detail

namespace lamella::cpu {

/// y = mask ? x · scale : 0, or += that; x and y are dense in one format. The gradient is the same function.
void dropout(const detail::ConstTensorView& x, const detail::DropoutMask& mask, const detail::TensorView& y,
             detail::GradientWrite write);

}  // namespace lamella::cpu

/// The same for NVIDIA GPUs, on the current stream.
namespace lamella::cuda {

decltype(cpu::dropout) dropout;

}  // namespace lamella::cuda
