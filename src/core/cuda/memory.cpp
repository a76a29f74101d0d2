#include "core/cuda/memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/cuda/check.h"
#include "core/cuda/mapping.h"
#include "core/cuda/recording.h"
#include "core/cuda/used_device.h"
#include "core/cuda_backend.h"
#include "core/environment.h"

namespace lamella::detail::cuda {
namespace {

/// While it lives, a thread that records may take and give back memory, which does not belong to what it
/// records.
class UnrecordedGuard {
 public:
  UnrecordedGuard() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~UnrecordedGuard() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  UnrecordedGuard(const UnrecordedGuard&) = delete;
  UnrecordedGuard& operator=(const UnrecordedGuard&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

/// Null if there was too little.
void* taken(cudaError_t status, void* data, const char* what) {
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it would stay and be taken for the next launch's
    return nullptr;
  }
  check(status, what);
  return data;
}

/// What both kinds have in common: events mark how far a stream is.
class MarkedMemory : public RawMemory {
 public:
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

  void wait_for(void* mark) noexcept override {
    cudaEventSynchronize(static_cast<cudaEvent_t>(mark));
    cudaGetLastError();
  }

  bool may_ask() const override { return !is_recording(); }
};

class CudaMemory : public MarkedMemory {
 public:
  explicit CudaMemory(Device device) : device_(device) {}

  void* allocate(std::size_t bytes) override {
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    return taken(status, data, "cudaMalloc");
  }

  // Waits for the work on the device, so it does not matter what still uses the block.
  void release(void* data, std::size_t) noexcept override {
    const UnrecordedGuard unrecorded;
    cudaFree(data);
    cudaGetLastError();
  }

  std::size_t capacity() const override {
    const DeviceGuard guard(device_);
    std::size_t available = 0, total = 0;
    return cudaMemGetInfo(&available, &total) == cudaSuccess ? total : 0;
  }

 protected:
  const Device device_;
};

/// With growing spaces for large blocks.
class GrowingCudaMemory final : public CudaMemory {
 public:
  GrowingCudaMemory(Device device, Mapping mapping) : CudaMemory(device), mapping_(mapping) {}

  std::size_t chunk_bytes() const override { return mapping_.chunk_bytes(); }

  void* reserve(std::size_t bytes) override {
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    renew_waiter();
    return mapping_.reserve(bytes);
  }

  void unreserve(void* data, std::size_t bytes) noexcept override {
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    mapping_.unreserve(data, bytes);
  }

  bool map(void* data, std::size_t bytes) override {
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    return mapping_.map(data, bytes);
  }

  void unmap(void* data, std::size_t bytes) noexcept override {
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    mapping_.unmap(data, bytes);
  }

  // cudaFree waits even while streams are captured, which cudaDeviceSynchronize would spoil.
  void wait_for_device() noexcept override {
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    void* const now = std::exchange(waiter_, nullptr);
    renew_waiter();  // ahead, or another program might take the room of this one
    if (now != nullptr)
      cudaFree(now);
    else
      cudaDeviceSynchronize();
    cudaGetLastError();
    renew_waiter();
  }

 private:
  void renew_waiter() noexcept {
    if (waiter_ == nullptr && cudaMalloc(&waiter_, 1) != cudaSuccess) {
      waiter_ = nullptr;
      cudaGetLastError();
    }
  }

  const Mapping mapping_;
  void* waiter_ = nullptr;  // to be freed
};

/// Fills what is handed out with set bits, and looks at what surrounds it when it comes back.
class CheckedCudaMemory final : public CudaMemory {
 public:
  using CudaMemory::CudaMemory;

  void* allocate(std::size_t bytes) override {
    void* const data = CudaMemory::allocate(bytes + 2 * kGuard);
    if (data == nullptr) return nullptr;
    const DeviceGuard guard(device_);
    const UnrecordedGuard unrecorded;
    if (stream_ == nullptr)
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "LAMELLA_CHECK_MEMORY");
    check(cudaMemsetAsync(data, kPattern, bytes + 2 * kGuard, stream_), "LAMELLA_CHECK_MEMORY");
    check(cudaStreamSynchronize(stream_), "LAMELLA_CHECK_MEMORY");
    return static_cast<char*>(data) + kGuard;
  }

  void release(void* data, std::size_t bytes) noexcept override {
    usable_.erase(data);
    CudaMemory::release(static_cast<char*>(data) - kGuard, bytes);
  }

  void mark_usable(void* data, std::size_t usable, std::size_t bytes) noexcept override {
    if (is_recording()) return;
    const DeviceGuard guard(device_);
    cudaDeviceSynchronize();
    if (usable == 0) {
      const auto asked = usable_.find(data);
      look(static_cast<const char*>(data) - kGuard, kGuard, "before", data);
      const std::size_t end = asked != usable_.end() ? asked->second : bytes;
      look(static_cast<const char*>(data) + end, std::min(bytes - end + kGuard, kMostLooked), "behind", data);
      usable_.erase(data);
      return;
    }
    cudaMemset(data, kPattern, bytes);
    cudaDeviceSynchronize();
    usable_[data] = usable;
  }

 private:
  static constexpr std::size_t kGuard = 4096, kMostLooked = std::size_t{1} << 20;
  static constexpr int kPattern = 0xff;

  static void look(const char* from, std::size_t bytes, const char* where, const void* data) {
    std::vector<unsigned char> found(bytes);
    cudaMemcpy(found.data(), from, bytes, cudaMemcpyDeviceToHost);
    for (std::size_t i = 0; i < bytes; ++i) {
      if (found[i] == kPattern) continue;
      std::fprintf(stderr, "LAMELLA_CHECK_MEMORY: something wrote %s the block at %p, %zu bytes into %zu\n",
                   where, data, i, bytes);
      std::abort();
    }
  }

  cudaStream_t stream_ = nullptr;  // of its own: another may be recording
  std::map<void*, std::size_t> usable_;
};

class PinnedMemory final : public MarkedMemory {
 public:
  void* allocate(std::size_t bytes) override {
    const DeviceGuard guard(used_device());
    const UnrecordedGuard unrecorded;
    void* data = nullptr;
    const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocPortable);
    return taken(status, data, "cudaHostAlloc");
  }

  void release(void* data, std::size_t) noexcept override {
    const UnrecordedGuard unrecorded;
    cudaFreeHost(data);
    cudaGetLastError();
  }

  std::size_t capacity() const override { return 0; }
};

}  // namespace

std::unique_ptr<RawMemory> make_cuda_memory(Device device) {
  const DeviceGuard guard(device);
  const UnrecordedGuard unrecorded;
  if (!environment_says("LAMELLA_GROWING_MEMORY", "0"))
    if (const std::optional<Mapping> mapping = Mapping::of(device))
      return std::make_unique<GrowingCudaMemory>(device, *mapping);
  return std::make_unique<CudaMemory>(device);
}
std::unique_ptr<RawMemory> make_checked_cuda_memory(Device device) {
  return std::make_unique<CheckedCudaMemory>(device);
}
std::unique_ptr<RawMemory> make_pinned_memory() { return std::make_unique<PinnedMemory>(); }

}  // namespace lamella::detail::cuda
