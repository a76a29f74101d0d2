#include <algorithm>
#include <atomic>
#include <vector>

#include "core/cuda/check.h"
#include "core/cuda/launch.h"
#include "core/cuda/stream.h"
#include "core/cuda/uncaptured.h"
#include "core/cuda_backend.h"
#include "core/environment.h"

namespace lamella::detail::cuda {
namespace {

__global__ void probe() {}

std::atomic<bool> allowed{true};

/// Streams whose next launch is plain.
thread_local std::vector<void*> plain_next;

bool is_plain(cudaStream_t stream) { return !plain_next.empty() && std::erase(plain_next, stream) > 0; }

/// A GPU can be new, and this build's code for an older one, in which wait_for_stream() does nothing.
bool can_launch_early(Device device) {
  constexpr int kHopper = 90;
  if (environment_says("LAMELLA_EARLY_LAUNCH", "0")) return false;
  const UncapturedCalls uncaptured;
  const DeviceGuard guard(device);
  int major = 0;
  cudaFuncAttributes code;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index),
        "cudaDeviceGetAttribute");
  check(cudaFuncGetAttributes(&code, probe), "cudaFuncGetAttributes");
  return 10 * major >= kHopper && code.ptxVersion >= kHopper;
}

}  // namespace

bool launches_early(Device device) {
  enum : int { Unknown, No, Yes };
  static std::vector<std::atomic<int>>& known =
      *new std::vector<std::atomic<int>>(static_cast<std::size_t>(device_count()));
  std::atomic<int>& answer = known.at(static_cast<std::size_t>(device.index));
  int now = answer.load(std::memory_order_relaxed);
  if (now == Unknown) answer = now = can_launch_early(device) ? Yes : No;
  return now == Yes && allowed.load(std::memory_order_relaxed);
}

void allow_early_launches(bool allow) { allowed = allow; }

void launch_plainly_next(Stream stream) {
  if (std::find(plain_next.begin(), plain_next.end(), stream.handle) == plain_next.end())
    plain_next.push_back(stream.handle);
}

void launch_early(const char* what, Device device, dim3 grid, dim3 block, std::size_t shared_bytes,
                  const void* kernel, void** arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t how{};
  how.gridDim = grid;
  how.blockDim = block;
  how.dynamicSmemBytes = shared_bytes;
  how.stream = stream_of(device);
  how.attrs = &early;
  how.numAttrs = !is_plain(how.stream) && launches_early(device) ? 1 : 0;
  const cudaError_t status = cudaLaunchKernelExC(&how, kernel, arguments);
  if (status != cudaSuccess) cudaGetLastError();  // it would be taken for the next launch's
  check(status, what);
}

}  // namespace lamella::detail::cuda
