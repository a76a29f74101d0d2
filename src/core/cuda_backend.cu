#include <dlfcn.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/cuda/check.h"
#include "core/cuda/launch.h"
#include "core/cuda/memory.h"
#include "core/cuda/recording.h"
#include "core/cuda/stream.h"
#include "core/cuda/uncaptured.h"
#include "core/cuda/used_device.h"
#include "core/cuda_backend.h"
#include "core/environment.h"

namespace lamella::detail::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw DeviceError(concat(what, ": CUDA says ", cudaGetErrorName(status), ", ", cudaGetErrorString(status)));
}

namespace {

__global__ void store_step(std::uint64_t* to, std::uint64_t step) { *to = step; }

struct Gpu {
  std::once_flag once;
  std::atomic<bool> ready{false};
  cudaStream_t stream = nullptr;
  Allocator* allocator = nullptr;
  std::uint64_t* random_step = nullptr;
  std::atomic<std::uint64_t> waits{0};
};

std::atomic<std::uint64_t> wanted_step{0};

struct Found {
  int count = 0;
  bool has_driver = true;
  std::string why_none;
};

std::string cuda_version(int number) { return concat(number / 1000, '.', number % 1000 / 10); }

Found find_devices() {
  Found found;
  const cudaError_t status = cudaGetDeviceCount(&found.count);
  if (status == cudaSuccess) return found;
  cudaGetLastError();  // it would be taken for the next launch's
  found.count = 0;
  int driver = 0;
  cudaDriverGetVersion(&driver);
  found.has_driver = driver != 0;
  if (driver == 0)
    found.why_none = "there is no NVIDIA driver";
  else if (status == cudaErrorInsufficientDriver)
    found.why_none = concat("the NVIDIA driver supports CUDA ", cuda_version(driver),
                            ", and this build needs ", version(), "; install a newer driver");
  else if (status == cudaErrorNoDevice)
    found.why_none = "the NVIDIA driver finds no GPU (CUDA_VISIBLE_DEVICES may hide them)";
  else
    found.why_none = concat("CUDA says ", cudaGetErrorName(status), ", ", cudaGetErrorString(status));
  return found;
}

const Found& found() {
  static const Found devices = find_devices();
  return devices;
}

std::vector<Gpu>& gpus() {
  static std::vector<Gpu>& all = *new std::vector<Gpu>(static_cast<std::size_t>(device_count()));
  return all;  // never destroyed, like the allocators
}

// Streams that do not wait for the default stream, so that what they are given can be recorded.
void start(Gpu& gpu, Device device) {
  const UncapturedCalls uncaptured;
  const std::string why_not = why_not_usable(device);
  if (!why_not.empty()) throw DeviceError(why_not);
  const DeviceGuard guard(device);
  check(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  auto memory = environment_says("LAMELLA_CHECK_MEMORY", "1") ? make_checked_cuda_memory(device)
                                                              : make_cuda_memory(device);
  gpu.allocator = make_caching_allocator(device, std::move(memory)).release();
  check(cudaMalloc(&gpu.random_step, sizeof(std::uint64_t)), "cudaMalloc");
  gpu.ready = true;
  store_step<<<1, 1, 0, gpu.stream>>>(gpu.random_step, wanted_step);
  check(cudaGetLastError(), "store_step");
}

Gpu& gpu_of(const char* what, Device device) {
  std::vector<Gpu>& all = gpus();
  LAMELLA_CHECK(DeviceError, device.index >= 0 && device.index < static_cast<int>(all.size()), what, ": ",
                device.to_string(), " is not available: ",
                all.empty() ? found().why_none : concat("the last GPU is cuda:", all.size() - 1),
                "; use cpu, or auto for what there is");
  Gpu& gpu = all[static_cast<std::size_t>(device.index)];
  std::call_once(gpu.once, [&] { start(gpu, device); });
  return gpu;
}

}  // namespace

int device_count() { return found().count; }
bool has_driver() { return found().has_driver; }

std::string why_not_usable(Device device) {
  if (device.index >= device_count()) return found().why_none;
  const DeviceGuard guard(device);
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, store_step);
  if (status == cudaSuccess) return {};
  cudaGetLastError();
  if (status != cudaErrorNoKernelImageForDevice && status != cudaErrorInvalidDeviceFunction)
    return concat(device.to_string(), " cannot be used: CUDA says ", cudaGetErrorName(status), ", ",
                  cudaGetErrorString(status));
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device.index), "cudaGetDeviceProperties");
  return concat(device.to_string(), " (", properties.name, ") has compute capability ", properties.major, '.',
                properties.minor, ", for which this build has no code (it has ", LAMELLA_CUDA_ARCHITECTURES,
                "); build with -DCMAKE_CUDA_ARCHITECTURES=", properties.major, properties.minor);
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

