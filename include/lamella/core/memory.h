#pragma once

#include <cstddef>
#include <string>

#include "lamella/core/device.h"
#include "lamella/core/export.h"

/// @file
/// What the caching allocators hold. Where writes go astray on a GPU, run with LAMELLA_CHECK_MEMORY=1 in the
/// environment: every tensor then starts as NaN (all bits set), and a block whose surroundings were written
/// to ends the program with a message when it is given back. That waits for the GPU all the time; recorded
/// steps are not checked.
///
/// On a GPU, blocks from 1 MiB on are cut from spaces, one for each stream and recording, that grow by chunks
/// of 2 and 16 MiB and whose free neighbours are joined, so that little more is reserved than is in use.
/// Where the GPU cannot map memory, with LAMELLA_GROWING_MEMORY=0 and with checks, each is kept for requests
/// of its size, as smaller ones are.
namespace lamella {

/// What a device's caching allocator holds, in bytes (counts where said). The functions below throw
/// DeviceError for a device that this build or machine does not have.
struct MemoryStats {
  std::size_t in_use = 0;         ///< handed out to live tensors and workspaces
  std::size_t peak_in_use = 0;    ///< highest in_use since the start or reset_peak_memory()
  std::size_t reserved = 0;       ///< taken from the device: in_use plus the cache
  std::size_t peak_reserved = 0;  ///< highest reserved since the same moment
  std::size_t limit = 0;          ///< see set_memory_limit(); 0: none
  std::size_t allocations = 0;    ///< count of requests served
  /// Count of requests that went to the device (cudaMalloc, chunks mapped, operator new).
  std::size_t device_allocations = 0;
  std::size_t device_releases = 0;  ///< count of blocks and chunks given back to the device
};

/// Present figures of `device`.
LAMELLA_API MemoryStats memory_stats(Device device);
/// Of page-locked memory of the CPU, which GPUs copy from on their own (see Tensor::pin_memory()); all 0
/// where there is no GPU.
LAMELLA_API MemoryStats pinned_memory_stats();
/// memory_stats() as a table for people, and for a GPU that of page-locked memory: bytes in readable units,
/// counts as they are. Ends with a line's end.
LAMELLA_API std::string memory_summary(Device device);
/// Sets both peaks to the present figures.
LAMELLA_API void reset_peak_memory(Device device);
/// Gives every cached, unused block back to the device (of a GPU, page-locked ones as well), and of growing
/// spaces the chunks that no tensor touches; waits for the GPU's work. Tensors keep theirs.
LAMELLA_API void empty_cache(Device device);
/// Refuses to reserve more than `bytes` on `device` (0: no limit). A request beyond it empties the cache,
/// waits for freed memory that other streams still use (see Tensor::record_stream()), tries again and then
/// throws OutOfMemoryError. If more is reserved already, the cache is given back at once; tensors keep
/// theirs.
LAMELLA_API void set_memory_limit(Device device, std::size_t bytes);

}  // namespace lamella
