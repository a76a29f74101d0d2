#include "core/allocator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "lamella/core/error.h"

namespace lamella {
namespace {

using detail::Allocator;
using detail::Block;
using detail::RawMemory;

constexpr std::size_t kMiB = std::size_t{1} << 20;

// A device that has `capacity` bytes and keeps account; outlives the allocator, which owns only a door to it.
struct FakeDevice {
  std::size_t capacity = 64 * kMiB;
  std::size_t held = 0;
  int allocations = 0, releases = 0, refusals = 0;
  std::map<void*, std::size_t> blocks;
  std::map<void*, std::size_t> usable;
  int marks_open = 0;
  int waits = 0;
  bool others_done = false, may_ask = true, marks_fail = false;

  FakeDevice() = default;
  FakeDevice(const FakeDevice&) = delete;
  ~FakeDevice() {
    for (const auto& [data, bytes] : blocks) std::free(data);  // what a test did not hand back
  }
};

class FakeMemory final : public RawMemory {
 public:
  explicit FakeMemory(FakeDevice& device) : device_(device) {}
  void* allocate(std::size_t bytes) override {
    if (bytes > device_.capacity - device_.held) {
      ++device_.refusals;
      return nullptr;
    }
    ++device_.allocations;
    device_.held += bytes;
    void* data = std::malloc(1);  // an address of its own; nobody writes there
    device_.blocks[data] = bytes;
    return data;
  }
  void release(void* data, std::size_t bytes) noexcept override {
    EXPECT_EQ(device_.blocks[data], bytes);
    device_.blocks.erase(data);
    device_.held -= bytes;
    ++device_.releases;
    std::free(data);
  }
  std::size_t capacity() const override { return device_.capacity; }
  void* mark_stream(Stream stream) override {
    EXPECT_TRUE(device_.may_ask);
    if (device_.marks_fail) throw DeviceError("no mark");
    ++device_.marks_open;
    return stream.handle;
  }
  bool reached(void*) noexcept override {
    EXPECT_TRUE(device_.may_ask);
    device_.marks_open -= device_.others_done ? 1 : 0;
    return device_.others_done;
  }
  void wait_for(void* mark) noexcept override {
    EXPECT_TRUE(device_.may_ask);
    EXPECT_NE(mark, nullptr);
    ++device_.waits;
    device_.others_done = true;
  }
  bool may_ask() const override { return device_.may_ask; }
  void mark_usable(void* data, std::size_t usable, std::size_t bytes) noexcept override {
    EXPECT_LE(usable, bytes);
    device_.usable[data] = usable;
  }

