#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/gpu_clock.h"
#include "core/profiling.h"

/// What a profile keeps of what the hooks in profiling.h tell. One at a time in a process.
namespace lamella::detail::profiling {

/// Seconds since some moment.
double now();

/// A call of a kernel by the thread that is profiled. Times are of now().
struct KernelCall {
  const char* op = nullptr;    ///< the operator that made it
  const char* call = nullptr;  ///< see KernelScope
  Pass pass = Pass::Forward;
  double begin = 0, end = 0;  ///< on the CPU
  double inside = 0;          ///< CPU seconds of calls within this one
  std::int64_t read = 0, written = 0;
  std::int64_t around = -1;             ///< index of the call that this one was made within
  void* stream = nullptr;               ///< of a GPU
  int first_mark = -1, last_mark = -1;  ///< of the GPU's clock; −1: not on it
};

/// A block that was in use at some time since the log began.
struct BlockUse {
  const void* data = nullptr;
  std::size_t bytes = 0;
  Pass pass = Pass::Forward;  ///< during which it was taken
  const char* op = nullptr;   ///< that took it; null: unknown
  bool is_tensor = false;     ///< else a workspace
  std::array<std::int64_t, 8> sizes{};
  int axes = 0;
  DType dtype = DType::Float32;
  double from = 0;
  double until = -1;      ///< −1: still in use when the log ended
  int purpose = -1;       ///< given by the user of the profile, with
  std::string name = {};  ///< whose it is
};

/// "depthwise_conv2d_forward" of "depthwise_conv2d_forward(geometry, …".
std::string name_of_call(const char* call);

struct Log {
  Device device;
  std::atomic<bool> is_open = false;      ///< blocks and kernels are logged
  std::unique_ptr<cuda::GpuClock> clock;  ///< null on the CPU
  std::vector<KernelCall> kernels;
  std::vector<BlockUse> blocks;
  std::map<const void*, std::size_t> in_use;  ///< blocks by address
  std::size_t in_use_before = 0;              ///< bytes of blocks from before the log
  std::vector<std::pair<double, std::size_t>>
      returned_earlier;  ///< those of them that came back: when, bytes

  std::mutex mutex;  ///< over changes of is_open and the blocks: any thread may take and return these
};

/// Makes `log` the one that hooks write to, its memory from now on. Throws Error if there is one.
void open_log(const std::shared_ptr<Log>& log);
/// Whether kernels of the thread that calls this are logged.
void log_kernels(const std::shared_ptr<Log>& log, bool on);
/// What this thread has begun and not ended, as an operator that threw, is not the next one's.
void drop_unfinished();
/// Nothing is logged from now on.
void close_log();

}  // namespace lamella::detail::profiling
