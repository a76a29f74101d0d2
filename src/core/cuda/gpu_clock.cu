#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "core/cuda/check.h"
#include "core/cuda/gpu_clock.h"
#include "core/cuda_backend.h"

namespace lamella::detail::cuda {
namespace {

__device__ std::uint64_t nanoseconds() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

__global__ void idle(std::uint64_t duration) {
  const std::uint64_t start = nanoseconds();
  while (nanoseconds() - start < duration) __nanosleep(1000);
}

class EventClock final : public GpuClock {
 public:
  explicit EventClock(Device device) : device_(device) {
    try {
      const int zero = mark(cuda::current_stream(device));
      check(cudaEventSynchronize(events_[static_cast<std::size_t>(zero)]), "cudaEventSynchronize");
    } catch (...) {
      destroy_events();
      throw;
    }
  }
  EventClock(const EventClock&) = delete;
  EventClock& operator=(const EventClock&) = delete;
  ~EventClock() override { destroy_events(); }

  int mark(Stream stream) override {
    const DeviceGuard guard(device_);
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "cudaEventCreate");
    // One that was not recorded would be no mark to measure from.
    if (const cudaError_t error = cudaEventRecord(event, static_cast<cudaStream_t>(stream.handle));
        error != cudaSuccess) {
      cudaEventDestroy(event);
      check(error, "cudaEventRecord");
    }
    try {
      events_.push_back(event);
    } catch (...) {
      cudaEventDestroy(event);
      throw;
    }
    return static_cast<int>(events_.size()) - 1;
  }

  double seconds_between(int from, int to) const override {
    const DeviceGuard guard(device_);
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, events_.at(static_cast<std::size_t>(from)),
                               events_.at(static_cast<std::size_t>(to))),
          "cudaEventElapsedTime");
    return 1e-3 * static_cast<double>(milliseconds);
  }

  void hold(Stream stream, double seconds) override {
    const DeviceGuard guard(device_);
    idle<<<1, 1, 0, static_cast<cudaStream_t>(stream.handle)>>>(static_cast<std::uint64_t>(1e9 * seconds));
    check(cudaGetLastError(), "idle");
  }

 private:
  void destroy_events() noexcept {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }

  const Device device_;
  std::vector<cudaEvent_t> events_;
};

}  // namespace

std::unique_ptr<GpuClock> make_gpu_clock(Device device) {
  synchronize(device);
  return std::make_unique<EventClock>(device);
}

void push_range(const char* name) { nvtxRangePushA(name); }
void pop_range() { nvtxRangePop(); }

}  // namespace lamella::detail::cuda
