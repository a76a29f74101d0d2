#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "core/allocator.h"
#include "fake_gpu.h"
#include "lamella/core/error.h"
#include "lamella/core/memory.h"

// A caching allocator on a device that maps.
namespace lamella {
namespace {

using detail::Allocator;
using detail::Block;
using test::FakeGpu;
using test::FakeGpuMemory;
using test::kMiB;

class GrowingAllocatorTest : public testing::Test {
 protected:
  FakeGpu gpu;
  std::unique_ptr<Allocator> allocator =
      detail::make_caching_allocator(Device::cuda(0), std::make_unique<FakeGpuMemory>(gpu));
  int queues[2];
  const Stream first{Device::cuda(0), &queues[0]}, second{Device::cuda(0), &queues[1]};
};

TEST_F(GrowingAllocatorTest, large_blocks_use_the_room_of_smaller_ones) {
  std::vector<Block> small;
  for (int i = 0; i < 4; ++i) small.push_back(allocator->allocate(3 * kMiB + 1, first));
  EXPECT_EQ(small[0].bytes, 3 * kMiB + 512) << "hardly rounded up";
  for (const Block& block : small) allocator->deallocate(block, first);
  const Block large = allocator->allocate(12 * kMiB, first);
  EXPECT_EQ(large.data, small[0].data);
  const MemoryStats s = allocator->stats();
  EXPECT_EQ(s.reserved, 14 * kMiB);
  EXPECT_EQ(s.reserved, gpu.held);
  EXPECT_EQ(s.device_allocations, 7u);
  EXPECT_EQ(s.in_use, 12 * kMiB);
  const Block tiny = allocator->allocate(1000, first);
  EXPECT_EQ(gpu.blocks.size(), 1u) << "small blocks are not cut from it";
  allocator->deallocate(tiny, first);
  allocator->deallocate(large, first);
}

TEST_F(GrowingAllocatorTest, what_it_grows_by_joins_what_is_there) {
  gpu.capacity = 4096 * kMiB;
  std::vector<Block> small;
  for (int i = 0; i < 8; ++i)
    small.push_back(allocator->allocate(30 * kMiB, first));  // small and large chunks
  for (const Block& block : small) allocator->deallocate(block, first);
  const std::size_t before = allocator->stats().reserved;
  const Block large = allocator->allocate(230 * kMiB, first);
  EXPECT_EQ(allocator->stats().reserved, before);
  allocator->deallocate(large, first);
}

TEST_F(GrowingAllocatorTest, streams_have_spaces_of_their_own) {
  const Block block = allocator->allocate(4 * kMiB, first);
  allocator->deallocate(block, first);
  EXPECT_NE(allocator->allocate(4 * kMiB, second).data, block.data);
  EXPECT_EQ(allocator->allocate(2 * kMiB, first).data, block.data);
  EXPECT_EQ(gpu.reserved.size(), 2u);
}

TEST_F(GrowingAllocatorTest, waits_for_the_device_before_it_unmaps) {
  const Block kept = allocator->allocate(kMiB, first), block = allocator->allocate(9 * kMiB, first);
  allocator->deallocate(block, first);
  gpu.has_waited = false;
  allocator->empty_cache();
  EXPECT_EQ(gpu.waits, 1);
  EXPECT_EQ(allocator->stats().reserved, 2 * kMiB);
  EXPECT_EQ(allocator->stats().device_releases, 4u);
  EXPECT_EQ(gpu.held, 2 * kMiB);
  allocator->empty_cache();
  EXPECT_EQ(gpu.waits, 1) << "nothing to unmap";
  allocator->deallocate(kept, first);
  allocator->empty_cache();
  EXPECT_EQ(allocator->stats().reserved, 0u);
  EXPECT_TRUE(gpu.reserved.empty()) << "an empty space is given up";
}

TEST_F(GrowingAllocatorTest, waits_for_other_streams_that_use_a_block) {
  const Block block = allocator->allocate(4 * kMiB, first);
  allocator->record_stream(block, second);
  allocator->deallocate(block, first);
  const Block other = allocator->allocate(4 * kMiB, first);
  EXPECT_NE(other.data, block.data) << "the other stream may still read it";
  allocator->deallocate(other, first);
  gpu.others_done = true;
  EXPECT_EQ(allocator->allocate(8 * kMiB, first).data, block.data) << "joined";
}

TEST_F(GrowingAllocatorTest, waits_for_the_device_where_it_cannot_mark) {
  const Block block = allocator->allocate(4 * kMiB, first);
  allocator->record_stream(block, second);
  gpu.marks_fail = true;
  allocator->deallocate(block, first);
  EXPECT_EQ(gpu.waits, 1);
  EXPECT_EQ(allocator->allocate(4 * kMiB, first).data, block.data);
}

TEST_F(GrowingAllocatorTest, a_pool_keeps_its_space_to_itself) {
  const std::uint64_t pool = allocator->new_pool();
  Block recorded, outliving;
  {
    const detail::PoolGuard guard(*allocator, pool);
    recorded = allocator->allocate(4 * kMiB, first);
    outliving = allocator->allocate(6 * kMiB, first);
    allocator->deallocate(recorded, first);
    EXPECT_EQ(allocator->allocate(4 * kMiB, first).data, recorded.data);
    allocator->deallocate(recorded, first);
  }
  const Block other = allocator->allocate(4 * kMiB, first);
  EXPECT_NE(other.data, recorded.data);
  allocator->empty_cache();
  EXPECT_TRUE(gpu.is_mapped(recorded.data, recorded.bytes)) << "recorded work may write there";
  allocator->release_pool(pool, second);
  EXPECT_EQ(allocator->allocate(4 * kMiB, second).data, recorded.data);
  allocator->deallocate(outliving, first);
  EXPECT_EQ(allocator->allocate(6 * kMiB, second).data, outliving.data);
  allocator->deallocate(recorded, second);
  allocator->deallocate(outliving, second);
  allocator->deallocate(other, first);
  allocator->empty_cache();
  EXPECT_EQ(allocator->stats().reserved, 0u);
}

TEST_F(GrowingAllocatorTest, honours_the_limit) {
  allocator->set_limit(8 * kMiB);
  const Block a = allocator->allocate(5 * kMiB, first);
  EXPECT_EQ(allocator->stats().reserved, 6 * kMiB);
  EXPECT_THROW(allocator->allocate(4 * kMiB, first), OutOfMemoryError);
  EXPECT_EQ(gpu.refusals, 0) << "refused before the device was asked";
  allocator->deallocate(a, first);
  EXPECT_EQ(allocator->allocate(7 * kMiB, second).bytes, 7 * kMiB) << "the other stream's cache makes room";
  EXPECT_LE(allocator->stats().reserved, 8 * kMiB);
}

TEST_F(GrowingAllocatorTest, takes_what_is_less_than_a_chunk) {
  gpu.capacity = 5 * kMiB;
  const Block a = allocator->allocate(3 * kMiB, first);
  EXPECT_EQ(gpu.held, 4 * kMiB);
  const Block whole = allocator->allocate(kMiB, first);
  const Block rest = allocator->allocate(kMiB, first);
  EXPECT_EQ(gpu.held, 5 * kMiB);
  allocator->deallocate(rest, first);
  EXPECT_EQ(allocator->allocate(kMiB, first).data, rest.data) << "kept as small ones are";
  EXPECT_THROW(allocator->allocate(kMiB, first), OutOfMemoryError);
  for (const Block& block : {a, whole, rest}) allocator->deallocate(block, first);
  allocator->empty_cache();
  EXPECT_EQ(gpu.held, 0u);
}

TEST_F(GrowingAllocatorTest, out_of_memory_loses_nothing) {
  const Block a = allocator->allocate(20 * kMiB, first), b = allocator->allocate(20 * kMiB, second);
  allocator->deallocate(b, second);
  EXPECT_THROW(allocator->allocate(50 * kMiB, first), OutOfMemoryError);
  EXPECT_EQ(allocator->stats().reserved, 20 * kMiB);
  EXPECT_EQ(allocator->stats().reserved, gpu.held);
  for (int i = 0; i < 5; ++i) {
    EXPECT_THROW(allocator->allocate(1000 * kMiB, first), OutOfMemoryError);
    EXPECT_THROW(allocator->allocate(~std::size_t{0} / 2, second), OutOfMemoryError);
  }
  EXPECT_LE(gpu.reserved.size(), 2u) << "no addresses for what cannot be";
  const Block c = allocator->allocate(44 * kMiB, second);
  EXPECT_EQ(gpu.held, 64 * kMiB);
  allocator->deallocate(a, first);
  allocator->deallocate(c, second);
  EXPECT_EQ(allocator->allocate(64 * kMiB, first).bytes, 64 * kMiB);
}

TEST_F(GrowingAllocatorTest, random_use_keeps_exact_figures) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    std::mt19937 random(seed);
    struct Live {
      Block block;
      Stream stream;
    };
    std::vector<Live> live;
    std::uint64_t pool = allocator->new_pool();
    std::size_t in_use = 0;
    for (int i = 0; i < 2000; ++i) {
      const unsigned what = random() % 100;
      if (what < 50) {
        const Stream stream = random() % 2 == 0 ? first : second;
        const detail::PoolGuard guard(*allocator, random() % 3 == 0 ? pool : 0);
        try {
          const Block block = allocator->allocate(1 + random() % (6 * kMiB), stream);
          for (const Live& other : live)
            ASSERT_TRUE(static_cast<char*>(block.data) + block.bytes <= other.block.data ||
                        static_cast<char*>(other.block.data) + other.block.bytes <= block.data);
          if (random() % 8 == 0) allocator->record_stream(block, stream == first ? second : first);
          live.push_back({block, stream});
          in_use += block.bytes;
        } catch (const OutOfMemoryError&) {
        }
      } else if (what < 96 && !live.empty()) {
        std::swap(live[random() % live.size()], live.back());
        gpu.others_done = random() % 2 == 0;
        in_use -= live.back().block.bytes;
        allocator->deallocate(live.back().block, live.back().stream);
        live.pop_back();
      } else if (what == 97) {
        allocator->empty_cache();
      } else if (what == 98) {
        allocator->release_pool(pool, first);
        pool = allocator->new_pool();
      }
      const MemoryStats s = allocator->stats();
      ASSERT_EQ(s.in_use, in_use);
      ASSERT_EQ(s.reserved, gpu.held);
      ASSERT_EQ(s.device_allocations - s.device_releases, gpu.blocks.size() + gpu.mapped.size());
    }
    for (const Live& one : live) allocator->deallocate(one.block, one.stream);
    gpu.others_done = true;
    allocator->release_pool(pool, first);
    allocator->deallocate(allocator->allocate(1, first), first);  // collects what waited
    allocator->empty_cache();
    EXPECT_EQ(gpu.held, 0u);
  }
  allocator.reset();
  EXPECT_TRUE(gpu.reserved.empty() && gpu.blocks.empty());
}

