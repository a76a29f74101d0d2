#pragma once

#include <cuda_runtime.h>

#include "lamella/core/device.h"

namespace lamella::detail::cuda {

/// This thread's stream on `device`, as CUDA wants it.
inline cudaStream_t stream_of(Device device) {
  return static_cast<cudaStream_t>(lamella::current_stream(device).handle);
}

}  // namespace lamella::detail::cuda
