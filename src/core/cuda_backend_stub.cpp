#include "core/check.h"
#include "core/cuda/gpu_clock.h"
#include "core/cuda/recording.h"
#include "core/cuda_backend.h"

namespace lamella::detail::cuda {
namespace {

[[noreturn]] void refuse(const char* what, Device device) {
  throw DeviceError(
      concat(what, ": ", device.to_string(),
             " is not available: this build has no CUDA; build with -DLAMELLA_CUDA=ON, or use cpu"));
}

}  // namespace

int device_count() { return 0; }
bool has_driver() { return false; }
std::string why_not_usable(Device) { return "this build has no CUDA, see LAMELLA_CUDA"; }
const char* version() { return "no"; }
Stream current_stream(Device device) { refuse("current_stream", device); }
Stream new_stream(Device device) { refuse("new_stream", device); }
void set_current_stream(Stream stream) { refuse("StreamGuard", stream.device); }
void wait_stream(Stream stream, Stream) { refuse("wait_stream", stream.device); }
void synchronize(Device device) { refuse("synchronize", device); }
std::uint64_t wait_count(Device device) { refuse("wait_count", device); }
Allocator& allocator(Device device, const char* op) { refuse(op, device); }
Allocator& pinned_allocator() {
  throw DeviceError("page-locked memory is for a GPU's copies, and this build has no CUDA");
}
const std::uint64_t* recorded_random_step(Device device) { refuse("next_random_key", device); }
void set_random_step(std::uint64_t) {}
void copy_bytes(void*, Device to_device, const void*, Device from_device, std::size_t) {
  refuse("to", to_device.is_cuda() ? to_device : from_device);
}
void copy_pinned_bytes(void*, Device to_device, const void*, std::size_t) { refuse("to", to_device); }
std::unique_ptr<Recording> record_launches(Device device, const std::function<void()>&) {
  refuse("record_launches", device);
}
bool is_recording() { return false; }
std::unique_ptr<GpuClock> make_gpu_clock(Device device) { refuse("Profile", device); }
void push_range(const char*) {}
void pop_range() {}
int set_device(int index) { refuse("set_device", Device::cuda(index)); }
void restore_device(int) noexcept {}

}  // namespace lamella::detail::cuda
