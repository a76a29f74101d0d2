#include "core/growing_space.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "fake_gpu.h"

namespace lamella {
namespace {

using detail::GrowingSpace;
using test::FakeGpu;
using test::FakeGpuMemory;
using test::kMiB;

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

}  // namespace
}  // namespace lamella
