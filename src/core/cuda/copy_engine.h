#pragma once

#include <array>
#include <cstdint>

#include "lamella/core/device.h"
#include "lamella/core/dtype.h"

/// The unit of GPUs of compute capability 9 and on that moves boxes of a tensor to shared memory and back.
namespace lamella::detail::cuda {

/// Whether the GPU has a copy engine, and it is wanted: LAMELLA_COPY_ENGINE=0 does without, for tools that do
/// not see what it writes.
bool has_copy_engine(Device device);

/// A tensor of float32 or a half type, the axis of neighbouring numbers first, and the box that one copy
/// moves.
struct TensorBox {
  static constexpr std::uint32_t kAxes = 4;
  const void* data = nullptr;
  DType dtype = DType::Float16;
  bool by_eight_bytes = false;  ///< numbers are eight bytes, whatever dtype says, and rows are not swizzled
  std::array<std::uint64_t, kAxes> sizes{};
  std::array<std::uint64_t, kAxes - 1> strides{};      ///< in bytes, from the second axis on
  std::array<std::uint32_t, kAxes> extents{};          ///< of the box, from its first number to its last
  std::array<std::uint32_t, kAxes> steps{1, 1, 1, 1};  ///< from one number that is moved to the next
};
/// Writes to `map`, a CUtensorMap, what the copy engine must know to move such boxes; in shared memory the
/// rows of half types, of 128, 64 or 32 bytes, are swizzled. False: it cannot move them. Only where
/// has_copy_engine().
bool encode_map(const TensorBox& box, void* map);

}  // namespace lamella::detail::cuda
