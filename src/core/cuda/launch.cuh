#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/cuda/check.h"
#include "core/cuda/stream.h"

/// How kernels are launched: on the current stream, each launch checked.
namespace lamella::detail::cuda {

/// Most blocks of a grid whose threads go on in a loop.
inline constexpr std::int64_t kMostBlocks = std::int64_t{1} << 20;

/// Blocks of `threads` for n items.
inline unsigned blocks_for(std::int64_t n, int threads) {
  return static_cast<unsigned>(std::min((n + threads - 1) / threads, kMostBlocks));
}

/// Launches kernel(arguments…) unless the grid is empty. `what` names the kernel in an error.
template <class... Parameters, class... Arguments>
void launch(const char* what, Device device, dim3 grid, dim3 block, std::size_t shared_bytes,
            void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  kernel<<<grid, block, shared_bytes, stream_of(device)>>>(std::forward<Arguments>(arguments)...);
  check(cudaGetLastError(), what);
}

}  // namespace lamella::detail::cuda
