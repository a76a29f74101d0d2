#pragma once

#include <cuda_runtime.h>

#include "core/cuda/check.h"

namespace lamella::detail::cuda {

/// While it lives, this thread may load code and take memory although a stream is being captured, somebody
/// else's perhaps.
class UncapturedCalls {
 public:
  UncapturedCalls() {
    check(cudaThreadExchangeStreamCaptureMode(&mode_), "cudaThreadExchangeStreamCaptureMode");
  }
  ~UncapturedCalls() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  UncapturedCalls(const UncapturedCalls&) = delete;
  UncapturedCalls& operator=(const UncapturedCalls&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace lamella::detail::cuda
