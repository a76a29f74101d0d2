#pragma once

#include <cstdint>

/// Neighbouring numbers that a thread moves at once.
namespace lamella::detail::cuda {

/// V numbers, at an address that is a multiple of their size, or of sixteen bytes if they are larger.
template <class T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Lot {
  static constexpr int kSize = V;
  T at[V];
};

/// Sixteen bytes of numbers: the most that one access moves.
template <class T>
using Packet = Lot<T, 16 / static_cast<int>(sizeof(T))>;

/// Whether packets may begin there.
inline bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

}  // namespace lamella::detail::cuda
