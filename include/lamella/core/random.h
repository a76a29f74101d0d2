#pragma once

#include <cstdint>

#include "lamella/core/export.h"

namespace lamella {

/// @file
/// Random numbers come from Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
/// 2011), a function of (seed, step, operator index within the step, element): the same bits on any device
/// and for any number of threads.

/// Restarts the process-wide sequence: step 0, operator 0. Any 64-bit value is a good seed.
LAMELLA_API void manual_seed(std::uint64_t seed);

/// Begins the next step: step + 1, operator 0. train::Step calls it; a plain loop need not.
LAMELLA_API void next_random_step();

/// The sequence's position, for checkpoints and for running a block a second time with the same draws.
struct RandomState {
  std::uint64_t seed = 0;  ///< given to manual_seed()
  std::uint64_t step = 0;  ///< calls of next_random_step() since
  std::uint32_t op = 0;    ///< operators that have drawn in this step
  /// Equal in all three.
  friend bool operator==(const RandomState&, const RandomState&) = default;
};
/// The present position. It starts at {0, 0, 0}: without manual_seed() every run draws the same numbers.
LAMELLA_API RandomState random_state();
/// Goes to a position, back or forth: the next operators draw what they drew from there.
LAMELLA_API void set_random_state(const RandomState& state);

}  // namespace lamella
