#include "lamella/core/memory.h"

#include <cstdio>

#include "core/allocator.h"
#include "core/readable.h"

namespace lamella {

MemoryStats memory_stats(Device device) { return detail::allocator_of(device).stats(); }

std::string memory_summary(Device device) {
  const MemoryStats stats = memory_stats(device);
  std::string table = device.to_string() + " memory\n";
  const auto line = [&](const char* what, const std::string& value) {
    char text[80];
    std::snprintf(text, sizeof text, "  %-26s %14s\n", what, value.c_str());
    table += text;
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
  return table;
}

void reset_peak_memory(Device device) { detail::allocator_of(device).reset_peak(); }
void empty_cache(Device device) { detail::allocator_of(device).empty_cache(); }
void set_memory_limit(Device device, std::size_t bytes) { detail::allocator_of(device).set_limit(bytes); }

}  // namespace lamella
