// Several GPUs in one process.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <thread>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

#define LAMELLA_NEEDS_TWO_GPUS() \
  LAMELLA_NEEDS_GPU();           \
  if (cuda_device_count() < 2) GTEST_SKIP() << "fewer than two NVIDIA GPUs"

StateDict trained_on(Device device) {
  manual_seed(7);
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.35, .small_stem = true});
  net.to(device);
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9});
  train::Step step(net, sgd, {.capture = true});
  for (int i = 0; i < 6; ++i)
    step(testing::random_tensor({8, 3, 32, 32}, static_cast<std::uint64_t>(i), {.dtype = float32}),
         from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8}));
  return net.state_dict();
}

TEST(SeveralGpusTest, the_second_trains_as_the_first) {
  LAMELLA_NEEDS_TWO_GPUS();
  const StateDict first = trained_on(Device::cuda(0)), second = trained_on(Device::cuda(1));
  for (const auto& [key, tensor] : first) {
    ASSERT_EQ(second.at(key).device(), Device::cuda(1)) << key;
    EXPECT_TRUE(testing::equal_bits(second.at(key), tensor).ok) << key;
  }
}

TEST(SeveralGpusTest, numbers_move_between_them) {
  LAMELLA_NEEDS_TWO_GPUS();
  const Tensor x = testing::random_tensor({300, 500}, 1, {.dtype = float32});
  Tensor there = x.to(Device::cuda(0));
  for (int i = 0; i < 4; ++i) {
    there = (there * 2.0).to(Device::cuda(1 - i % 2));
    there = there * 0.5;
  }
  EXPECT_EQ(there.device(), Device::cuda(0));
  EXPECT_TRUE(testing::equal_bits(there, x).ok);
  // With a gradient, and in place.
  Tensor leaf = x.to(Device::cuda(0)).set_requires_grad();
  sum(leaf.to(Device::cuda(1)) * 3.0).backward();
  EXPECT_EQ(leaf.grad().device(), Device::cuda(0));
  EXPECT_EQ(max(leaf.grad()).item(), 3);
  Tensor target = zeros({300, 500}, {.device = Device::cuda(1)});
  target.copy_(leaf);
  EXPECT_TRUE(testing::equal_bits(target, x).ok);
}

TEST(SeveralGpusTest, large_tensors_move_between_them) {
  LAMELLA_NEEDS_TWO_GPUS();
  const Tensor x = testing::random_tensor({20'000'001}, 3, {.dtype = float32});  // several chunks of memory
  const Tensor first = x.to(Device::cuda(0));
  const Tensor second = first.to(Device::cuda(1));
  EXPECT_TRUE(testing::equal_bits(second.to(Device::cpu()), x).ok);
  EXPECT_TRUE(testing::equal_bits((second * 2.0).to(Device::cuda(0)).to(Device::cpu()), x * 2.0).ok);
}

TEST(SeveralGpusTest, two_threads_train_on_one_each) {
  LAMELLA_NEEDS_TWO_GPUS();
  const auto work = [](Device device) {
    Tensor x = full({1000, 1000}, 0.5, {.device = device});
    for (int i = 0; i < 200; ++i) x = relu(x * 1.0 + 0.25);
    return mean(x).item();
  };
  double results[2] = {};
  std::thread other([&] { results[1] = work(Device::cuda(1)); });
  results[0] = work(Device::cuda(0));
  other.join();
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], 50.5);
}

/// Whether this process has taken memory on a GPU for its context; the driver knows.
bool has_context(int index) {
  using Ask = int (*)(int device, unsigned* flags, int* active);
  void* const driver = dlopen("libcuda.so.1", RTLD_LAZY);
  const auto ask =
      driver != nullptr ? reinterpret_cast<Ask>(dlsym(driver, "cuDevicePrimaryCtxGetState")) : nullptr;
  unsigned flags = 0;
  int active = 0;
  return ask != nullptr && ask(index, &flags, &active) == 0 && active != 0;
}

TEST(SeveralGpusTest, page_locked_memory_takes_none_of_a_gpu_that_nobody_uses) {
  // Nothing here may ask about cuda:0, as other tests do: run it alone, as ctest does.
  if (cuda_device_count() < 2) GTEST_SKIP() << "fewer than two NVIDIA GPUs";
  if (has_context(0)) GTEST_SKIP() << "the first GPU is in use";
  const Tensor x = ones({1000}, {.device = Device::cuda(1)});
  std::thread worker([] { (void)ones({1000}, {.pinned = true}); });
  worker.join();
  EXPECT_EQ(sum(ones({1000}).pin_memory().to(Device::cuda(1), true) + x).item(), 2000);
  EXPECT_TRUE(has_context(1));
  EXPECT_FALSE(has_context(0));
}

TEST(SeveralGpusTest, operands_on_different_ones_are_refused) {
  LAMELLA_NEEDS_TWO_GPUS();
  const Tensor a = ones({3}, {.device = Device::cuda(0)}), b = ones({3}, {.device = Device::cuda(1)});
  try {
    a + b;
    FAIL();
  } catch (const DeviceError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("cuda:0"), std::string::npos) << text;
    EXPECT_NE(text.find("cuda:1"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace lamella::test
