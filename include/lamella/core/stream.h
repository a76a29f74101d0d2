#pragma once

#include <cstdint>

#include "lamella/core/device.h"
#include "lamella/core/export.h"

namespace lamella {

/// @file
/// Queues of work on a GPU. Every thread issues its work for a device on that device's current stream: at
/// first one that all threads share. On the CPU work is done when a call returns, and all of this does
/// nothing.

/// A new queue of `device`; it lives until the program ends. Work on two queues is not ordered: see
/// wait_stream() and Tensor::record_stream(). Throws DeviceError for a device that is not there.
LAMELLA_API Stream new_stream(Device device);

/// What is queued on `stream` from now on waits for what is queued on `other` by now. They may belong to
/// different devices.
LAMELLA_API void wait_stream(Stream stream, Stream other);

/// Returns when all work queued on `device` is done. Throws DeviceError with CUDA's words if some of it
/// failed.
LAMELLA_API void synchronize(Device device);

/// How often this process has waited for `device`: for item() and other copies to the CPU, for copies to the
/// device that are not `non_blocking`, for synchronize(). A training loop that never waits keeps the GPU
/// busy; compare two moments. Always 0 for the CPU.
LAMELLA_API std::uint64_t wait_count(Device device);

/// Makes `stream` this thread's current stream of its device while it lives.
class LAMELLA_API StreamGuard {
 public:
  /// Throws DeviceError for a device that is not there.
  explicit StreamGuard(Stream stream);
  /// Brings back the stream from before.
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Stream before_;
};

}  // namespace lamella
