#pragma once

namespace lamella::detail::cuda {

/// Bytes of shared memory that a block may ask for on GPUs of an architecture, such as 90 (compute capability
/// 9.0), from 80 on: NVIDIA's "CUDA C++ Programming Guide", technical specifications per compute capability.
/// Of one that is not known: as few as any of these has.
constexpr int shared_bytes_of_architecture(int architecture) {
  switch (architecture) {
    case 80:
    case 87:
      return 163 << 10;
    case 90:
    case 100:
    case 103:
    case 110:
      return 227 << 10;
    default:
      return 99 << 10;
  }
}

}  // namespace lamella::detail::cuda
