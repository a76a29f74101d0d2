// Many steps: the same bits, and neither memory nor waiting that piles up.
#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

struct Run200 {
  StateDict weights;
  std::vector<float> losses;
};

Run200 two_hundred_steps(MemoryFormat format, bool capture, std::optional<DType> autocast) {
  const Device gpu = Device::cuda();
  manual_seed(3);
  auto net = models::mobilenet_v2({.classes = 10, .small_stem = true});
  net.to(gpu);
  net.to(format);
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9, .weight_decay = 4e-5});
  optim::LrScheduler schedule(sgd, optim::OneCycle({.total_steps = 200}));
  train::Step step(net, sgd,
                   {.check_every = 0, .scheduler = &schedule, .capture = capture, .autocast = autocast});
  Tensors images;
  for (std::uint64_t i = 0; i < 8; ++i)
    images.push_back(
        testing::random_tensor({16, 3, 32, 32}, i, {.dtype = float32, .format = format}).to(gpu));
  std::vector<std::int64_t> classes(16);
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 10);
  const Tensor labels = from_vector<std::int64_t>(classes, {16}).to(gpu);
  Run200 result;
  Tensors losses;
  for (std::size_t i = 0; i < 200; ++i) losses.push_back(step(images[i % images.size()], labels).loss);
  for (const Tensor& loss : losses) result.losses.push_back(loss.item<float>());
  result.weights = net.state_dict();
  return result;
}

void expect_same_bits(const Run200& a, const Run200& b) {
  EXPECT_EQ(a.losses, b.losses);
  for (const auto& [key, tensor] : a.weights)
    EXPECT_TRUE(testing::equal_bits(b.weights.at(key), tensor).ok) << key;
}

TEST(GpuEnduranceTest, two_hundred_steps_have_the_same_bits_twice_and_recorded) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const std::optional<DType> autocast : {std::optional<DType>(), std::optional(bfloat16)}) {
      SCOPED_TRACE(std::string(name(format)) + (autocast ? " bfloat16" : " float32"));
      const Run200 first = two_hundred_steps(format, false, autocast);
      EXPECT_LT(first.losses.back(), first.losses.front());
      expect_same_bits(first, two_hundred_steps(format, false, autocast));
      expect_same_bits(first, two_hundred_steps(format, true, autocast));
    }
}

void five_thousand_steps(bool capture) {
  const Device gpu = Device::cuda();
  manual_seed(4);
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.35});
  net.to(gpu);
  optim::RMSprop optimizer(net.parameters(), {.lr = 1e-4, .momentum = 0.9});
  optim::LrScheduler schedule(optimizer, optim::Cosine({.T_max = 5000}));
  optim::Ema ema(net, {.decay = 0.999});
  train::Step step(net, optimizer,
                   {.clip_grad_norm = 1,
                    .check_every = 0,
                    .scheduler = &schedule,
                    .ema = &ema,
                    .capture = capture,
                    .autocast = bfloat16});
  const Tensor images = testing::random_tensor({8, 3, 32, 32}, 1, {.dtype = float32}).to(gpu);
  const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8}).to(gpu);
  for (int i = 0; i < 20; ++i) step(images, labels);
  const MemoryStats before = memory_stats(gpu);
  const std::uint64_t waits = wait_count(gpu);
  for (int i = 20; i < 5000; ++i) step(images, labels);
  const MemoryStats after = memory_stats(gpu);
  EXPECT_EQ(after.device_allocations, before.device_allocations);
  EXPECT_EQ(after.device_releases, before.device_releases);
  EXPECT_EQ(after.in_use, before.in_use);
  EXPECT_EQ(after.reserved, before.reserved);
  EXPECT_EQ(wait_count(gpu), waits);
  EXPECT_EQ(step.replayed() > 0, capture);
  EXPECT_EQ(optimizer.steps(), 5000);
}

TEST(GpuEnduranceTest, five_thousand_steps_take_no_memory_and_never_wait) {
  LAMELLA_NEEDS_GPU();
  five_thousand_steps(false);
}

TEST(GpuEnduranceTest, five_thousand_recorded_steps_take_no_memory_and_never_wait) {
  LAMELLA_NEEDS_GPU();
  five_thousand_steps(true);
}

TEST(GpuEnduranceTest, initialisation_has_the_bits_of_the_cpu) {
  LAMELLA_NEEDS_GPU();
  const auto drawn = [](Device device) {
    manual_seed(9);
    return std::pair(randn({1000}, {.dtype = float32, .device = device}), rand({33, 7}, {.device = device}));
  };
  const auto cpu = drawn(Device::cpu()), gpu = drawn(Device::cuda());
  EXPECT_TRUE(testing::equal_bits(gpu.first, cpu.first).ok);
  EXPECT_TRUE(testing::equal_bits(gpu.second, cpu.second).ok);
  manual_seed(9);
  auto here = models::mobilenet_v3_small({.classes = 10});
  manual_seed(9);
  auto there = models::mobilenet_v3_small({.classes = 10});
  there.to(Device::cuda());
  for (const auto& [key, tensor] : here.state_dict())
    EXPECT_TRUE(testing::equal_bits(there.state_dict().at(key), tensor).ok) << key;
}

}  // namespace
}  // namespace lamella::test
