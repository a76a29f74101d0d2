#include "lamella/core/device.h"

#include <charconv>

#include "core/check.h"
#include "core/cuda_backend.h"
#include "lamella/core/log.h"

namespace lamella {

Device::Device(const std::string& text) {
  if (text == "cpu") return;
  if (text == "auto") {
    *this = default_device();
    return;
  }
  if (text == "cuda") {
    *this = cuda(0);
    return;
  }
  if (text.starts_with("cuda:")) {
    const char* const first = text.data() + 5;
    const char* const last = text.data() + text.size();
    int parsed = 0;
    const auto [end, error] = std::from_chars(first, last, parsed);
    if (error == std::errc() && end == last && *first != '-') {
      *this = cuda(parsed);
      return;
    }
  }
  throw DeviceError("Device: \"" + text +
                    R"(" is not a device; write "cpu", "cuda", "cuda:<index>" or "auto")");
}

std::string Device::to_string() const {
  if (type == DeviceType::Cuda) return "cuda:" + std::to_string(index);
  return index == 0 ? "cpu" : "cpu:" + std::to_string(index);
}

int cuda_device_count() { return detail::cuda::device_count(); }

Device default_device() {
  static const bool usable = [] {
    const std::string why_not = detail::cuda::why_not_usable(Device::cuda());
    if (!why_not.empty() && detail::cuda::has_driver())
      log_message(LogLevel::Warning, why_not + "; going on with the CPU");
    return why_not.empty();
  }();
  return usable ? Device::cuda(0) : Device::cpu();
}

std::string why_no_gpu() { return detail::cuda::why_not_usable(Device::cuda()); }

Stream current_stream(Device device) {
  if (device.is_cuda()) return detail::cuda::current_stream(device);
  return {device, nullptr};
}

}  // namespace lamella
