#include "lamella/core/memory.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "devices.h"
#include "lamella/lamella.h"

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

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

Tensor mebibytes(std::int64_t count, double value) {
  return full({count * kMiB / 4}, value, {.device = Device::cuda()});
}

std::size_t available() {
  std::size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  return free;
}

// LAMELLA_GROWING_MEMORY=0 must keep the old way: run these tests with it, too.
bool is_to_grow() {
  const char* const value = std::getenv("LAMELLA_GROWING_MEMORY");
  const char* const checked = std::getenv("LAMELLA_CHECK_MEMORY");
  return (value == nullptr || std::string_view(value) != "0") &&
         (checked == nullptr || std::string_view(checked) != "1");
}

TEST(GpuMemoryTest, large_tensors_use_the_room_of_smaller_ones) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  empty_cache(gpu);
  const MemoryStats before = memory_stats(gpu);
  {
    Tensors small;
    for (int i = 0; i < 8; ++i) small.push_back(mebibytes(30, i));
    for (int i = 0; i < 8; ++i) {
      const Tensor& x = small[static_cast<std::size_t>(i)];
      EXPECT_EQ(min(x).item(), i);
      EXPECT_EQ(max(x).item(), i);
    }
  }
  const Tensor large = mebibytes(230, 5);
  const std::size_t more = memory_stats(gpu).reserved - before.reserved;  // looking at it takes room, too
  EXPECT_EQ(min(large).item(), 5);
  if (is_to_grow()) {
    EXPECT_LE(more, static_cast<std::size_t>(260 * kMiB)) << "is the GPU's memory mapped at all?";
  } else {
    EXPECT_GE(more, static_cast<std::size_t>(470 * kMiB));
  }
}

TEST(GpuMemoryTest, the_emptied_cache_is_the_devices_again_and_tensors_stay) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  empty_cache(gpu);
  const MemoryStats before = memory_stats(gpu);
  Tensor early = mebibytes(3, 1), late;
  const std::size_t at_first = available();
  {
    const Tensor between = mebibytes(600, 2);
    late = mebibytes(3, 3);
    EXPECT_LE(available() + static_cast<std::size_t>(590 * kMiB), at_first);
  }
  empty_cache(gpu);
  EXPECT_GE(available() + static_cast<std::size_t>(40 * kMiB), at_first);
  EXPECT_LE(memory_stats(gpu).reserved, before.reserved + static_cast<std::size_t>(40 * kMiB));
  for (int i = 0; i < 3; ++i) {
    const Tensor again = mebibytes(600, 4 + i);  // where a hole was unmapped
    EXPECT_EQ(min(again).item(), 4 + i);
    EXPECT_EQ(max(again).item(), 4 + i);
  }
  EXPECT_EQ(min(early).item(), 1);
  EXPECT_EQ(max(early).item(), 1);
  EXPECT_EQ(min(late).item(), 3);
  EXPECT_EQ(max(late).item(), 3);
}

TEST(GpuMemoryTest, memory_is_given_back_only_when_its_work_is_done) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const Stream side = new_stream(gpu);
  for (int i = 0; i < 5; ++i) {
    const StreamGuard guard(i % 2 == 0 ? current_stream(gpu) : side);
    {
      Tensor x = mebibytes(1000, 1);
      for (int j = 0; j < 200; ++j) x = x + 1.0;  // queued far faster than it runs
    }
    empty_cache(gpu);  // memory taken from under a kernel is an illegal address
    EXPECT_NO_THROW(synchronize(gpu));
  }
}

TEST(GpuMemoryTest, a_captured_step_holds_little_more_than_it_uses) {
  LAMELLA_NEEDS_GPU();
  if (!is_to_grow()) GTEST_SKIP() << "memory does not grow";
  const Device gpu = Device::cuda();
  for (const bool capture : {false, true}) {
    empty_cache(gpu);
    manual_seed(3);
    auto net = models::mobilenet_v2({.classes = 1000});
    net.to(gpu);
    net.to(MemoryFormat::ChannelsLast);
    optim::SGD sgd(net.parameters(), {.lr = 0.01, .momentum = 0.9});
    train::Step step(net, sgd, {.capture = capture, .autocast = bfloat16});
    const Tensor images = testing::random_tensor({64, 3, 224, 224}, 1,
                                                 {.dtype = float32, .format = MemoryFormat::ChannelsLast});
    const Tensor labels = zeros({64}, {.dtype = int64});
    const Tensor there = images.to(gpu), labels_there = labels.to(gpu);
    reset_peak_memory(gpu);
    for (int i = 0; i < 6; ++i) step(there, labels_there);
    EXPECT_EQ(step.replayed() > 0, capture);
    const MemoryStats s = memory_stats(gpu);
    EXPECT_LE(static_cast<double>(s.peak_reserved), 1.2 * static_cast<double>(s.peak_in_use))
        << memory_summary(gpu);
  }
}

// While it is recorded, a step takes memory, and after it others do.
TEST(GpuMemoryTest, what_is_recorded_keeps_its_memory) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  Linear layer(2048, 2048);
  layer.to(gpu);
  train::Inference predict(layer, {.capture = true});
  const Tensor x = testing::random_tensor({4096, 2048}, 2, {.dtype = float32}).to(gpu);
  const Tensor wanted = predict(x).clone();
  for (int i = 0; i < 8; ++i) {
    const Tensor other = mebibytes(50 + 20 * i, i);
    const Tensor got = predict(x);
    EXPECT_TRUE(testing::equal_bits(got.to(Device::cpu()), wanted.to(Device::cpu())).ok) << i;
    EXPECT_EQ(min(other).item(), i);
    EXPECT_EQ(max(other).item(), i);
    empty_cache(gpu);
  }
  EXPECT_EQ(predict.replayed(), 8);
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
