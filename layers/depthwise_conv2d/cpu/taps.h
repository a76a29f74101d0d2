#pragma once

#include <cstdint>
#include <vector>

namespace lamella::cpu {

/// The vertical or horizontal half of a correlation, for one residue class of the positions it writes: the
/// i-th output of the class lies at out_first + i * out_step and reads source position i * in_step + base[t]
/// for each tap t. Bases ascend; the class may have no tap at all (its outputs are then zero).
struct AxisTaps {
  std::int64_t count = 0;
  std::int64_t out_first = 0;
  std::int64_t out_step = 1;
  std::int64_t in_step = 1;
  std::vector<std::int64_t> base;
  std::vector<std::int64_t> tap;  ///< the kernel index of each base

  std::int64_t taps() const { return static_cast<std::int64_t>(base.size()); }
  /// Neighbouring taps read neighbouring source positions.
  bool consecutive() const { return base.empty() || base.back() - base.front() == taps() - 1; }
};

/// out[i] = Σ_k w[k] · in[i · stride − padding + k · dilation]: a single class.
std::vector<AxisTaps> gathering_taps(std::int64_t out, std::int64_t kernel, std::int64_t stride,
                                     std::int64_t padding, std::int64_t dilation);

/// The transpose: in[j] = Σ_k w[k] · out[(j + padding − k · dilation) / stride] over the k for which the
/// division is exact. One class per residue of j modulo the stride, so that no loop has to test for it.
std::vector<AxisTaps> scattering_taps(std::int64_t in, std::int64_t kernel, std::int64_t stride,
                                      std::int64_t padding, std::int64_t dilation);

/// Lowest and one past the highest source position that the classes read.
struct Reach {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
Reach reach_of(const std::vector<AxisTaps>& classes);
/// The same for outputs [first, last) of each class alone (cut at its count).
Reach reach_of(const std::vector<AxisTaps>& classes, std::int64_t first, std::int64_t last);

}  // namespace lamella::cpu
