#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "core/check.h"
#include "core/cuda/check.h"
#include "core/cuda_backend.h"

namespace lamella::detail::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw DeviceError(concat(what, ": CUDA says ", cudaGetErrorName(status), ", ", cudaGetErrorString(status)));
}

namespace {

class CudaMemory final : public RawMemory {
 public:
  explicit CudaMemory(Device device) : device_(device) {}

  void* allocate(std::size_t bytes) override {
    const DeviceGuard guard(device_);
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it would stay and be taken for the next launch's
      return nullptr;
    }
    check(status, "cudaMalloc");
    return data;
  }

  // Waits for the work on the device, so it does not matter what still uses the block.
  void release(void* data, std::size_t) noexcept override {
    cudaFree(data);
    cudaGetLastError();
  }

  std::size_t capacity() const override {
    const DeviceGuard guard(device_);
    std::size_t available = 0, total = 0;
    return cudaMemGetInfo(&available, &total) == cudaSuccess ? total : 0;
  }

 private:
  const Device device_;
};

__global__ void store_step(std::uint64_t* to, std::uint64_t step) { *to = step; }

struct Gpu {
  std::once_flag once;
  std::atomic<bool> ready{false};
  cudaStream_t stream = nullptr;
  Allocator* allocator = nullptr;
  std::uint64_t* random_step = nullptr;
};

std::atomic<std::uint64_t> wanted_step{0};

int count_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver, no devices
  return 0;
}

std::vector<Gpu>& gpus() {
  static std::vector<Gpu>& all = *new std::vector<Gpu>(static_cast<std::size_t>(device_count()));
  return all;  // never destroyed, like the allocators
}

// Streams that do not wait for the default stream, so that they can be captured.
void start(Gpu& gpu, Device device) {
  const DeviceGuard guard(device);
  check(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  gpu.allocator = make_caching_allocator(device, std::make_unique<CudaMemory>(device)).release();
  check(cudaMalloc(&gpu.random_step, sizeof(std::uint64_t)), "cudaMalloc");
  gpu.ready = true;
  store_step<<<1, 1, 0, gpu.stream>>>(gpu.random_step, wanted_step);
  check(cudaGetLastError(), "store_step");
}

Gpu& gpu_of(const char* what, Device device) {
  std::vector<Gpu>& all = gpus();
  LAMELLA_CHECK(DeviceError, device.index >= 0 && device.index < static_cast<int>(all.size()), what, ": ",
                device.to_string(), " is not available: this machine has ", all.size(),
                all.size() == 1 ? " GPU" : " GPUs", " that CUDA can use");
  Gpu& gpu = all[static_cast<std::size_t>(device.index)];
  std::call_once(gpu.once, [&] { start(gpu, device); });
  return gpu;
}

}  // namespace

int device_count() {
  static const int count = count_devices();
  return count;
}

const char* version() {
  static const std::string text = concat(CUDART_VERSION / 1000, '.', CUDART_VERSION % 1000 / 10);
  return text.c_str();
}

int set_device(int index) {
  int before = 0;
  check(cudaGetDevice(&before), "cudaGetDevice");
  if (before != index) check(cudaSetDevice(index), "cudaSetDevice");
  return before;
}

Stream current_stream(Device device) { return {device, gpu_of("current_stream", device).stream}; }

Allocator& allocator(Device device) { return *gpu_of("allocator_of", device).allocator; }

const std::uint64_t* random_step(Device device) { return gpu_of("next_random_key", device).random_step; }

void set_random_step(std::uint64_t step) {
  wanted_step = step;
  std::vector<Gpu>& all = gpus();
  for (int i = 0; i < static_cast<int>(all.size()); ++i) {
    Gpu& gpu = all[static_cast<std::size_t>(i)];
    if (!gpu.ready) continue;
    const DeviceGuard guard(Device::cuda(i));
    store_step<<<1, 1, 0, gpu.stream>>>(gpu.random_step, step);
    check(cudaGetLastError(), "store_step");
  }
}

namespace {

/// What is queued on `stream` from now on waits for what is queued on `other` now.
void wait_for(cudaStream_t stream, Device device, cudaStream_t other, Device other_device) {
  cudaEvent_t reached = nullptr;
  {
    const DeviceGuard guard(other_device);
    check(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventRecord(reached, other), "cudaEventRecord");
  }
  const DeviceGuard guard(device);
  check(cudaStreamWaitEvent(stream, reached), "cudaStreamWaitEvent");
  check(cudaEventDestroy(reached), "cudaEventDestroy");
}

}  // namespace

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  if (bytes == 0) return;
  const Device gpu = to_device.is_cuda() ? to_device : from_device;
  const auto stream = static_cast<cudaStream_t>(cuda::current_stream(gpu).handle);
  const DeviceGuard guard(gpu);
  if (to_device.is_cuda() && from_device.is_cuda()) {
    const auto source = static_cast<cudaStream_t>(cuda::current_stream(from_device).handle);
    wait_for(stream, gpu, source, from_device);
    check(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, stream), "cudaMemcpyPeer");
    // The source's memory may be given away as soon as this returns.
    wait_for(source, from_device, stream, gpu);
    return;
  }
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace lamella::detail::cuda
