#include "lamella/core/dtype.h"

namespace lamella {

// Same bits as the F16C instructions, so that scalar and vector code agree: NaN keeps the top of its payload
// and becomes quiet.
std::uint16_t Float16::from_float(float value) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t magnitude = u & 0x7fffffffu;
  std::uint32_t bits;
  if (magnitude > 0x7f800000u) {
    bits = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and above, infinity with it
    bits = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal in binary16: 2^-14 and above; a carry may reach infinity
    bits = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  } else {
    // Adding 0.5 puts the last place of the sum at 2^-24, the subnormals' unit; the addition rounds to
    // nearest even.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    bits = std::bit_cast<std::uint32_t>(sum) - 0x3f000000u;
  }
  return static_cast<std::uint16_t>(sign | bits);
}

float Float16::to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu, fraction = bits & 0x3ffu;
  std::uint32_t magnitude;
  if (exponent == 0x1f) {
    magnitude = 0x7f800000u | (fraction << 13) | (fraction != 0 ? 0x400000u : 0u);
  } else if (exponent != 0) {
    magnitude = ((exponent + 112) << 23) | (fraction << 13);
  } else {
    magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(fraction) * 0x1p-24f);
  }
  return std::bit_cast<float>(sign | magnitude);
}

}  // namespace lamella
