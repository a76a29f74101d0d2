#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/allocator.h"
#include "lamella/core/error.h"

namespace lamella {
namespace {

using detail::Allocator;
using detail::Block;

constexpr std::size_t kMiB = std::size_t{1} << 20;

class CpuMemoryTest : public testing::Test {
 protected:
  void SetUp() override { empty_cache(cpu); }
  void TearDown() override {
    set_memory_limit(cpu, 0);
    empty_cache(cpu);
  }
  const Device cpu = Device::cpu();
  const Stream stream = current_stream(cpu);
  Allocator& allocator = detail::allocator_of(cpu);
};

TEST_F(CpuMemoryTest, blocks_are_aligned_and_writable) {
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{100}, std::size_t{5000}, 3 * kMiB, 4 * kMiB, 9 * kMiB + 1}) {
    const Block block = allocator.allocate(bytes, stream);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data) % (bytes >= 4 * kMiB ? 2 * kMiB : 64), 0u)
        << bytes;
    std::memset(block.data, 0xab, bytes);
    EXPECT_EQ(static_cast<unsigned char*>(block.data)[bytes - 1], 0xab);
    allocator.deallocate(block, stream);
  }
}

TEST_F(CpuMemoryTest, public_functions_show_and_steer_it) {
  const std::size_t before = memory_stats(cpu).in_use;
  const Block block = allocator.allocate(kMiB, stream);
  EXPECT_EQ(memory_stats(cpu).in_use, before + kMiB);
  allocator.deallocate(block, stream);
  EXPECT_EQ(memory_stats(cpu).in_use, before);
  EXPECT_GE(memory_stats(cpu).peak_in_use, before + kMiB);
  reset_peak_memory(cpu);
  EXPECT_EQ(memory_stats(cpu).peak_in_use, before);
  const std::size_t reserved = memory_stats(cpu).reserved;
  empty_cache(cpu);
  EXPECT_EQ(memory_stats(cpu).reserved, reserved - kMiB);
  set_memory_limit(cpu, memory_stats(cpu).reserved + kMiB);
  EXPECT_THROW(allocator.allocate(2 * kMiB, stream), OutOfMemoryError);
  allocator.deallocate(allocator.allocate(kMiB, stream), stream);
}

TEST_F(CpuMemoryTest, prints_a_table) {
  const Block block = detail::allocator_of(Device::cpu()).allocate(3 * kMiB, {});
  const std::string table = memory_summary(Device::cpu());
  detail::allocator_of(Device::cpu()).deallocate(block, {});
  EXPECT_THAT(table, testing::StartsWith("cpu memory\n"));
  EXPECT_THAT(table, testing::ContainsRegex("  in use +[0-9.]+ MiB\n"));
  EXPECT_THAT(table, testing::ContainsRegex("  limit +none\n"));
}

TEST_F(CpuMemoryTest, more_than_the_machine_has_is_refused) {
  try {
    allocator.allocate(std::size_t{1} << 60, stream);
    ADD_FAILURE() << "no error";
  } catch (const OutOfMemoryError& error) {
    EXPECT_GT(error.report().capacity, 0u);
    EXPECT_THAT(error.what(), testing::HasSubstr("requested 1.00 EiB"));
  }
}

TEST_F(CpuMemoryTest, absent_devices_have_no_memory) {
  const Device absent = Device::cuda(cuda_device_count());
  const auto expect_error = [&](const std::string& function, const auto& call) {
    try {
      call();
      ADD_FAILURE() << function << ": no error";
    } catch (const DeviceError& error) {
      EXPECT_THAT(error.what(),
                  testing::StartsWith(function + ": " + absent.to_string() + " is not available"));
    }
  };
  expect_error("memory_stats", [&] { memory_stats(absent); });
  expect_error("set_memory_limit", [&] { set_memory_limit(absent, 1); });
  expect_error("empty_cache", [&] { empty_cache(absent); });
  expect_error("reset_peak_memory", [&] { reset_peak_memory(absent); });
}

#ifdef __SANITIZE_ADDRESS__
using CpuMemoryDeathTest = CpuMemoryTest;
TEST_F(CpuMemoryDeathTest, sanitizers_see_the_end_and_the_freeing) {
  const auto touch = [](const Block& block, std::size_t at) {
    volatile char* bytes = static_cast<char*>(block.data);
    bytes[at] = 1;
  };
  const Block block = allocator.allocate(100, stream);
  touch(block, 99);
  EXPECT_DEATH(touch(block, 100), "use-after-poison");
  allocator.deallocate(block, stream);
  EXPECT_DEATH(touch(block, 0), "use-after-poison");
}
#endif

}  // namespace
}  // namespace lamella
