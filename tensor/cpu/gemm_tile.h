#pragma once

#include <cstdint>

namespace lamella::cpu {

/// One block of a matrix product, computed by the calling thread: c = a·b, or += with `accumulate`. Every
/// element is a chain of fused multiply-adds over k in ascending order, cut every kTileDepth terms, so it
/// does not depend on where in the block it lies or on the vector width.
template <class T>
struct TileProduct {
  std::int64_t m = 0, n = 0, k = 0;
  const T* a = nullptr;  ///< element (i, p) is a[i * a_row + p * a_column]; fast if either stride is 1
  std::int64_t a_row = 0, a_column = 1;
  const T* b = nullptr;  ///< element (p, j) is b[p * b_row + j * b_column]; fast if either stride is 1
  std::int64_t b_row = 0, b_column = 1;
  T* c = nullptr;  ///< row-major
  std::int64_t c_row = 0;
  bool accumulate = false;
  T* workspace = nullptr;  ///< tile_workspace() elements
};

/// Longest chain of terms added before the sum goes to c.
inline constexpr std::int64_t kTileDepth = 256;

/// For float and double.
template <class T>
void multiply_tile(const TileProduct<T>& product);
/// Elements of workspace that multiply_tile() needs.
std::int64_t tile_workspace(std::int64_t m, std::int64_t n, std::int64_t k);

}  // namespace lamella::cpu
