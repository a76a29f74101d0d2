#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/cuda/check.h"
#include "core/cuda/launch.h"
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

/// Waits until what is ahead of this kernel in its stream has ended and what that wrote can be read, and lets
/// the next kernel's blocks begin: none of those begins before all of this one run. To be called by all
/// threads of a kernel, before they touch global memory. Does nothing in code for compute capability below 9.
__device__ __forceinline__ void wait_for_stream() {
#if __CUDA_ARCH__ >= 900
  // In this order: at most two kernels share the GPU, and when one is past this, all before the one ahead
  // have ended.
  asm volatile("griddepcontrol.wait; griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// launch() before the kernel ahead in the stream has ended, where the GPU can: `kernel` must call
/// wait_for_stream() first.
template <class... Parameters, class... Arguments>
void launch_early(const char* what, Device device, dim3 grid, dim3 block, std::size_t shared_bytes,
                  void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  [&](Parameters... parameters) {
    void* all[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
    launch_early(what, device, grid, block, shared_bytes, reinterpret_cast<const void*>(kernel), all);
  }(std::forward<Arguments>(arguments)...);
}

}  // namespace lamella::detail::cuda
