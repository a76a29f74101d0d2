#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/allocator.h"
#include "core/check.h"

namespace lamella::detail {
namespace {

constexpr std::size_t kGranule = 512;
constexpr std::size_t kLargest = std::size_t{1} << 62;

// Multiples of 512 bytes; from 4 KiB on, eight sizes per power of two, so at most an eighth of a block is
// unused.
std::size_t size_class(std::size_t bytes) {
  const std::size_t step = std::max(kGranule, std::bit_floor(bytes) / 8);
  return (bytes + step - 1) / step * step;
}

std::string readable(std::size_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1024 && unit < 6; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text;
}

class CachingAllocator final : public Allocator {
 public:
  CachingAllocator(Device device, std::unique_ptr<RawMemory> raw) : device_(device), raw_(std::move(raw)) {}
  ~CachingAllocator() override { release_cache(); }

  Block allocate(std::size_t bytes, Stream stream) override {
    if (bytes == 0) return {};
    std::lock_guard lock(mutex_);
    if (bytes > kLargest) throw_out_of_memory(bytes);
    const std::size_t block_bytes = size_class(bytes);
    void* data = take_cached(stream, block_bytes);
    if (data == nullptr) data = take_raw(block_bytes);
    if (data == nullptr) {
      release_cache();
      data = take_raw(block_bytes);
    }
    if (data == nullptr) throw_out_of_memory(bytes);
    ++stats_.allocations;
    stats_.in_use += block_bytes;
    stats_.peak_in_use = std::max(stats_.peak_in_use, stats_.in_use);
    raw_->mark_usable(data, bytes, block_bytes);
    return {data, block_bytes};
  }

  void deallocate(Block block, Stream stream) noexcept override {
    if (block.data == nullptr) return;
    std::lock_guard lock(mutex_);
    stats_.in_use -= block.bytes;
    try {
      cache_[{stream.handle, block.bytes}].push_back(block.data);
      raw_->mark_usable(block.data, 0, block.bytes);
    } catch (const std::bad_alloc&) {
      release(block.data, block.bytes);
    }
  }

  MemoryStats stats() const override {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() override {
    std::lock_guard lock(mutex_);
    stats_.peak_in_use = stats_.in_use;
    stats_.peak_reserved = stats_.reserved;
  }

  void empty_cache() override {
    std::lock_guard lock(mutex_);
    release_cache();
  }

  void set_limit(std::size_t bytes) override {
    std::lock_guard lock(mutex_);
    stats_.limit = bytes;
    if (bytes != 0 && stats_.reserved > bytes) release_cache();
  }

 private:
  using Key = std::pair<void*, std::size_t>;  // stream, size class

  void* take_cached(Stream stream, std::size_t bytes) {
    const auto found = cache_.find({stream.handle, bytes});
    if (found == cache_.end() || found->second.empty()) return nullptr;
    void* data = found->second.back();
    found->second.pop_back();
    return data;
  }

  void* take_raw(std::size_t bytes) {
    if (stats_.limit != 0 && (stats_.reserved > stats_.limit || bytes > stats_.limit - stats_.reserved))
      return nullptr;
    void* data = raw_->allocate(bytes);
    if (data == nullptr) return nullptr;
    ++stats_.device_allocations;
    stats_.reserved += bytes;
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
    return data;
  }

  void release(void* data, std::size_t bytes) noexcept {
    raw_->mark_usable(data, bytes, bytes);
    raw_->release(data, bytes);
    ++stats_.device_releases;
    stats_.reserved -= bytes;
  }

  void release_cache() noexcept {
    for (const auto& [key, blocks] : cache_)
      for (void* data : blocks) release(data, key.second);
    cache_.clear();
  }

  [[noreturn]] void throw_out_of_memory(std::size_t bytes) const {
    const std::size_t capacity = stats_.limit != 0 ? stats_.limit : raw_->capacity();
    const OutOfMemoryError::Report report{.requested = bytes,
                                          .in_use = stats_.in_use,
                                          .cached = stats_.reserved - stats_.in_use,
                                          .peak = stats_.peak_in_use,
                                          .capacity = capacity};
    std::string message = concat("out of memory on ", device_.to_string(), ": requested ", readable(bytes),
                                 " (", bytes, " bytes); in use ", readable(report.in_use), ", cached ",
                                 readable(report.cached), ", peak ", readable(report.peak));
    if (stats_.limit != 0) {
      message += ", limit " + readable(capacity) + " (set_memory_limit)";
    } else if (capacity != 0) {
      message += ", capacity " + readable(capacity);
    }
    throw OutOfMemoryError(message, report);
  }

  const Device device_;
  const std::unique_ptr<RawMemory> raw_;
  mutable std::mutex mutex_;
  MemoryStats stats_;
  std::map<Key, std::vector<void*>> cache_;
};

}  // namespace

std::unique_ptr<Allocator> make_caching_allocator(Device device, std::unique_ptr<RawMemory> raw) {
  return std::make_unique<CachingAllocator>(device, std::move(raw));
}

}  // namespace lamella::detail
