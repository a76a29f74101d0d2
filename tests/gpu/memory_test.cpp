#include "lamella/core/memory.h"

#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/core/error.h"
#include "lamella/tensor/arithmetic.h"

namespace lamella::test {
namespace {

TEST(GpuMemoryTest, numbers_survive_the_way_there_and_back) {
  LAMELLA_NEEDS_GPU();
  for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16, DType::Int64,
                            DType::Int32, DType::UInt8, DType::Bool}) {
    const Tensor x = testing::random_tensor({3, 5, 4, 2}, 1, {.low = 0, .high = 100, .gap = 0}).to(dtype);
    for (const Tensor& source :
         {x, x.contiguous(MemoryFormat::ChannelsLast), x.permute({3, 1, 0, 2}), x.slice(1, {1, 5, 2})}) {
      const Tensor back = source.to(Device::cuda()).to(Device::cpu());
      EXPECT_TRUE(testing::equal_bits(back, source).ok) << testing::equal_bits(back, source).message;
      EXPECT_EQ(back.memory_format(), source.memory_format());
    }
  }
}

TEST(GpuMemoryTest, freed_blocks_are_used_again) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  { const Tensor warm = zeros({1000, 1000}, {.device = gpu}); }
  const MemoryStats before = memory_stats(gpu);
  for (int i = 0; i < 100; ++i) const Tensor x = zeros({1000, 1000}, {.device = gpu});
  const MemoryStats after = memory_stats(gpu);
  EXPECT_EQ(after.device_allocations, before.device_allocations);
  EXPECT_EQ(after.in_use, before.in_use);
}

TEST(GpuMemoryTest, goes_on_after_running_out) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const Tensor kept = full({10}, 3, {.device = gpu});
  EXPECT_THROW(empty({std::int64_t{1} << 45}, {.device = gpu}), OutOfMemoryError);
  EXPECT_EQ((kept + 1.0).to_vector<float>(), std::vector<float>(10, 4.0f));
}

TEST(GpuMemoryTest, names_a_device_that_is_not_there) {
  LAMELLA_NEEDS_GPU();
  const int missing = cuda_device_count();
  try {
    zeros({2}, {.device = Device::cuda(missing)});
    FAIL();
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find(Device::cuda(missing).to_string()), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace lamella::test
