#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/allocator.h"
#include "lamella/core/device.h"

/// What the device-neutral code asks of the CUDA backend. A build without CUDA compiles
/// cuda_backend_stub.cpp: no devices, and a DeviceError from whatever needs one.
namespace lamella::detail::cuda {

int device_count();
/// Whether the machine has an NVIDIA driver, whatever it can do.
bool has_driver();
/// Why `device` cannot be used, in words for people; "" if it can.
std::string why_not_usable(Device device);
/// "no", or the toolkit's version.
const char* version();
/// See lamella/core/stream.h.
Stream current_stream(Device device);
Stream new_stream(Device device);
void set_current_stream(Stream stream);
void wait_stream(Stream stream, Stream other);
void synchronize(Device device);
/// How often this process has waited for `device`.
std::uint64_t wait_count(Device device);
/// See allocator_of().
Allocator& allocator(Device device, const char* op);
/// Of page-locked memory, which belongs to the CPU. Throws DeviceError without a GPU.
Allocator& pinned_allocator();
/// Device memory that holds the random step, for a key that is drawn while this thread records; else null.
const std::uint64_t* recorded_random_step(Device device);
/// Brings every device's random step to `step`, in the order of the devices' current streams.
void set_random_step(std::uint64_t step);
/// Copies bytes from one device to another, or between a GPU and the CPU, after what the current streams of
/// both have queued. When it returns, memory of the CPU may be read or changed. Throws DeviceError while this
/// thread records.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);
/// Queues a copy from page-locked memory on the GPU's current stream. Throws as copy_bytes().
void copy_pinned_bytes(void* to, Device to_device, const void* from, std::size_t bytes);

/// Launches that can be repeated.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Queues them once more on the current stream.
  virtual void replay() = 0;
};
/// Calls `work` and records what it launches on the current stream of `device`, which is one for recording
/// meanwhile, in place of running it. What it allocates stays reserved until the recording goes. Passes on
/// what `work` throws, with nothing recorded.
std::unique_ptr<Recording> record_launches(Device device, const std::function<void()>& work);

/// Makes `device` the one that this thread launches on; returns what was.
int set_device(int index);
/// Undoes set_device(), unless nobody has used that device yet: that would take memory on it. Ignores errors.
void restore_device(int before) noexcept;

/// This thread launches on `device` while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(Device device) : before_(set_device(device.index)) {}
  ~DeviceGuard() { restore_device(before_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_;
};

}  // namespace lamella::detail::cuda