 private:
  FakeDevice& device_;
};

class CachingAllocatorTest : public testing::Test {
 protected:
  FakeDevice fake;
  std::unique_ptr<Allocator> allocator =
      detail::make_caching_allocator(Device::cuda(3), std::make_unique<FakeMemory>(fake));
  int queues[2];
  const Stream first{Device::cuda(3), &queues[0]}, second{Device::cuda(3), &queues[1]};
};

TEST_F(CachingAllocatorTest, empty_requests_take_nothing) {
  const Block block = allocator->allocate(0, first);
  EXPECT_EQ(block.data, nullptr);
  EXPECT_EQ(block.bytes, 0u);
  allocator->deallocate(block, first);
  EXPECT_EQ(allocator->stats().allocations, 0u);
  EXPECT_EQ(fake.allocations, 0);
}

TEST_F(CachingAllocatorTest, rounds_up_with_little_waste) {
  std::mt19937_64 random(1);
  std::size_t classes = 0, last = 0;
  for (std::size_t bytes = 1; bytes <= 8 * kMiB; bytes += 1 + random() % (1 + bytes / 64)) {
    const Block block = allocator->allocate(bytes, first);
    ASSERT_GE(block.bytes, bytes);
    ASSERT_EQ(block.bytes % 512, 0u);
    ASSERT_LT(block.bytes - bytes, bytes <= 4096 ? 512 : bytes / 8 + 1) << bytes;
    ASSERT_GE(block.bytes, last) << "not monotonic at " << bytes;
    ASSERT_EQ(fake.usable[block.data], bytes);
    if (block.bytes != last) ++classes;
    last = block.bytes;
    allocator->deallocate(block, first);
    ASSERT_EQ(fake.usable[block.data], 0u);
  }
  EXPECT_LE(classes, 8u + 8 * 11);  // up to 4 KiB, then eight sizes in each of eleven doublings
  EXPECT_EQ(allocator->allocate(512, first).bytes, 512u);
  EXPECT_EQ(allocator->allocate(513, first).bytes, 1024u);
  EXPECT_EQ(allocator->allocate(kMiB, first).bytes, kMiB);
  EXPECT_EQ(allocator->allocate(kMiB + 1, first).bytes, kMiB + kMiB / 8);
}

TEST_F(CachingAllocatorTest, reuses_a_freed_block_on_its_stream) {
  const Block block = allocator->allocate(1000, first);
  allocator->deallocate(block, first);
  const Block again = allocator->allocate(900, first);
  EXPECT_EQ(again.data, block.data);
  EXPECT_EQ(fake.allocations, 1);
  EXPECT_NE(allocator->allocate(1000, first).data, block.data) << "handed out twice";
}

TEST_F(CachingAllocatorTest, never_reuses_across_streams_or_classes) {
  const Block block = allocator->allocate(1000, first);
  allocator->deallocate(block, first);
  EXPECT_NE(allocator->allocate(1000, second).data, block.data);
  EXPECT_NE(allocator->allocate(2000, first).data, block.data);
  EXPECT_NE(allocator->allocate(100, first).data, block.data);
  EXPECT_EQ(allocator->allocate(1000, first).data, block.data);
}

TEST_F(CachingAllocatorTest, waits_for_other_streams_that_use_a_block) {
  const Block block = allocator->allocate(1000, first);
  allocator->record_stream(block, second);
  allocator->record_stream(block, second);
  allocator->deallocate(block, first);
  EXPECT_EQ(fake.marks_open, 1) << "one mark a stream";
  EXPECT_NE(allocator->allocate(1000, first).data, block.data) << "the other stream may still read it";
  fake.others_done = true;
  fake.may_ask = false;
  EXPECT_NE(allocator->allocate(1000, first).data, block.data);
  fake.may_ask = true;
  EXPECT_EQ(allocator->allocate(1000, first).data, block.data);
  EXPECT_EQ(fake.marks_open, 0);
}

TEST_F(CachingAllocatorTest, marks_only_when_it_may) {
  const Block block = allocator->allocate(1000, first);
  allocator->record_stream(block, second);
  fake.may_ask = false;
  allocator->deallocate(block, first);
  EXPECT_EQ(fake.marks_open, 0);
  EXPECT_NE(allocator->allocate(1000, first).data, block.data);
  fake.may_ask = true;
  EXPECT_NE(allocator->allocate(1000, first).data, block.data) << "the mark has just been made";
  EXPECT_EQ(fake.marks_open, 1);
  fake.others_done = true;
  EXPECT_EQ(allocator->allocate(1000, first).data, block.data);
}

TEST_F(CachingAllocatorTest, gives_back_a_block_that_it_cannot_mark) {
  const Block block = allocator->allocate(1000, first);
  allocator->record_stream(block, second);
  fake.marks_fail = true;
  allocator->deallocate(block, first);
  EXPECT_EQ(allocator->stats().device_releases, 1u);
  EXPECT_EQ(allocator->stats().reserved, 0u);
  fake.marks_fail = false;
  const Block next = allocator->allocate(1000, first);
  allocator->deallocate(next, first);
  EXPECT_EQ(allocator->allocate(1000, first).data, next.data) << "nothing of the old block is left";
}

TEST_F(CachingAllocatorTest, a_pool_keeps_its_blocks_to_itself) {
  const std::uint64_t pool = allocator->new_pool();
  Block recorded, outliving;
  {
    const detail::PoolGuard guard(*allocator, pool);
    recorded = allocator->allocate(1000, first);
    outliving = allocator->allocate(3000, first);
    allocator->deallocate(recorded, first);
    EXPECT_EQ(allocator->allocate(1000, first).data, recorded.data)
        << "within the pool, blocks are used again";
    allocator->deallocate(recorded, first);
  }
  EXPECT_NE(allocator->allocate(1000, first).data, recorded.data);
  allocator->empty_cache();
  EXPECT_TRUE(fake.blocks.contains(recorded.data)) << "recorded work may write there";
  allocator->release_pool(pool, second);
  EXPECT_EQ(allocator->allocate(1000, second).data, recorded.data);
  allocator->deallocate(outliving, first);
  EXPECT_EQ(allocator->allocate(3000, second).data, outliving.data);
}

TEST_F(CachingAllocatorTest, a_steady_step_takes_nothing_from_the_device) {
  const std::size_t sizes[] = {100, 5000, 70'000, 70'000, kMiB, 3 * kMiB};
  const auto step = [&] {
    std::vector<Block> live;
    for (const std::size_t size : sizes) live.push_back(allocator->allocate(size, first));
    for (const Block& block : live) allocator->deallocate(block, first);
  };
  step();
  const int taken = fake.allocations;
  EXPECT_EQ(taken, 6);
  for (int i = 0; i < 100; ++i) step();
  EXPECT_EQ(fake.allocations, taken);
  EXPECT_EQ(fake.releases, 0);
}

TEST_F(CachingAllocatorTest, keeps_exact_figures) {
  const Block a = allocator->allocate(512, first);
  const Block b = allocator->allocate(kMiB, second);
  MemoryStats s = allocator->stats();
  EXPECT_EQ(s.in_use, 512 + kMiB);
  EXPECT_EQ(s.reserved, 512 + kMiB);
  allocator->deallocate(b, second);
  const Block c = allocator->allocate(1024, first);
  s = allocator->stats();
  EXPECT_EQ(s.in_use, 512u + 1024);
  EXPECT_EQ(s.peak_in_use, 512 + kMiB);
  EXPECT_EQ(s.reserved, 512 + kMiB + 1024);
  EXPECT_EQ(s.peak_reserved, 512 + kMiB + 1024);
  EXPECT_EQ(s.allocations, 3u);
  EXPECT_EQ(s.device_allocations, 3u);
  EXPECT_EQ(s.device_releases, 0u);
  EXPECT_EQ(s.limit, 0u);
  allocator->reset_peak();
  EXPECT_EQ(allocator->stats().peak_in_use, 512u + 1024);
  allocator->empty_cache();
  s = allocator->stats();
  EXPECT_EQ(s.reserved, 512u + 1024);
  EXPECT_EQ(s.peak_reserved, 512 + kMiB + 1024);
  EXPECT_EQ(s.device_releases, 1u);
  allocator->reset_peak();
  EXPECT_EQ(allocator->stats().peak_reserved, 512u + 1024);
  allocator->deallocate(a, first);
  allocator->deallocate(c, first);
  EXPECT_EQ(allocator->stats().in_use, 0u);
  allocator->empty_cache();
  EXPECT_EQ(allocator->stats().reserved, 0u);
  EXPECT_EQ(fake.held, 0u);
}

TEST_F(CachingAllocatorTest, gives_the_cache_back_before_it_fails) {
  fake.capacity = 4 * kMiB;
  const Block a = allocator->allocate(3 * kMiB, first);
  allocator->deallocate(a, first);
  const Block b = allocator->allocate(2 * kMiB, second);  // fits only without the cached block
  EXPECT_NE(b.data, nullptr);
  EXPECT_EQ(fake.refusals, 1);
  EXPECT_EQ(fake.releases, 1);
  EXPECT_EQ(allocator->stats().reserved, 2 * kMiB);
}

TEST_F(CachingAllocatorTest, waits_for_other_streams_before_it_fails) {
  fake.capacity = 4 * kMiB;
  const auto lend_and_free = [&] {
    const Block block = allocator->allocate(3 * kMiB, first);
    allocator->record_stream(block, second);
    fake.others_done = false;
    allocator->deallocate(block, first);
    return block.data;
  };
  lend_and_free();
  fake.may_ask = false;
  EXPECT_THROW(allocator->allocate(2 * kMiB, first), OutOfMemoryError) << "waiting would be recorded";
  EXPECT_EQ(fake.waits, 0);
  fake.may_ask = true;
  const Block other = allocator->allocate(2 * kMiB, first);  // fits only without the block that waits
  EXPECT_NE(other.data, nullptr);
  EXPECT_EQ(fake.waits, 1);
  EXPECT_EQ(fake.marks_open, 0);
  EXPECT_EQ(allocator->stats().reserved, 2 * kMiB);
  allocator->deallocate(other, first);

  const void* const lent = lend_and_free();
  const int releases = fake.releases;
  const Block again = allocator->allocate(3 * kMiB, first);  // the block itself serves
  EXPECT_EQ(again.data, lent);
  EXPECT_EQ(fake.waits, 2);
  EXPECT_EQ(fake.releases, releases);
  EXPECT_THROW(allocator->allocate(2 * kMiB, first), OutOfMemoryError);
  EXPECT_EQ(fake.waits, 2) << "nothing to wait for";
}

TEST_F(CachingAllocatorTest, out_of_memory_tells_the_figures_and_the_program_goes_on) {
  fake.capacity = 4 * kMiB;
  const Block a = allocator->allocate(kMiB, first), b = allocator->allocate(2 * kMiB, first);
  allocator->deallocate(b, first);
  try {
    allocator->allocate(5 * kMiB, first);
    ADD_FAILURE() << "no error";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.report().requested, 5 * kMiB);
    EXPECT_EQ(error.report().in_use, kMiB);
    EXPECT_EQ(error.report().cached, 0u);
    EXPECT_EQ(error.report().peak, 3 * kMiB);
    EXPECT_EQ(error.report().capacity, 4 * kMiB);
    EXPECT_STREQ(
        error.what(),
        "out of memory on cuda:3: requested 5.00 MiB (5242880 bytes); in use 1.00 MiB, cached 0 B, peak "
        "3.00 MiB, capacity 4.00 MiB");
  }
  EXPECT_EQ(fake.refusals, 2) << "one retry";
  EXPECT_EQ(allocator->stats().allocations, 2u) << "a failed request is not served";
  EXPECT_EQ(allocator->stats().in_use, kMiB);
  allocator->deallocate(a, first);
  EXPECT_NE(allocator->allocate(2 * kMiB, first).data, nullptr);
}

TEST_F(CachingAllocatorTest, absurd_sizes_do_not_overflow) {
  for (const std::size_t bytes : {~std::size_t{0}, ~std::size_t{0} - 600, std::size_t{1} << 63}) {
    EXPECT_THROW(allocator->allocate(bytes, first), OutOfMemoryError);
    allocator->set_limit(kMiB);
    EXPECT_THROW(allocator->allocate(bytes, first), OutOfMemoryError);
    allocator->set_limit(0);
  }
  EXPECT_EQ(fake.allocations, 0);
}

TEST_F(CachingAllocatorTest, honours_the_limit) {
  allocator->set_limit(3 * kMiB);
  EXPECT_EQ(allocator->stats().limit, 3 * kMiB);
  const Block a = allocator->allocate(kMiB, first), b = allocator->allocate(2 * kMiB, first);  // up to it
  try {
    allocator->allocate(1, first);
    ADD_FAILURE() << "no error";
  } catch (const OutOfMemoryError& error) {
    EXPECT_EQ(error.report().capacity, 3 * kMiB);
    EXPECT_THAT(error.what(), testing::HasSubstr("limit 3.00 MiB (set_memory_limit)"));
  }
  EXPECT_EQ(fake.refusals, 0) << "refused before the device was asked";
  allocator->deallocate(b, first);
  EXPECT_NE(allocator->allocate(1, first).data, nullptr) << "the cache makes room";
  EXPECT_LE(allocator->stats().reserved, 3 * kMiB);
  allocator->set_limit(0);
  EXPECT_NE(allocator->allocate(10 * kMiB, first).data, nullptr);
  allocator->deallocate(a, first);
}

TEST_F(CachingAllocatorTest, a_limit_below_what_is_held_gives_the_cache_back) {
  const Block a = allocator->allocate(2 * kMiB, first), b = allocator->allocate(kMiB, first);
  allocator->deallocate(b, first);
  allocator->set_limit(kMiB);
  EXPECT_EQ(allocator->stats().reserved, 2 * kMiB) << "live blocks stay";
  EXPECT_THROW(allocator->allocate(512, first), OutOfMemoryError);
  allocator->deallocate(a, first);
  EXPECT_NE(allocator->allocate(512, first).data, nullptr);
  EXPECT_EQ(allocator->stats().reserved, 512u);
}

TEST_F(CachingAllocatorTest, gives_the_cache_back_when_it_ends) {
  allocator->deallocate(allocator->allocate(kMiB, first), first);
  allocator->deallocate(allocator->allocate(100, second), second);
  allocator.reset();
  EXPECT_EQ(fake.held, 0u);
}

TEST_F(CachingAllocatorTest, serves_threads_at_once) {
  fake.capacity = 2 * kMiB;  // tight, so that the cache is given back all the time
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      const Stream stream = t % 2 == 0 ? first : second;
      std::vector<Block> live;
      for (int i = 0; i < 3000; ++i) {
        if (live.size() < 8 && random() % 2 == 0) {
          try {
            live.push_back(allocator->allocate(1 + random() % (100 * 1024), stream));
          } catch (const OutOfMemoryError&) {
          }
        } else if (!live.empty()) {
          allocator->deallocate(live.back(), stream);
          live.pop_back();
        }
      }
      for (const Block& block : live) allocator->deallocate(block, stream);
    });
  for (std::thread& thread : threads) thread.join();
  const MemoryStats s = allocator->stats();
  EXPECT_EQ(s.in_use, 0u);
  EXPECT_EQ(s.reserved, fake.held);
  EXPECT_EQ(s.device_allocations - s.device_releases, fake.blocks.size());
  EXPECT_LE(s.peak_reserved, fake.capacity);
}

}  // namespace
}  // namespace lamella
