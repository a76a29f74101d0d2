#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "lamella/core/dtype.h"

namespace lamella {
namespace {

// The value of a pattern by the definition of the format, in exact double arithmetic.
double value_of(std::uint16_t bits, int fraction_bits, int bias) {
  const int exponent_bits = 15 - fraction_bits;
  const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1)
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}
double half_value(std::uint16_t bits) { return value_of(bits, 10, 15); }
double brain_value(std::uint16_t bits) { return value_of(bits, 7, 127); }

// Nearest pattern to a finite or infinite value, by bisection over the ordered non-negative patterns; the
// even one on a tie. Infinity stands where the next power of two would.
std::uint16_t nearest(float value, double (*decode)(std::uint16_t), std::uint16_t infinity, double beyond) {
  const double target = std::fabs(static_cast<double>(value));
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const auto at = [&](std::uint16_t bits) { return bits == infinity ? beyond : decode(bits); };
  std::uint16_t low = 0, high = infinity;
  if (target >= beyond) return sign | infinity;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (at(middle) <= target ? low : high) = middle;
  }
  const double down = target - at(low), up = at(high) - target;
  const bool take_low = down < up || (down == up && low % 2 == 0);
  return sign | (take_low ? low : high);
}
std::uint16_t nearest_half(float value) { return nearest(value, half_value, 0x7c00, 65536.0); }
std::uint16_t nearest_brain(float value) { return nearest(value, brain_value, 0x7f80, std::ldexp(1.0, 128)); }

template <class Check>
void for_telling_floats(double (*decode)(std::uint16_t), std::uint16_t infinity, Check check) {
  // Around every representable value and every midpoint of two.
  for (int bits = 0; bits < infinity; ++bits) {
    const double here = decode(static_cast<std::uint16_t>(bits));
    const double next = bits + 1 == infinity ? 2 * here - decode(static_cast<std::uint16_t>(bits - 1))
                                             : decode(static_cast<std::uint16_t>(bits + 1));
    for (const double center : {here, here / 2 + next / 2}) {
      const auto f = static_cast<float>(center);
      for (const float g : {std::nextafter(f, 0.0f), f, std::nextafter(f, INFINITY)}) {
        check(g);
        check(-g);
      }
    }
  }
  std::mt19937 random(7);
  for (int i = 0; i < 200'000; ++i) {
    const float f = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!std::isnan(f)) check(f);
  }
  for (const float f : {0.0f, -0.0f, INFINITY, -INFINITY, 65504.0f, 65519.99f, 65520.0f, 1e30f,
                        std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max()})
    check(f);
}

TEST(Float16Test, decodes_every_pattern) {
  for (int i = 0; i < 65536; ++i) {
    Float16 half;
    half.bits = static_cast<std::uint16_t>(i);
    const auto got = static_cast<float>(half);
    const double expected = half_value(half.bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << i;
    } else {
      ASSERT_EQ(static_cast<double>(got), expected) << i;
    }
    ASSERT_EQ(std::signbit(got), i >= 0x8000) << i;
  }
}

TEST(Float16Test, survives_a_round_trip) {
  for (int i = 0; i < 65536; ++i) {
    Float16 half;
    half.bits = static_cast<std::uint16_t>(i);
    const bool nan = (i & 0x7fff) > 0x7c00;
    ASSERT_EQ(Float16(static_cast<float>(half)).bits, nan ? i | 0x200 : i);
  }
}

TEST(Float16Test, rounds_to_nearest_even) {
  for_telling_floats(half_value, 0x7c00,
                     [](float f) { ASSERT_EQ(Float16(f).bits, nearest_half(f)) << std::hexfloat << f; });
}

TEST(Float16Test, keeps_nan) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xff802000u, 0xffffffffu}) {
    const Float16 half(std::bit_cast<float>(bits));
    EXPECT_GT(half.bits & 0x7fff, 0x7c00) << std::hex << bits;
    EXPECT_EQ(half.bits >> 15, bits >> 31);
  }
}

TEST(BFloat16Test, decodes_every_pattern) {
  for (int i = 0; i < 65536; ++i) {
    BFloat16 brain;
    brain.bits = static_cast<std::uint16_t>(i);
    const auto got = static_cast<float>(brain);
    const double expected = brain_value(brain.bits);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << i;
    } else {
      ASSERT_EQ(static_cast<double>(got), expected) << i;
    }
  }
}

TEST(BFloat16Test, survives_a_round_trip) {
  for (int i = 0; i < 65536; ++i) {
    BFloat16 brain;
    brain.bits = static_cast<std::uint16_t>(i);
    const bool nan = (i & 0x7fff) > 0x7f80;
    ASSERT_EQ(BFloat16(static_cast<float>(brain)).bits, nan ? i | 0x40 : i);
  }
}

TEST(BFloat16Test, rounds_to_nearest_even) {
  for_telling_floats(brain_value, 0x7f80,
                     [](float f) { ASSERT_EQ(BFloat16(f).bits, nearest_brain(f)) << std::hexfloat << f; });
}

TEST(BFloat16Test, keeps_nan) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xff800100u, 0xffffffffu}) {
    const BFloat16 brain(std::bit_cast<float>(bits));
    EXPECT_GT(brain.bits & 0x7fff, 0x7f80) << std::hex << bits;
    EXPECT_EQ(brain.bits >> 15, bits >> 31);
  }
}

}  // namespace
}  // namespace lamella
