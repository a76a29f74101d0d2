#pragma once

#include <vector>

#include "layers/activation/functions.h"
#include "layers/norm/cpu/channel_sums.h"
#include "tensor/dispatch.h"

namespace lamella::cpu {

/// Takes gradients back through the activation that follows a normalisation: out = g · f'(x · scale + shift).
/// Compiled once for each type, in slope.cpp.
template <class T>
class Slope {
 public:
  using C = detail::ComputeType<T>;
  /// Rows hold `side` pixels of `channels` numbers.
  Slope(const detail::ActivationSlope& slope, std::int64_t channels, std::int64_t side);

  /// n numbers from the first channel of a pixel on.
  void pixels(const T* g, const T* x, T* out, std::int64_t n) const;
  /// n numbers of one channel.
  void plane(const T* g, const T* x, T* out, std::int64_t n, std::int64_t channel) const;

 private:
  detail::ActivationOp op_;
  std::vector<C> scale_, shift_;
};

}  // namespace lamella::cpu
