#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "lamella/core/device.h"
#include "lamella/core/memory.h"

namespace lamella::detail {

/// A piece of device memory.
struct Block {
  void* data = nullptr;
  /// Size reserved, at least what was asked for; only what was asked for may be touched.
  std::size_t bytes = 0;
  /// Where it goes back to: see Allocator::new_pool(); 0: the common cache.
  std::uint64_t pool = 0;
};

/// Where tensors get their memory.
class Allocator {
 public:
  virtual ~Allocator() = default;
  /// Memory for `bytes` bytes (null block for 0), aligned to 64 bytes at least, for use on `stream`. Throws
  /// OutOfMemoryError.
  virtual Block allocate(std::size_t bytes, Stream stream) = 0;
  /// Takes a block back. `stream` is the one it was allocated for: work queued there may still use it.
  virtual void deallocate(Block block, Stream stream) noexcept = 0;
  /// Work queued on `stream` until the block is taken back uses it, too: it is handed out again only when
  /// that work is done.
  virtual void record_stream(const Block& block, Stream stream) = 0;

  /// A pool of blocks of its own, for work that is recorded once and replayed: what it wrote there must not
  /// be handed to others in between. While PoolGuard says so, a thread allocates from it.
  virtual std::uint64_t new_pool() = 0;
  /// Ends a pool, none of whose work is under way: its free blocks, and those that are taken back later, go
  /// to the common cache, for `stream`.
  virtual void release_pool(std::uint64_t pool, Stream stream) noexcept = 0;

  virtual MemoryStats stats() const = 0;
  virtual void reset_peak() = 0;
  virtual void empty_cache() = 0;
  virtual void set_limit(std::size_t bytes) = 0;
};

/// While it lives, what this thread allocates comes from `pool` of the allocator that made it.
class PoolGuard {
 public:
  PoolGuard(const Allocator& allocator, std::uint64_t pool);
  ~PoolGuard();
  PoolGuard(const PoolGuard&) = delete;
  PoolGuard& operator=(const PoolGuard&) = delete;

 private:
  const Allocator* allocator_before_;
  std::uint64_t pool_before_;
};

/// The device below a CachingAllocator; a test puts a fake here.
class RawMemory {
 public:
  virtual ~RawMemory() = default;
  /// Null when there is none left.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* data, std::size_t bytes) noexcept = 0;
  /// Bytes the device has; 0: unknown.
  virtual std::size_t capacity() const = 0;
  /// Of a block of `bytes`, only the first `usable` may be touched from now on. For memory checkers.
  virtual void mark_usable(void* /*data*/, std::size_t /*usable*/, std::size_t /*bytes*/) noexcept {}

  /// Memory that is mapped to addresses reserved before, see GrowingSpace: what sizes there are multiples of;
  /// 0: this cannot.
  virtual std::size_t chunk_bytes() const { return 0; }
  /// Addresses without memory; null if refused.
  virtual void* reserve(std::size_t /*bytes*/) { return nullptr; }
  virtual void unreserve(void* /*data*/, std::size_t /*bytes*/) noexcept {}
  /// Memory for addresses that were reserved and have none. False when there is too little.
  virtual bool map(void* /*data*/, std::size_t /*bytes*/) { return false; }
  /// Gives back what one call of map() took.
  virtual void unmap(void* /*data*/, std::size_t /*bytes*/) noexcept {}
  /// Waits for all work of the device, as unmap() does not. May be called while streams are captured.
  virtual void wait_for_device() noexcept {}

  /// A mark behind what is queued on `stream` now, and whether it has been reached; that it has ends the
  /// mark. Null is always reached.
  virtual void* mark_stream(Stream /*stream*/) { return nullptr; }
  virtual bool reached(void* /*mark*/) noexcept { return true; }
  /// Waits until `mark`, which is not null, is reached; does not end it.
  virtual void wait_for(void* /*mark*/) noexcept {}
  /// False while making marks and asking for them is forbidden.
  virtual bool may_ask() const { return true; }
};

/// Keeps freed blocks for reuse by stream: small ones by size class, large ones, where `raw` can map memory,
/// in spaces that they are cut from. Holds no device code. Defined in caching_allocator.cpp.
std::unique_ptr<Allocator> make_caching_allocator(Device device, std::unique_ptr<RawMemory> raw);

/// The allocator of `device`. Never destroyed, so that static tensors may outlive main. Throws DeviceError,
/// whose message begins with `op`, for a device this build or machine does not have.
Allocator& allocator_of(Device device, const char* op = "allocate");

}  // namespace lamella::detail
