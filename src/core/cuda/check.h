#pragma once

#include <cuda_runtime.h>

/// Errors of the CUDA run-time as exceptions.
namespace lamella::detail::cuda {

/// Throws DeviceError with `what` was tried and CUDA's own words unless `status` is a success.
void check(cudaError_t status, const char* what);

}  // namespace lamella::detail::cuda
