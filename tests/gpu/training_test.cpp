#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

struct Trained {
  std::vector<double> losses;
  StateDict weights;
};

Trained train(Device device, MemoryFormat format, int steps) {
  manual_seed(1);
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.35, .small_stem = true});
  net.to(device);
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9, .weight_decay = 4e-5});
  Trained trained;
  for (int step = 0; step < steps; ++step) {
    const auto seed = static_cast<std::uint64_t>(step % 4);
    const Tensor images = testing::random_tensor({8, 3, 32, 32}, seed, {.dtype = float32, .format = format});
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8});
    const Tensor loss = cross_entropy(net(images.to(device)), labels.to(device));
    sgd.zero_grad();
    loss.backward();
    sgd.step();
    trained.losses.push_back(loss.item<float>());
  }
  trained.weights = net.state_dict();
  return trained;
}

TEST(GpuTrainingTest, learns_as_the_cpu_does) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Trained cpu = train(Device::cpu(), format, 3), gpu = train(Device::cuda(), format, 3);
    for (std::size_t i = 0; i < cpu.losses.size(); ++i) EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 2e-3) << i;
  }
}

TEST(GpuTrainingTest, two_runs_give_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Trained first = train(Device::cuda(), format, 20), second = train(Device::cuda(), format, 20);
    EXPECT_EQ(first.losses, second.losses);
    for (const auto& [key, tensor] : first.weights)
      EXPECT_TRUE(testing::equal_bits(second.weights.at(key).to(Device::cpu()), tensor.to(Device::cpu())).ok) << key;
  }
}

TEST(GpuTrainingTest, a_steady_step_takes_no_memory_from_the_device) {
  LAMELLA_NEEDS_GPU();
  train(Device::cuda(), MemoryFormat::Contiguous, 3);
  const MemoryStats before = memory_stats(Device::cuda());
  train(Device::cuda(), MemoryFormat::Contiguous, 5);
  const MemoryStats after = memory_stats(Device::cuda());
  EXPECT_EQ(after.device_allocations, before.device_allocations);
  EXPECT_EQ(after.in_use, before.in_use);
}

}  // namespace
}  // namespace lamella::test
