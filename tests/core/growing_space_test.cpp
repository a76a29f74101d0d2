#include "core/growing_space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "lamella/core/error.h"

namespace lamella {
namespace {

using detail::Allocator;
using detail::Block;
using detail::GrowingSpace;
using detail::RawMemory;

constexpr std::size_t kMiB = std::size_t{1} << 20;

// Hands out addresses behind which there is nothing, and looks that they are mapped and unmapped as they may.
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

class FakeGpuMemory final : public RawMemory {
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

void* take(GrowingSpace& space, std::size_t bytes) {
  void* const data = space.take(bytes);
  return data != nullptr ? data : space.grow_and_take(bytes);
}

class GrowingSpaceTest : public testing::Test {
 protected:
  FakeGpu gpu;
  FakeGpuMemory raw{gpu};
  std::unique_ptr<GrowingSpace> make() { return GrowingSpace::make(raw); }
};

TEST_F(GrowingSpaceTest, needs_a_device_that_maps) {
  gpu.chunk = 0;
  EXPECT_EQ(make(), nullptr);
  gpu.chunk = 4096;
  gpu.capacity = 0;
  EXPECT_EQ(make(), nullptr);
}

TEST_F(GrowingSpaceTest, maps_no_more_than_is_missing) {
  gpu.chunk = 4096;
  const auto space = make();
  EXPECT_EQ(space->take(512), nullptr);
  EXPECT_EQ(space->growth(512), 4096u);
  EXPECT_EQ(space->growth(4097 / 512 * 512 + 512), 8192u);
  char* const a = static_cast<char*>(space->grow_and_take(3072));
  EXPECT_EQ(space->mapped(), 4096u);
  EXPECT_EQ(space->growth(5120), 4096u) << "1 KiB is left";
  EXPECT_EQ(space->grow_and_take(5120), a + 3072);
  EXPECT_EQ(space->mapped(), 8192u);
  EXPECT_EQ(space->chunks(), 2u);
  EXPECT_EQ(space->take(512), nullptr);
  EXPECT_FALSE(space->growth(2 * gpu.capacity + 512));
  EXPECT_EQ(space->grow_and_take(2 * gpu.capacity + 512), nullptr);
}

TEST_F(GrowingSpaceTest, joins_what_is_free_side_by_side) {
  gpu.chunk = 4096;
  const auto space = make();
  std::vector<char*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(static_cast<char*>(take(*space, 1024)));
  for (const int i : {1, 3, 2}) space->give_back(blocks[static_cast<std::size_t>(i)]);
  EXPECT_EQ(space->take(3072), blocks[1]) << "larger than any that was given back";
  space->give_back(blocks[6]);
  space->give_back(blocks[1]);
  EXPECT_EQ(space->take(1024), blocks[6]) << "the smallest that fits";
  EXPECT_EQ(space->take(1024), blocks[1]);
  EXPECT_EQ(space->take(2048), blocks[2]) << "the rest of the larger";
  EXPECT_EQ(space->mapped(), 8192u);
}

TEST_F(GrowingSpaceTest, unmaps_holes_and_maps_them_again) {
  gpu.chunk = 4096;
  const auto space = make();
  char* const before = static_cast<char*>(take(*space, 1024));
  char* const hole = static_cast<char*>(take(*space, 5 * 4096));
  char* const behind = static_cast<char*>(take(*space, 1024));
  EXPECT_EQ(space->mapped(), 6u * 4096);
  space->give_back(hole);
  EXPECT_TRUE(space->has_idle());
  space->unmap_idle();
  EXPECT_FALSE(space->has_idle());
  EXPECT_EQ(space->mapped(), 2u * 4096);
  EXPECT_TRUE(gpu.is_mapped(before, 4096) && gpu.is_mapped(behind, 1024));
  EXPECT_EQ(space->take(4096), nullptr);
  EXPECT_EQ(space->growth(4096), 4096u);
  EXPECT_EQ(space->growth(5 * 4096), 4u * 4096) << "the rests before and behind it serve";
  EXPECT_EQ(space->grow_and_take(5 * 4096), hole);
  EXPECT_EQ(space->mapped(), 6u * 4096);
  for (char* const block : {before, hole, behind}) space->give_back(block);
  space->unmap_idle();
  EXPECT_EQ(space->mapped(), 0u);
  EXPECT_EQ(space->chunks(), 0u);
  EXPECT_EQ(gpu.held, 0u);
}

TEST_F(GrowingSpaceTest, a_refusal_changes_nothing) {
  gpu.chunk = 4096;
  const auto space = make();
  char* const a = static_cast<char*>(take(*space, 3072));
  char* const hole = static_cast<char*>(take(*space, 2 * 4096));
  char* const c = static_cast<char*>(take(*space, 4096));
  space->give_back(hole);
  space->unmap_idle();
  const std::size_t mapped = space->mapped(), held = gpu.held;
  for (const int granted : {0, 1, 2, 3}) {
    gpu.maps_until_refusal = granted;
    EXPECT_EQ(space->grow_and_take(5 * 4096), nullptr);
    EXPECT_EQ(space->mapped(), mapped);
    EXPECT_EQ(gpu.held, held);
  }
  gpu.maps_until_refusal = -1;
  EXPECT_EQ(space->grow_and_take(2 * 4096), hole);
  EXPECT_NE(space->grow_and_take(5 * 4096), nullptr);
  space->give_back(a);
  space->give_back(c);
}

TEST_F(GrowingSpaceTest, behaves_like_a_model) {
  gpu.chunk = 4096;
  gpu.capacity = 4 * kMiB;
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    const auto space = make();
    std::map<char*, std::size_t> live;
    for (int i = 0; i < 3000; ++i) {
      const unsigned what = random() % 100;
      if (what < (i / 500 % 2 == 0 ? 60u : 40u)) {
        const std::size_t bytes = 512 * (1 + random() % (random() % 8 == 0 ? 256 : 16));
        const std::size_t mapped = space->mapped();
        void* data = space->take(bytes);
        if (data == nullptr) {
          const auto growth = space->growth(bytes);
          data = space->grow_and_take(bytes);
          if (data != nullptr) {
            ASSERT_EQ(space->mapped(), mapped + *growth);
            ASSERT_GT(*growth, 0u);
          }
        }
        ASSERT_TRUE(data != nullptr || gpu.refusals > 0);
        if (data == nullptr) continue;
        char* const block = static_cast<char*>(data);
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(block) % 512, 0u);
        const auto after = live.lower_bound(block);
        ASSERT_TRUE(after == live.end() || block + bytes <= after->first);
        ASSERT_TRUE(after == live.begin() || std::prev(after)->first + std::prev(after)->second <= block);
        live[block] = bytes;
      } else if (what < 98 && !live.empty()) {
        const auto block = std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size()));
        space->give_back(block->first);
        live.erase(block);
      } else if (what >= 98) {
        space->unmap_idle();
        ASSERT_FALSE(space->has_idle());
      }
      ASSERT_EQ(space->mapped(), gpu.held);
      ASSERT_EQ(space->chunks(), gpu.mapped.size());
      for (const auto& [block, bytes] : live) ASSERT_TRUE(gpu.is_mapped(block, bytes));
    }
    for (const auto& [block, bytes] : live) space->give_back(block);
    const std::size_t mapped = space->mapped();
    space->unmap_idle();
    EXPECT_EQ(space->mapped(), 0u) << mapped;
    void* const all = take(*space, gpu.capacity);
    EXPECT_NE(all, nullptr) << "everything is one piece again";
  }
  EXPECT_TRUE(gpu.mapped.empty() && gpu.reserved.empty());
}

// A caching allocator on a device that maps.
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
