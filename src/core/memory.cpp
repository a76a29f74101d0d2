#include "lamella/core/memory.h"

#include <cstdio>

#include "core/allocator.h"
#include "core/cuda_backend.h"
#include "core/readable.h"

namespace lamella {

MemoryStats memory_stats(Device device) { return detail::allocator_of(device, "memory_stats").stats(); }

MemoryStats pinned_memory_stats() {
  return cuda_device_count() > 0 ? detail::cuda::pinned_allocator().stats() : MemoryStats{};
}

namespace {

std::string table(const std::string& title, const MemoryStats& stats) {
  std::string lines = title + '\n';
  const auto line = [&](const char* what, const std::string& value) {
    char text[80];
    std::snprintf(text, sizeof text, "  %-26s %14s\n", what, value.c_str());
    lines += text;
  };
  using detail::readable;
  line("in use", readable(stats.in_use));
  line("in use, peak", readable(stats.peak_in_use));
  line("cached", readable(stats.reserved - stats.in_use));
  line("reserved", readable(stats.reserved));
  line("reserved, peak", readable(stats.peak_reserved));
  line("limit", stats.limit == 0 ? "none" : readable(stats.limit));
  line("allocations", std::to_string(stats.allocations));
  line("taken from the device", std::to_string(stats.device_allocations));
  line("given back to the device", std::to_string(stats.device_releases));
  return lines;
}

}  // namespace

std::string memory_summary(Device device) {
  std::string text = table(device.to_string() + " memory", memory_stats(device));
  if (device.is_cuda()) text += table("page-locked memory", pinned_memory_stats());
  return text;
}

void reset_peak_memory(Device device) { detail::allocator_of(device, "reset_peak_memory").reset_peak(); }
void empty_cache(Device device) {
  detail::allocator_of(device, "empty_cache").empty_cache();
  if (device.is_cuda()) detail::cuda::pinned_allocator().empty_cache();
}
void set_memory_limit(Device device, std::size_t bytes) {
  detail::allocator_of(device, "set_memory_limit").set_limit(bytes);
}

}  // namespace lamella
