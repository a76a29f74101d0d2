#include <map>

#include "core/allocator.h"
#include "core/check.h"
#include "core/cuda/blas.h"
#include "core/cuda/check.h"

namespace lamella::detail::cuda {

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(
      concat(what, ": cuBLAS says ", cublasGetStatusName(status), ", ", cublasGetStatusString(status)));
}

namespace {

/// What NVIDIA advises for Hopper, and enough for older chips.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

struct Handle {
  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (handle == nullptr) return;
    cublasDestroy(handle);
    allocator_of(stream.device).deallocate(workspace, stream);
  }

  cublasHandle_t handle = nullptr;
  Block workspace;
  Stream stream;
};

}  // namespace

cublasHandle_t blas(Device device) {
  thread_local std::map<int, Handle> handles;
  Handle& own = handles[device.index];
  if (own.handle == nullptr) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), "cublasCreate");
    own.handle = handle;
    own.stream = lamella::current_stream(device);
    own.workspace = allocator_of(device).allocate(kWorkspaceBytes, own.stream);
    check(cublasSetMathMode(handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION), "cublasSetMathMode");
  }
  const auto stream = static_cast<cudaStream_t>(lamella::current_stream(device).handle);
  check(cublasSetStream(own.handle, stream), "cublasSetStream");
  check(cublasSetWorkspace(own.handle, own.workspace.data, kWorkspaceBytes), "cublasSetWorkspace");
  return own.handle;
}

}  // namespace lamella::detail::cuda
