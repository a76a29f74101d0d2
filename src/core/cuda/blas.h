#pragma once

#include <cublas_v2.h>

#include "lamella/core/device.h"

namespace lamella::detail::cuda {

/// Throws DeviceError with `what` was tried and cuBLAS's own words unless `status` is a success.
void check(cublasStatus_t status, const char* what);

/// This thread's cuBLAS for `device`, on the current stream, for the one call that follows. Its workspace has
/// a fixed size, so that the same shapes give the same bits, recorded or not. It belongs to the thread and
/// the stream; while this thread records, to the recording.
cublasHandle_t blas(Device device);

}  // namespace lamella::detail::cuda