// Allocations of MobileNetV2's steps with a batch of 256 in bfloat16: forward each layer saves its result;
// backward, from the last to the first, a layer's gradients of its norm and of its input live at once.
class StepsTest : public GrowingAllocatorTest {
 protected:
  struct Layer {
    std::size_t in, out, weights;
    bool has_shortcut = false;
  };
  std::vector<Layer> layers;
  std::vector<Block> persistent;
  static constexpr std::size_t kBatch = 256;

  void SetUp() override {
    gpu.capacity = 80'000 * kMiB;
    std::size_t h = 112, c = 16;
    layers = {{3 * 224 * 224, 32 * h * h, 864}, {32 * h * h, 32 * h * h, 288}, {32 * h * h, 16 * h * h, 512}};
    const std::size_t groups[][4] = {{6, 24, 2, 2}, {6, 32, 3, 2},  {6, 64, 4, 2},
                                     {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    for (const auto& [expansion, channels, blocks, stride] : groups)
      for (std::size_t i = 0; i < blocks; ++i) {
        const std::size_t wide = expansion * c, out = i == 0 ? h / stride : h;
        layers.push_back({c * h * h, wide * h * h, c * wide});
        layers.push_back({wide * h * h, wide * out * out, 9 * wide});
        layers.push_back({wide * out * out, channels * out * out, wide * channels, i > 0});
        c = channels;
        h = out;
      }
    layers.push_back({320 * h * h, 1280 * h * h, 320 * 1280});
    layers.push_back({1280, 1000, 1280 * 1000});
    for (const Layer& layer : layers) persistent.push_back(allocator->allocate(4 * layer.weights, first));
    persistent.push_back(allocator->allocate(2 * kBatch * layers[0].in, first));
  }

  void step(Stream stream, bool is_first) {
    const auto allocate = [&](std::size_t bytes) { return allocator->allocate(bytes, stream); };
    const auto free_all = [&](std::vector<Block>& blocks) {
      for (const Block& block : blocks) allocator->deallocate(block, stream);
      blocks.clear();
    };
    std::vector<Block> rounded, saved, sums, parts;
    for (const Layer& layer : layers) rounded.push_back(allocate(2 * layer.weights));
    for (const Layer& layer : layers) {
      saved.push_back(allocate(2 * kBatch * layer.out));
      sums.push_back(layer.has_shortcut ? allocate(2 * kBatch * layer.out) : Block{});
    }
    Block gradient = allocate(2 * kBatch * layers.back().out);
    for (std::size_t i = layers.size(); i-- > 0;) {
      const Layer& layer = layers[i];
      const Block of_norm = allocate(2 * kBatch * layer.out);
      allocator->deallocate(gradient, stream);
      gradient = i > 0 ? allocate(2 * kBatch * layer.in) : Block{};
      parts.push_back(allocate(32 * layer.weights));
      if (parts.size() > 12) free_all(parts);
      for (const Block& block : {of_norm, saved[i], sums[i]}) allocator->deallocate(block, stream);
      if (is_first) persistent.push_back(allocate(4 * layer.weights));
    }
    free_all(parts);
    free_all(rounded);
    if (is_first)
      for (const Layer& layer : layers) persistent.push_back(allocate(4 * layer.weights));
  }

  double held() const {
    const MemoryStats s = allocator->stats();
    return static_cast<double>(s.peak_reserved) / static_cast<double>(s.peak_in_use);
  }
};

TEST_F(StepsTest, plain_and_recorded_steps_hold_little_more_than_they_use) {
  step(first, true);
  step(first, false);
  EXPECT_LE(held(), 1.05);
  const std::size_t taken = allocator->stats().device_allocations;
  for (int i = 0; i < 5; ++i) step(first, false);
  EXPECT_EQ(allocator->stats().device_allocations, taken) << "a steady step asks the device for nothing";
  allocator->empty_cache();
  const std::uint64_t pool = allocator->new_pool();
  {
    const detail::PoolGuard guard(*allocator, pool);
    step(second, false);
  }
  EXPECT_LE(held(), 1.05);
  EXPECT_EQ(allocator->stats().reserved, gpu.held);
  for (const Block& block : persistent) allocator->deallocate(block, first);
}

}  // namespace
}  // namespace lamella
