#pragma once

#include <memory>

#include "core/allocator.h"

namespace lamella::detail::cuda {

/// Memory of a GPU, for its caching allocator; it can map memory to addresses (see RawMemory::chunk_bytes())
/// if the GPU can and LAMELLA_GROWING_MEMORY is not 0.
std::unique_ptr<RawMemory> make_cuda_memory(Device device);
/// Memory of a GPU with checks, see memory.h's LAMELLA_CHECK_MEMORY.
std::unique_ptr<RawMemory> make_checked_cuda_memory(Device device);
/// Memory of the CPU that GPUs copy from and to on their own, for its caching allocator.
std::unique_ptr<RawMemory> make_pinned_memory();

}  // namespace lamella::detail::cuda
