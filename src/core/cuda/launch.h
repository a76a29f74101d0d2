#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "lamella/core/device.h"

/// Launches that do not wait for the kernel ahead of them. On a GPU of compute capability 9 and on, a
/// kernel's blocks take their places while the kernel ahead in the stream still ends, and wait there.
namespace lamella::detail::cuda {

/// Whether launch_early() launches early on `device`: a GPU of compute capability 9 and on, code of this
/// build for one, and no LAMELLA_EARLY_LAUNCH=0. Any thread may call it, and while a stream is captured, too.
bool launches_early(Device device);

/// For tests: false makes launch_early() launch plainly, in all threads, until it is told true.
void allow_early_launches(bool allowed);

/// Makes this thread's next early launch on `stream` a plain one: there the stream has been made to wait for
/// another. A recording has edges in place of that, and those to a kernel that begins early would not be full
/// ones.
void launch_plainly_next(Stream stream);

/// Launches a kernel on the current stream of `device`, before the kernel ahead of it has ended where the GPU
/// can: all threads of `kernel` must call wait_for_stream() before they touch global memory, and none may
/// leave without. `arguments` point to the parameters, as for cudaLaunchKernel(); `what` names the kernel in
/// an error.
void launch_early(const char* what, Device device, dim3 grid, dim3 block, std::size_t shared_bytes,
                  const void* kernel, void** arguments);

}  // namespace lamella::detail::cuda
