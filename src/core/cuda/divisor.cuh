#pragma once

#include <cstdint>

namespace lamella::detail::cuda {

/// Division of 32-bit numbers below 2^31 by one that is known when the kernel is launched: a product and a
/// shift (Granlund & Montgomery, "Division by invariant integers using multiplication", 1994).
struct Divisor {
  Divisor() = default;
  explicit Divisor(std::uint32_t value) : value(value) {
    while ((std::uint64_t{1} << shift) < value) ++shift;
    factor = static_cast<std::uint32_t>(
        ((std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - value)) / value + 1);
  }
  __device__ std::uint32_t divide(std::uint32_t n) const { return (__umulhi(n, factor) + n) >> shift; }

  std::uint32_t value = 1;
  std::uint32_t factor = 1;
  std::uint32_t shift = 0;
};

}  // namespace lamella::detail::cuda
