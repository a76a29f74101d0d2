#pragma once

#include <memory>

#include "lamella/core/device.h"

/// For profiles: when a GPU came to some place in a stream, and ranges for NVIDIA's tools.
namespace lamella::detail::cuda {

/// Marks in streams of one GPU.
class GpuClock {
 public:
  virtual ~GpuClock() = default;
  /// A mark behind what is queued on `stream` now: its number.
  virtual int mark(Stream stream) = 0;
  /// Seconds from the moment the GPU came to one mark until it came to another, after synchronize(); below 0
  /// where it came to `to` first. Mark 0 is the clock's making. The nearer they are, the more exact: a GPU
  /// gives it as a float.
  virtual double seconds_between(int from, int to) const = 0;
  /// Lets the GPU idle on `stream` for `seconds`, so that launches queue up behind and then follow each other
  /// without gaps.
  virtual void hold(Stream stream, double seconds) = 0;
};
/// Waits for the GPU: its zero is the moment that this returns.
std::unique_ptr<GpuClock> make_gpu_clock(Device device);

/// An NVTX range of this thread, as Nsight Systems shows it; nothing in a build without CUDA.
void push_range(const char* name);
void pop_range();

}  // namespace lamella::detail::cuda
