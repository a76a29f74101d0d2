#include "lamella/core/stream.h"

#include <map>
#include <mutex>
#include <utility>

#include "core/cuda_backend.h"
#include "core/shared_stream.h"

namespace lamella {

Stream new_stream(Device device) {
  return device.is_cuda() ? detail::cuda::new_stream(device) : current_stream(device);
}

void wait_stream(Stream stream, Stream other) {
  // The CPU never has anything queued.
  if (stream.device.is_cuda() && other.device.is_cuda()) detail::cuda::wait_stream(stream, other);
}

void synchronize(Device device) {
  if (device.is_cuda()) detail::cuda::synchronize(device);
}

std::uint64_t wait_count(Device device) { return device.is_cuda() ? detail::cuda::wait_count(device) : 0; }

StreamGuard::StreamGuard(Stream stream) : before_(current_stream(stream.device)) {
  if (stream.device.is_cuda()) detail::cuda::set_current_stream(stream);
}

StreamGuard::~StreamGuard() {
  if (before_.device.is_cuda()) detail::cuda::set_current_stream(before_);
}

Stream detail::shared_stream(Device device, StreamFor work) {
  static std::mutex mutex;
  static std::map<std::pair<int, StreamFor>, Stream> streams;
  const std::pair key(device.index, work);
  const std::lock_guard lock(mutex);
  const auto found = streams.find(key);
  return found != streams.end() ? found->second : streams.emplace(key, new_stream(device)).first->second;
}

}  // namespace lamella
