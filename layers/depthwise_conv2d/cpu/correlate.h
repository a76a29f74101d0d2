#pragma once

#include <cstdint>
#include <vector>

#include "layers/depthwise_conv2d/cpu/taps.h"
#include "tensor/view.h"

namespace lamella::cpu {

/// What forward and input gradient have in common: each channel of `target` is a correlation of a channel of
/// `source` with the taps of weight [channels, 1, kh, kw], zero outside the source. With a multiplier, target
/// channel c reads source channel c / repeat (forward), or the sum over source channels c * reduce …
/// (gradient).
struct Correlation {
  detail::ConstTensorView source;
  detail::TensorView target;
  detail::ConstTensorView weight;
  detail::ConstTensorView bias;  ///< data may be null
  std::vector<AxisTaps> rows;
  std::vector<AxisTaps> columns;
  std::int64_t repeat = 1;
  std::int64_t reduce = 1;
  bool accumulate = false;
};

void correlate(const Correlation& problem);

}  // namespace lamella::cpu
