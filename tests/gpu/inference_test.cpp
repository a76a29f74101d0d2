#include "lamella/train/inference.h"

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

Tensor images(std::int64_t count, std::uint64_t seed) {
  return testing::random_tensor({count, 3, 32, 32}, seed, {.dtype = float32}).to(Device::cuda());
}

void expect_same_bits(const Tensor& actual, const Tensor& expected, const std::string& what) {
  const auto same = testing::equal_bits(actual.to(Device::cpu()), expected.to(Device::cpu()));
  EXPECT_TRUE(same.ok) << what << ": " << same.message;
}

TEST(GpuInferenceTest, replays_with_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  for (const bool fold : {false, true}) {
    manual_seed(2);
    auto net = models::mobilenet_v2({.classes = 10, .width = 0.35, .small_stem = true});
    net.to(Device::cuda());
    if (fold) fold_batch_norms(net);
    train::Inference eager(net), recorded(net, {.capture = true});
    std::vector<Tensor> kept;
    for (std::uint64_t i = 0; i < 4; ++i) kept.push_back(recorded(images(2, i)));
    EXPECT_EQ(recorded.replayed(), 3);
    // Another size runs as always, and the recording stays.
    expect_same_bits(recorded(images(5, 9)), eager(images(5, 9)), "another size");
    EXPECT_EQ(recorded.replayed(), 3);
    kept.push_back(recorded(images(2, 4)));
    EXPECT_EQ(recorded.replayed(), 4);
    for (std::uint64_t i = 0; i < kept.size(); ++i)
      expect_same_bits(kept[i], eager(images(2, i)), "input " + std::to_string(i));
  }
}

TEST(GpuInferenceTest, sees_parameters_that_change_and_that_move) {
  LAMELLA_NEEDS_GPU();
  Linear net(8, 3);
  net.to(Device::cuda());
  train::Inference eager(net), recorded(net, {.capture = true});
  const Tensor x = testing::random_tensor({4, 8}, 3, {.dtype = float32}).to(Device::cuda());
  for (int i = 0; i < 3; ++i) recorded(x);
  EXPECT_EQ(recorded.replayed(), 2);
  {
    const NoGrad no_grad;
    Tensor weight = net.weight();
    weight.copy_(weight + 1.0);
  }
  expect_same_bits(recorded(x), eager(x), "changed in place");
  EXPECT_EQ(recorded.replayed(), 3);
  const Tensor keeps_the_old_place = net.weight().detach();
  net.to(Device::cpu());
  net.to(Device::cuda());
  expect_same_bits(recorded(x), eager(x), "moved");
  EXPECT_EQ(recorded.replayed(), 3);
  expect_same_bits(recorded(x), eager(x), "recorded anew");
  EXPECT_EQ(recorded.replayed(), 4);
}

TEST(GpuInferenceTest, sees_norms_that_are_folded_and_no_longer) {
  LAMELLA_NEEDS_GPU();
  const auto made = [](std::uint64_t seed) {
    manual_seed(seed);
    Sequential net(Conv2d(3, 8, 3, {.bias = false}), BatchNorm2d(8), ReLU());
    const NoGrad no_grad;
    Tensor mean = net.at<BatchNorm2d>(1).running_mean(), var = net.at<BatchNorm2d>(1).running_var();
    mean.fill_(0.1 * static_cast<double>(seed));
    var.fill_(static_cast<double>(seed));
    net.to(Device::cuda());
    return net;
  };
  Sequential net = made(2);
  const StateDict others = made(3).state_dict();
  train::Inference eager(net), recorded(net, {.capture = true});
  for (int i = 0; i < 3; ++i) recorded(images(2, 1));
  ASSERT_EQ(recorded.replayed(), 2);
  EXPECT_EQ(fold_batch_norms(net), 1);
  for (int i = 0; i < 3; ++i) expect_same_bits(recorded(images(2, 1)), eager(images(2, 1)), "folded");
  EXPECT_EQ(recorded.replayed(), 4);
  net.load_state_dict(others);  // in place
  for (int i = 0; i < 3; ++i) expect_same_bits(recorded(images(2, 1)), eager(images(2, 1)), "loaded");
  EXPECT_EQ(recorded.replayed(), 6);
}

TEST(GpuInferenceTest, rounds_anew_within_another_autocast) {
  LAMELLA_NEEDS_GPU();
  const NoGrad no_grad;
  Linear net(8, 3);
  net.to(Device::cuda());
  train::Inference eager(net), recorded(net, {.capture = true});
  const Tensor x = testing::random_tensor({4, 8}, 3, {.dtype = float32}).to(Device::cuda());
  Tensor weight = net.weight();
  {
    const Autocast mixed(bfloat16);
    for (int i = 0; i < 3; ++i) recorded(x);
    EXPECT_EQ(recorded.replayed(), 2);
    weight.copy_(weight + 1.0);
    expect_same_bits(recorded(x), eager(x), "changed in place");
    EXPECT_EQ(recorded.replayed(), 3);
  }
  expect_same_bits(recorded(x), eager(x), "without it");
  EXPECT_EQ(recorded.replayed(), 3);
}

TEST(GpuInferenceTest, what_reads_values_cannot_be_recorded) {
  LAMELLA_NEEDS_GPU();
  struct Reads : Module {
    Linear linear{2, 2};
    Reads() : Module("Reads") { add("linear", linear); }
    Tensor forward(const Tensor& x) override { return linear(x) * sum(x).item(); }
  } net;
  net.to(Device::cuda());
  train::Inference recorded(net, {.capture = true});
  const Tensor x = ones({1, 2}, {.device = Device::cuda()});
  const Tensor first = recorded(x);
  EXPECT_THROW(recorded(x), DeviceError);
  expect_same_bits(net(x).detach(), first, "afterwards");
}

}  // namespace
}  // namespace lamella::test
