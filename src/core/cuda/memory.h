#pragma once

#include <memory>

#include "core/allocator.h"

namespace lamella::detail::cuda {

/// Memory of a GPU, for its caching allocator.
std::unique_ptr<RawMemory> make_cuda_memory(Device device);

}  // namespace lamella::detail::cuda
