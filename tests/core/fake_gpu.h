#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>

#include "core/allocator.h"
#include "lamella/core/error.h"

namespace lamella::test {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;

/// Hands out addresses behind which there is nothing, and looks that they are mapped and unmapped as they
/// may.
struct FakeGpu {
  std::size_t capacity = 64 * kMiB, chunk = 2 * kMiB;
  std::size_t held = 0;
  std::uintptr_t next = std::uintptr_t{1} << 40;
  std::map<char*, std::size_t> reserved, mapped, blocks;
  int maps_until_refusal = -1;
  int waits = 0, refusals = 0;
  bool has_waited = true;  // since memory was last taken back
  bool others_done = false, may_ask = true, marks_fail = false;

  char* addresses(std::size_t bytes) {
    char* const data = reinterpret_cast<char*>(next);
    next += bytes + kMiB;
    return data;
  }
  bool is_mapped(const void* from, std::size_t bytes) const {
    auto *at = static_cast<const char*>(from), *end = at + bytes;
    while (at < end) {
      auto found = mapped.upper_bound(const_cast<char*>(at));
      if (found == mapped.begin()) return false;
      --found;
      if (found->first + found->second <= at) return false;
      at = found->first + found->second;
    }
    return true;
  }
};

/// What an allocator sees of it.
class FakeGpuMemory final : public detail::RawMemory {
 public:
  explicit FakeGpuMemory(FakeGpu& gpu) : gpu_(gpu) {}
  void* allocate(std::size_t bytes) override {
    if (!take(bytes)) return nullptr;
    char* const data = gpu_.addresses(bytes);
    gpu_.blocks[data] = bytes;
    return data;
  }
  void release(void* data, std::size_t bytes) noexcept override {
    EXPECT_EQ(gpu_.blocks[static_cast<char*>(data)], bytes);
    gpu_.blocks.erase(static_cast<char*>(data));
    gpu_.held -= bytes;
  }
  std::size_t capacity() const override { return gpu_.capacity; }
  std::size_t chunk_bytes() const override { return gpu_.chunk; }
  void* reserve(std::size_t bytes) override {
    EXPECT_EQ(bytes % gpu_.chunk, 0u);
    char* const data = gpu_.addresses(bytes);
    gpu_.reserved[data] = bytes;
    return data;
  }
  void unreserve(void* data, std::size_t bytes) noexcept override {
    EXPECT_EQ(gpu_.reserved[static_cast<char*>(data)], bytes);
    const auto first = gpu_.mapped.lower_bound(static_cast<char*>(data));
    EXPECT_TRUE(first == gpu_.mapped.end() || first->first >= static_cast<char*>(data) + bytes);
    gpu_.reserved.erase(static_cast<char*>(data));
  }
  bool map(void* data, std::size_t bytes) override {
    const auto range = std::prev(gpu_.reserved.upper_bound(static_cast<char*>(data)));
    const std::size_t offset = static_cast<std::size_t>(static_cast<char*>(data) - range->first);
    EXPECT_LE(offset + bytes, range->second);
    EXPECT_EQ(offset % bytes, 0u);
    EXPECT_EQ(bytes % gpu_.chunk, 0u);
    for (std::size_t at = 0; at < bytes; at += gpu_.chunk)
      EXPECT_FALSE(gpu_.is_mapped(static_cast<char*>(data) + at, 1));
    if (gpu_.maps_until_refusal == 0 || !take(bytes)) return false;
    if (gpu_.maps_until_refusal > 0) --gpu_.maps_until_refusal;
    gpu_.mapped[static_cast<char*>(data)] = bytes;
    return true;
  }
  void unmap(void* data, std::size_t bytes) noexcept override {
    EXPECT_EQ(gpu_.mapped[static_cast<char*>(data)], bytes) << "not what was mapped at once";
    EXPECT_TRUE(gpu_.has_waited);
    gpu_.mapped.erase(static_cast<char*>(data));
    gpu_.held -= bytes;
  }
  void wait_for_device() noexcept override {
    ++gpu_.waits;
    gpu_.has_waited = true;
  }
  void* mark_stream(Stream stream) override {
    if (gpu_.marks_fail) throw DeviceError("no mark");
    return stream.handle;
  }
  bool reached(void*) noexcept override { return gpu_.others_done; }
  void wait_for(void*) noexcept override { gpu_.others_done = true; }
  bool may_ask() const override { return gpu_.may_ask; }

 private:
  bool take(std::size_t bytes) {
    if (bytes > gpu_.capacity - gpu_.held) {
      ++gpu_.refusals;
      return false;
    }
    gpu_.held += bytes;
    return true;
  }
  FakeGpu& gpu_;
};

}  // namespace lamella::test
