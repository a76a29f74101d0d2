#include "lamella/layers/fold.h"

#include <gmock/gmock.h>

#include "lamella/lamella.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "tests/support/device.h"

namespace lamella {
namespace {

using testing::HasSameBits;

/// Numbers that make every norm do something.
void stir(Module& network) {
  std::uint64_t seed = 1;
  network.apply([&](const std::string&, Module& module) {
    const auto* const norm = dynamic_cast<const BatchNorm2d*>(&module);
    if (norm == nullptr) return;
    const NoGrad no_grad;
    const auto around = [&](double middle, double width) {
      return add(mul(testing::random_tensor({norm->channels()}, ++seed, {.dtype = float32}), width), middle);
    };
    Tensor weight = norm->weight(), bias = norm->bias(), mean = norm->running_mean(),
           var = norm->running_var();
    weight.copy_(around(1, 0.2));
    bias.copy_(around(0.1, 0.2));
    mean.copy_(around(-0.1, 0.2));
    var.copy_(abs(around(1, 0.3)));
  });
}

void expect_near(const Tensor& actual, const Tensor& expected, double bound) {
  const auto a = actual.to_vector<double>(), b = expected.to_vector<double>();
  ASSERT_EQ(a.size(), b.size());
  double largest = 0, off = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    off = std::max(off, std::abs(a[i] - b[i]));
  }
  EXPECT_GT(largest, 0);
  EXPECT_LE(off, bound * largest);
}

int norm_calls(Module& network, const Tensor& x) {
  train::Profile profile(Device::cpu(), {.bandwidth = false});
  profile.start();
  network(x);
  profile.step();
  profile.stop();
  int calls = 0;
  for (const train::ProfiledKernel& kernel : profile.kernels())
    if (kernel.kernel.starts_with("batch_norm_affine")) calls += static_cast<int>(kernel.calls);
  return calls;
}

template <class Network>
void check_network(Network network, int norms, int left = 0) {
  const NoGrad no_grad;
  stir(network);
  network.eval();
  const Tensor x = testing::random_tensor({2, 3, 32, 32}, 7, {.dtype = float32});
  const Tensor expected = network(x);
  EXPECT_EQ(norm_calls(network, x), norms);
  EXPECT_EQ(fold_batch_norms(network), norms - left);
  EXPECT_EQ(norm_calls(network, x), left);
  const Tensor folded = network(x);
  expect_near(folded, expected, 1e-4);
  EXPECT_EQ(fold_batch_norms(network), 0);
  EXPECT_THAT(network(x), HasSameBits(folded));

  // A clone, or another network with its numbers, computes the same with its norms.
  Network copy = clone(network);
  EXPECT_EQ(norm_calls(copy, x), norms);
  expect_near(copy(x), expected, 1e-4);
  EXPECT_EQ(fold_batch_norms(copy), norms - left);
  expect_near(copy(x), expected, 1e-4);
}

TEST(FoldTest, every_mobilenet_stays_what_it_is) {
  check_network(models::mobilenet_v1({.classes = 5, .width = 0.25}), 27, 1);  // the stem is in no block
  check_network(models::mobilenet_v2({.classes = 5, .width = 0.25}), 52);
  check_network(models::mobilenet_v3_small({.classes = 5, .width = 0.25}), 34);
  check_network(models::mobilenet_v3_large({.classes = 5, .width = 0.25}), 46);
}

TEST(FoldTest, what_changes_afterwards_counts) {
  ConvNormActivation block(3, 4);
  stir(block);
  block.eval();
  const Tensor x = testing::random_tensor({2, 3, 5, 5}, 3, {.dtype = float32});
  const NoGrad no_grad;
  ASSERT_EQ(fold_batch_norms(block), 1);
  Tensor mean = block.norm().running_mean();
  const Tensor before = block(x);
  mean.copy_(mean + 1.0);
  const Tensor expected = relu6(sub(
      conv2d(x, block.conv().weight(), {}, {.padding = 1}) + block.norm().bias().reshape({1, 4, 1, 1}), 1.0));
  expect_near(block(x), expected, 1e-4);
  EXPECT_EQ(fold_batch_norms(block), 1);
  expect_near(block(x), expected, 1e-4);

  // A step of training moves the statistics.
  block.train();
  block(x);
  block.eval();
  EXPECT_EQ(norm_calls(block, x), 1);
}

TEST(FoldTest, gradients_reach_the_norm) {
  ConvNormActivation block(3, 4, {.activation = Activation::None});
  block.eval();
  fold_batch_norms(block);
  block(testing::random_tensor({2, 3, 5, 5}, 3, {.dtype = float32})).backward(ones({2, 4, 5, 5}));
  EXPECT_TRUE(block.norm().weight().grad().defined());
  EXPECT_TRUE(block.norm().bias().grad().defined());
}

TEST(FoldTest, leaves_alone_what_it_cannot_fold) {
  const NoGrad no_grad;
  Sequential with_bias(Conv2d(3, 4, 1), BatchNorm2d(4));
  EXPECT_EQ(fold_batch_norms(with_bias), 0);
  Sequential plain(Conv2d(3, 4, 1, {.bias = false}), BatchNorm2d(4, {.affine = false}));
  EXPECT_EQ(fold_batch_norms(plain), 0);
  Sequential batch(Conv2d(3, 4, 1, {.bias = false}), BatchNorm2d(4, {.track_running_stats = false}));
  EXPECT_EQ(fold_batch_norms(batch), 0);
  Sequential apart(Conv2d(3, 4, 1, {.bias = false}), ReLU(), BatchNorm2d(4));
  EXPECT_EQ(fold_batch_norms(apart), 0);
  Sequential pair(Conv2d(3, 4, 1, {.bias = false}), BatchNorm2d(4), ReLU());
  stir(pair);
  pair.eval();
  const Tensor x = testing::random_tensor({2, 3, 5, 5}, 3, {.dtype = float32});
  const Tensor expected = pair(x);
  EXPECT_EQ(fold_batch_norms(pair), 1);
  EXPECT_EQ(norm_calls(pair, x), 0);
  expect_near(pair(x), expected, 1e-4);
  pair.train();
  EXPECT_EQ(norm_calls(pair, x), 1);  // the batch's statistics
}

}  // namespace
}  // namespace lamella
