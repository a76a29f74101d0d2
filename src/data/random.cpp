#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/check.h"
#include "core/philox.h"
#include "lamella/data/transforms.h"

namespace lamella::data {

// Counter: index (64 bits), then epoch (32), purpose (8), block (24). Operators draw with the same key and
// their number in the place of purpose and block; they do not come to 2^24 a step, so the two never meet.
Random::Random(std::uint64_t seed, std::uint64_t epoch, std::uint64_t index, Purpose purpose)
    : seed_(seed),
      index_(index),
      high_((epoch << 32) | (std::uint64_t{static_cast<std::uint8_t>(purpose)} << 24)) {}

std::uint32_t Random::bits() {
  if (used_ == 4) {
    lanes_ = std::bit_cast<std::array<std::uint32_t, 4>>(lamella::detail::philox4x32(seed_, index_, high_));
    used_ = 0;
    // The block number is the low 24 bits; only the order of a very large set needs more of them.
    constexpr std::uint64_t kBlocks = (std::uint64_t{1} << 24) - 1;
    if ((high_ & kBlocks) == kBlocks) {
      high_ &= ~kBlocks;
      ++index_;
    } else {
      ++high_;
    }
  }
  return lanes_[static_cast<std::size_t>(used_++)];
}

double Random::uniform() {
  const std::uint64_t high = bits() >> 5, low = bits() >> 6;
  return static_cast<double>((high << 26) | low) * 0x1p-53;
}

std::int64_t Random::below(std::int64_t count) {
  LAMELLA_CHECK(ShapeError, count >= 1, "Random::below: count is ", count, "; it must be at least 1");
  const auto range = static_cast<std::uint64_t>(count);
  if (range <= std::numeric_limits<std::uint32_t>::max()) {
    // The upper half of bits * range is uniform once the few lowest products that would favour some results
    // are drawn again.
    const std::uint32_t unfair = static_cast<std::uint32_t>((std::uint64_t{1} << 32) % range);
    std::uint64_t product = 0;
    do product = bits() * range;
    while (static_cast<std::uint32_t>(product) < unfair);
    return static_cast<std::int64_t>(product >> 32);
  }
  const std::uint64_t mask = std::bit_ceil(range) - 1;
  std::uint64_t value = 0;
  do value = ((std::uint64_t{bits()} << 32) | bits()) & mask;
  while (value >= range);
  return static_cast<std::int64_t>(value);
}

double Random::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

// Gamma(shape, 1), as a logarithm: for small shapes the value itself is below the smallest double.
double Random::log_gamma_variate(double shape) {
  if (shape < 1.0) {
    const double larger = log_gamma_variate(shape + 1.0);
    return larger + std::log(1.0 - uniform()) / shape;
  }
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = normal(), t = 1.0 + c * x;
    if (t <= 0.0) continue;
    const double v = t * t * t;
    if (std::log(1.0 - uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
      return std::log(d) + std::log(v);
  }
}

double Random::beta(double alpha) {
  LAMELLA_CHECK(Error, alpha > 0.0 && std::isfinite(alpha), "Random::beta: alpha is ", alpha,
                "; it must be positive");
  const double a = log_gamma_variate(alpha), b = log_gamma_variate(alpha);
  return 1.0 / (1.0 + std::exp(b - a));
}

}  // namespace lamella::data
