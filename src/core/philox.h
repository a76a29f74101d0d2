#pragma once

#include <array>
#include <cstdint>

#include "lamella/core/device.h"

#ifdef __CUDACC__
#define LAMELLA_HOST_DEVICE __host__ __device__
#else
#define LAMELLA_HOST_DEVICE
#endif

namespace lamella::detail {

struct PhiloxBlock {
  std::uint32_t lane[4];
};

inline constexpr int kPhiloxRounds = 10;
/// The key grows by these from round to round.
inline constexpr std::uint32_t kPhiloxKeyStep0 = 0x9E3779B9u, kPhiloxKeyStep1 = 0xBB67AE85u;

/// One round of Philox 4x32 over the counter (c0, c1, c2, c3).
LAMELLA_HOST_DEVICE inline void philox_round(std::uint32_t k0, std::uint32_t k1, std::uint32_t& c0,
                                             std::uint32_t& c1, std::uint32_t& c2, std::uint32_t& c3) {
  const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
  c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
  c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
  c1 = static_cast<std::uint32_t>(p1);
  c3 = static_cast<std::uint32_t>(p0);
}

/// Philox 4x32-10: ten rounds over a 128-bit counter with a 64-bit key.
LAMELLA_HOST_DEVICE inline PhiloxBlock philox4x32(std::uint64_t key, std::uint64_t counter_low,
                                                  std::uint64_t counter_high) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  PhiloxBlock block{{static_cast<std::uint32_t>(counter_low), static_cast<std::uint32_t>(counter_low >> 32),
                     static_cast<std::uint32_t>(counter_high),
                     static_cast<std::uint32_t>(counter_high >> 32)}};
  for (int round = 0; round < kPhiloxRounds; ++round, k0 += kPhiloxKeyStep0, k1 += kPhiloxKeyStep1)
    philox_round(k0, k1, block.lane[0], block.lane[1], block.lane[2], block.lane[3]);
  return block;
}

/// Which numbers an operator draws. They belong to the step in which the key was taken, in a backward of a
/// later step, too. Only recorded launches read the step where they run, so that they draw anew at each
/// replay.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint32_t op = 0;
  std::uint64_t drawn_step = 0;                  ///< the step to which `op` belongs
  const std::uint64_t* recorded_step = nullptr;  ///< on the device; null: not recorded

  LAMELLA_HOST_DEVICE std::uint64_t step() const {
    return recorded_step != nullptr ? *recorded_step : drawn_step;
  }
};
/// Takes the next operator index of the process-wide sequence (see core/random.h).
RandomKey next_random_key(Device device);

/// Four numbers for elements 4 * block … 4 * block + 3.
LAMELLA_HOST_DEVICE inline PhiloxBlock random_block(const RandomKey& key, std::uint64_t step,
                                                    std::uint64_t block) {
  return philox4x32(key.seed, block, (step << 32) | key.op);
}
/// Uniform in [0, 1): the upper 24 bits, so that float32 holds it exactly.
LAMELLA_HOST_DEVICE inline float uniform01(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

}  // namespace lamella::detail
