#include "core/cuda/blas.h"

#include <map>

#include "core/allocator.h"
#include "core/check.h"
#include "core/cuda/check.h"
#include "core/cuda/recording.h"

namespace lamella::detail::cuda {

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(
      concat(what, ": cuBLAS says ", cublasGetStatusName(status), ", ", cublasGetStatusString(status)));
}

namespace {

/// What NVIDIA advises for Hopper, and enough for older chips.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

/// A thread's cuBLAS on one GPU, with a workspace for each stream: products on two streams may run at once.
struct Handle {
  Handle() = default;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (handle == nullptr) return;
    cublasDestroy(handle);
    for (const auto& [queue, workspace] : workspaces)
      allocator_of(device).deallocate(workspace, {device, queue});
  }

  Device device;
  cublasHandle_t handle = nullptr;
  std::map<void*, Block> workspaces;  // by the stream's handle
};

void* workspace_of(Handle& own, Stream stream) {
  Allocator& allocator = allocator_of(stream.device);
  if (is_recording()) {
    // From the recording's pool, which lives as long as its replays, also without this thread. Given back at
    // once: in the recording, whatever takes it next comes behind the product.
    const Block block = allocator.allocate(kWorkspaceBytes, stream);
    allocator.deallocate(block, stream);
    return block.data;
  }
  Block& workspace = own.workspaces[stream.handle];
  if (workspace.data == nullptr) workspace = allocator.allocate(kWorkspaceBytes, stream);
  return workspace.data;
}

}  // namespace

cublasHandle_t blas(Device device) {
  thread_local std::map<int, Handle> handles;
  Handle& own = handles[device.index];
  if (own.handle == nullptr) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), "cublasCreate");
    own.device = device;
    own.handle = handle;
  }
  // All of it each time: an error may have come between, and a new stream takes the workspace away.
  const Stream stream = lamella::current_stream(device);
  check(cublasSetMathMode(own.handle, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION), "cublasSetMathMode");
  check(cublasSetStream(own.handle, static_cast<cudaStream_t>(stream.handle)), "cublasSetStream");
  check(cublasSetWorkspace(own.handle, workspace_of(own, stream), kWorkspaceBytes), "cublasSetWorkspace");
  return own.handle;
}

}  // namespace lamella::detail::cuda
