#pragma once

#include "primitives.h"

/// layers/conv/cuda/pointwise/device/point_primitives.cuh for the emulated machine.
namespace lamella::pointwise {

inline unsigned char* shared_memory() { return emulated::shared_memory(); }

inline void store_matrices_transposed(unsigned row, unsigned m0, unsigned m1, unsigned m2, unsigned m3) {
  const std::uint32_t given[5] = {row, m0, m1, m2, m3};
  const emulated::Exchanged all = emulated::exchange(given, 5);
  emulated::check_shared(shared_memory() + row, 16, 16, "a matrix's row");
  // This lane writes what lies in its row: number r of it is of the lanes with r in their quarter.
  const int mine = emulated::lane(), matrix = mine / 8, column = mine % 8;
  for (int r = 0; r < 8; ++r) {
    const std::uint32_t word = all[r * 4 + column / 2][1 + matrix];
    const auto number = static_cast<unsigned short>(word >> column % 2 * 16);
    std::memcpy(shared_memory() + row + 2 * r, &number, 2);
  }
}

inline float of_lane(float number, int lane) {
  const std::uint32_t given = std::bit_cast<std::uint32_t>(number);
  return std::bit_cast<float>(emulated::exchange(&given, 1)[lane][0]);
}

}  // namespace lamella::pointwise
