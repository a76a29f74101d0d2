// Page-locked memory, copies ahead of the loop, streams.
#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/core/error.h"
#include "lamella/core/memory.h"
#include "lamella/core/stream.h"
#include "lamella/data/loader.h"
#include "lamella/layers/linear.h"
#include "lamella/layers/loss.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/matmul.h"
#include "lamella/tensor/reduce.h"

namespace lamella::test {
namespace {

TEST(GpuStreamTest, page_locked_numbers_arrive_without_waiting) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Tensor x = testing::random_tensor({4, 3, 9, 7}, 1, {.dtype = float32, .format = format});
    const Tensor pinned = x.pin_memory();
    EXPECT_TRUE(pinned.is_pinned() && pinned.device().is_cpu() && !x.is_pinned());
    EXPECT_TRUE(testing::equal_bits(pinned, x).ok);
    EXPECT_EQ(pinned.memory_format(), format);
    const std::uint64_t waits = wait_count(gpu);
    const Tensor moved = pinned.to(gpu, true), doubled = moved + moved;
    EXPECT_EQ(wait_count(gpu), waits);
    EXPECT_TRUE(testing::equal_bits(doubled, x + x).ok);  // copies to the CPU: waits
    EXPECT_GT(wait_count(gpu), waits);
  }
  EXPECT_THROW(zeros({2}, {.device = gpu}).pin_memory(), DeviceError);
  EXPECT_THROW(empty({2}, {.device = gpu, .pinned = true}), DeviceError);
}

TEST(GpuStreamTest, page_locked_memory_is_not_given_away_before_it_was_copied) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const Stream side = new_stream(gpu);
  Tensors arrived;
  {
    const StreamGuard guard(side);
    // Each is dropped as soon as its copy is queued; the next must not overwrite it.
    for (int i = 0; i < 50; ++i) {
      const Tensor source = full({1 << 20}, i).pin_memory();
      arrived.push_back(source.to(gpu, true));
    }
  }
  synchronize(gpu);
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(min(arrived[static_cast<std::size_t>(i)]).item(), i)
        << "and " << max(arrived[static_cast<std::size_t>(i)]).item();
}

TEST(GpuStreamTest, recorded_memory_waits_for_the_other_stream) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const Stream main = current_stream(gpu), side = new_stream(gpu);
  const Tensor a = testing::random_tensor({2048, 2048}, 1, {.dtype = float32}).to(gpu);
  for (int round = 0; round < 5; ++round) {
    Tensor result;
    {
      Tensor x = full({1 << 22}, 3, {.device = gpu});
      wait_stream(side, main);
      const StreamGuard guard(side);
      Tensor busy = a;
      for (int i = 0; i < 8; ++i) busy = matmul(a, busy);  // long before x is read
      result = x * 2.0;
      x.record_stream(side);
    }
    // Would take x's memory on the main stream at once.
    const Tensor other = full({1 << 22}, 9, {.device = gpu});
    wait_stream(main, side);
    EXPECT_EQ(min(result).item(), 6);
    EXPECT_EQ(max(result).item(), 6);
    result.record_stream(main);
  }
}

/// Images whose pixels and label are a function of their number.
class Numbers final : public data::Dataset {
 public:
  std::int64_t size() const override { return 203; }
  data::Example get(std::int64_t index) const override {
    data::Image image(6, 5, 3);
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<std::uint8_t>(static_cast<std::size_t>(index) * 31 + i);
    return {image, index % 7};
  }
  const std::vector<std::string>& classes() const override { return classes_; }
  std::string describe(std::int64_t index) const override { return "number " + std::to_string(index); }

 private:
  const std::vector<std::string> classes_{"a", "b", "c", "d", "e", "f", "g"};
};

TEST(GpuLoaderTest, brings_the_same_batches_ahead_of_the_loop) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  for (const int workers : {0, 1, 3})
    for (const bool mixed : {false, true}) {
      const auto options = [&](Device device) {
        return data::LoaderOptions{
            .batch = 16,
            .shuffle = true,
            .workers = workers,
            .seed = 5,
            .transform = {data::RandomHorizontalFlip()},
            .batch_transform = mixed ? data::BatchTransform(data::Mixup(0.4, 7)) : nullptr,
            .memory_format = MemoryFormat::ChannelsLast,
            .device = device};
      };
      data::DataLoader there(std::make_shared<Numbers>(), options(gpu));
      data::DataLoader here(std::make_shared<Numbers>(), options(Device::cpu()));
      for (int epoch = 0; epoch < 2; ++epoch) {
        auto wanted = here.begin();
        Tensors images, labels;
        const std::uint64_t waits = wait_count(gpu);
        for (const auto& batch : there) {
          ASSERT_TRUE(batch.images.device() == gpu && batch.labels.device() == gpu);
          // Used at once on the loop's stream.
          images.push_back(batch.images + 0.0);
          labels.push_back(batch.labels.clone());
        }
        EXPECT_EQ(wait_count(gpu), waits);
        ASSERT_EQ(images.size(), 13U);
        for (std::size_t i = 0; i < images.size(); ++i, ++wanted) {
          EXPECT_TRUE(testing::equal_bits(images[i], wanted->images + 0.0).ok) << i;
          EXPECT_TRUE(testing::equal_bits(labels[i], wanted->labels).ok) << i;
          EXPECT_EQ(images[i].memory_format(), MemoryFormat::ChannelsLast);
        }
      }
    }
}

TEST(GpuLoaderTest, a_loop_that_ends_early_leaves_nothing_behind) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  data::DataLoader loader(std::make_shared<Numbers>(), {.batch = 8, .workers = 2, .device = gpu});
  std::size_t in_use = 0;
  for (int round = 0; round < 6; ++round) {
    for (const auto& batch : loader)
      if (batch.labels.size(0) > 0) break;
    synchronize(gpu);
    if (round == 2) in_use = memory_stats(gpu).in_use + pinned_memory_stats().in_use;
  }
  EXPECT_EQ(memory_stats(gpu).in_use + pinned_memory_stats().in_use, in_use);
}

TEST(GpuStreamTest, the_table_of_memory_tells_of_page_locked_memory) {
  LAMELLA_NEEDS_GPU();
  const Tensor pinned = empty({1 << 20}, {.pinned = true});
  EXPECT_GE(pinned_memory_stats().in_use, std::size_t{4} << 20);
  const std::string table = memory_summary(Device::cuda());
  EXPECT_NE(table.find("cuda:0 memory"), std::string::npos) << table;
  EXPECT_NE(table.find("page-locked memory"), std::string::npos) << table;
}

}  // namespace
}  // namespace lamella::test
