#include "lamella/core/memory.h"

#include "core/allocator.h"

namespace lamella {

MemoryStats memory_stats(Device device) { return detail::allocator_of(device).stats(); }
void reset_peak_memory(Device device) { detail::allocator_of(device).reset_peak(); }
void empty_cache(Device device) { detail::allocator_of(device).empty_cache(); }
void set_memory_limit(Device device, std::size_t bytes) { detail::allocator_of(device).set_limit(bytes); }

}  // namespace lamella
