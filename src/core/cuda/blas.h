#pragma once

#include <cublas_v2.h>

#include "lamella/core/device.h"

namespace lamella::detail::cuda {

/// Throws DeviceError with `what` was tried and cuBLAS's own words unless `status` is a success.
void check(cublasStatus_t status, const char* what);

/// This thread's cuBLAS for `device`, on the current stream. Its workspace is fixed, so that the same shapes
/// give the same bits, eager or captured.
cublasHandle_t blas(Device device);

}  // namespace lamella::detail::cuda