namespace {

/// Whether anyone in this process has used a device. The run-time cannot say, and its cudaSetDevice() makes a
/// context, so the driver is asked, which the run-time has loaded.
bool has_context(int index) noexcept {
  using Ask = int (*)(int device, unsigned* flags, int* active);
  static const auto ask = [] {
    void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    return driver != nullptr ? reinterpret_cast<Ask>(dlsym(driver, "cuDevicePrimaryCtxGetState")) : nullptr;
  }();
  unsigned flags = 0;
  int active = 0;
  return ask != nullptr && ask(index, &flags, &active) == 0 && active != 0;
}

bool is_used(int index) noexcept {
  const std::vector<Gpu>& all = gpus();
  const auto at = static_cast<std::size_t>(index);
  return (at < all.size() && all[at].ready) || has_context(index);
}

}  // namespace

void restore_device(int before) noexcept {
  int now = 0;
  if (cudaGetDevice(&now) == cudaSuccess && now == before) return;
  if (is_used(before) && cudaSetDevice(before) != cudaSuccess)
    cudaGetLastError();  // the next launch would throw it
}

Device used_device() {
  int own = 0;
  check(cudaGetDevice(&own), "cudaGetDevice");
  if (is_used(own)) return Device::cuda(own);
  for (int i = 0; i < device_count(); ++i)
    if (is_used(i)) return Device::cuda(i);
  return Device::cuda(own);
}

namespace {
thread_local std::map<int, void*> chosen_streams;
}

Stream current_stream(Device device) {
  Gpu& gpu = gpu_of("current_stream", device);
  const auto chosen = chosen_streams.find(device.index);
  return {device, chosen != chosen_streams.end() ? chosen->second : gpu.stream};
}

Stream new_stream(Device device) {
  gpu_of("new_stream", device);
  const DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "new_stream");
  return {device, stream};
}

void set_current_stream(Stream stream) {
  gpu_of("StreamGuard", stream.device);
  chosen_streams[stream.device.index] = stream.handle;
}

void synchronize(Device device) {
  Gpu& gpu = gpu_of("synchronize", device);
  const DeviceGuard guard(device);
  ++gpu.waits;
  check(cudaDeviceSynchronize(), "synchronize");
}

void wait_stream(Stream stream, Stream other) {
  cudaEvent_t reached = nullptr;
  {
    const DeviceGuard guard(other.device);
    check(cudaEventCreateWithFlags(&reached, cudaEventDisableTiming), "wait_stream");
    check(cudaEventRecord(reached, static_cast<cudaStream_t>(other.handle)), "wait_stream");
  }
  const DeviceGuard guard(stream.device);
  check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream.handle), reached), "wait_stream");
  check(cudaEventDestroy(reached), "wait_stream");
  launch_plainly_next(stream);
}

std::uint64_t wait_count(Device device) { return gpu_of("wait_count", device).waits; }

Allocator& allocator(Device device, const char* op) { return *gpu_of(op, device).allocator; }

Allocator& pinned_allocator() {
  LAMELLA_CHECK(DeviceError, device_count() > 0,
                "page-locked memory is for a GPU's copies, and there is no GPU that CUDA can use");
  static Allocator& pinned = *make_caching_allocator(Device::cpu(), make_pinned_memory()).release();
  return pinned;
}

const std::uint64_t* recorded_random_step(Device device) {
  const Gpu& gpu = gpu_of("next_random_key", device);
  return is_recording() ? gpu.random_step : nullptr;
}

void set_random_step(std::uint64_t step) {
  LAMELLA_CHECK(DeviceError, !is_recording(),
                "next_random_step: it cannot be recorded; call it between replays");
  wanted_step = step;
  std::vector<Gpu>& all = gpus();
  for (int i = 0; i < static_cast<int>(all.size()); ++i) {
    Gpu& gpu = all[static_cast<std::size_t>(i)];
    if (!gpu.ready) continue;
    const DeviceGuard guard(Device::cuda(i));
    const auto stream = stream_of(Device::cuda(i));
    store_step<<<1, 1, 0, stream>>>(gpu.random_step, step);
    check(cudaGetLastError(), "store_step");
  }
}

namespace {

void check_not_recording(Device from, Device to) {
  LAMELLA_CHECK(
      DeviceError, !is_recording(), "copy from ", from.to_string(), " to ", to.to_string(),
      ": it cannot be recorded; a recorded step must not read values (item(), to_vector()) or move tensors");
}

}  // namespace

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  if (bytes == 0) return;
  const Device gpu = to_device.is_cuda() ? to_device : from_device;
  check_not_recording(from_device, to_device);
  const Stream stream = cuda::current_stream(gpu);
  const auto handle = static_cast<cudaStream_t>(stream.handle);
  const DeviceGuard guard(gpu);
  if (to_device.is_cuda() && from_device.is_cuda()) {
    const Stream source = cuda::current_stream(from_device);
    wait_stream(stream, source);
    check(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, handle), "cudaMemcpyPeer");
    // The source's memory may be given away as soon as this returns.
    wait_stream(source, stream);
    return;
  }
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle), "cudaMemcpyAsync");
  ++gpu_of("copy", gpu).waits;
  check(cudaStreamSynchronize(handle), "cudaStreamSynchronize");
}

void copy_pinned_bytes(void* to, Device to_device, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  check_not_recording(Device::cpu(), to_device);
  const DeviceGuard guard(to_device);
  const auto stream = stream_of(to_device);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
}

}  // namespace lamella::detail::cuda
