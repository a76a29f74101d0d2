#include "core/cuda/check.h"
#include "core/cuda/memory.h"
#include "core/cuda/recording.h"
#include "core/cuda_backend.h"

namespace lamella::detail::cuda {
namespace {

class CudaMemory final : public RawMemory {
 public:
  explicit CudaMemory(Device device) : device_(device) {}

  void* allocate(std::size_t bytes) override {
    const DeviceGuard guard(device_);
    // A thread that records may not call cudaMalloc, unless it says that this does not belong to what it
    // records.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaMalloc");
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaMalloc");
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it would stay and be taken for the next launch's
      return nullptr;
    }
    check(status, "cudaMalloc");
    return data;
  }

  // Waits for the work on the device, so it does not matter what still uses the block.
  void release(void* data, std::size_t) noexcept override {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaFree(data);
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaGetLastError();
  }

  std::size_t capacity() const override {
    const DeviceGuard guard(device_);
    std::size_t available = 0, total = 0;
    return cudaMemGetInfo(&available, &total) == cudaSuccess ? total : 0;
  }

  void* mark_stream(Stream stream) override {
    const DeviceGuard guard(stream.device);
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "record_stream");
    check(cudaEventRecord(event, static_cast<cudaStream_t>(stream.handle)), "record_stream");
    return event;
  }

  bool reached(void* mark) noexcept override {
    const auto event = static_cast<cudaEvent_t>(mark);
    if (cudaEventQuery(event) == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    cudaEventDestroy(event);
    return true;
  }

  bool may_ask() const override { return !is_recording(); }

 private:
  const Device device_;
};

}  // namespace

std::unique_ptr<RawMemory> make_cuda_memory(Device device) { return std::make_unique<CudaMemory>(device); }

}  // namespace lamella::detail::cuda
