#include "lamella/layers/fold.h"

#include <gmock/gmock.h>

#include <cmath>

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
    if (kernel.kernel.starts_with("batch_norm_")) calls += static_cast<int>(kernel.calls);
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

/// fold_batch_norms(net) folds `count` norms and leaves what the network computes.
void expect_folds(Module& net, int count, const Shape& input = {2, 3, 6, 6}) {
  const NoGrad no_grad;
  stir(net);
  net.eval();
  const Tensor x = testing::random_tensor(input, 3, {.dtype = float32});
  const Tensor expected = net(x).clone();
  EXPECT_EQ(fold_batch_norms(net), count);
  expect_near(net(x), expected, 1e-4);
  EXPECT_EQ(fold_batch_norms(net), 0);
  expect_near(net(x), expected, 1e-4);
}

TEST(FoldTest, a_convolution_used_twice_is_left_alone) {
  const Conv2d conv(3, 3, 1, {.bias = false});
  Sequential two_norms(conv, BatchNorm2d(3), ReLU(), conv, BatchNorm2d(3));
  expect_folds(two_norms, 0);
  Sequential elsewhere(conv, BatchNorm2d(3), Sequential(ReLU(), conv));
  expect_folds(elsewhere, 0);
}

TEST(FoldTest, a_norm_used_twice_is_left_alone) {
  const BatchNorm2d norm(3);
  Sequential net(Conv2d(3, 3, 1, {.bias = false}), norm, ReLU(), Conv2d(3, 3, 1, {.bias = false}), norm);
  expect_folds(net, 0);
}

/// A convolution with a weight, and perhaps a norm's bias, from elsewhere.
struct Tied : Module {
  explicit Tied(const Tensor& tensor) : Module("Tied") { weight = add_parameter("weight", tensor); }
  Tensor forward(const Tensor& x) override { return x * weight.get().reshape({-1}).slice(0, {.end = 1}); }
  Parameter weight;
};

TEST(FoldTest, tied_tensors_are_left_alone) {
  const Conv2d conv(3, 3, 1, {.bias = false});
  const BatchNorm2d norm(3);
  Sequential same_tensor(conv, norm, Tied(conv.weight()));
  expect_folds(same_tensor, 0);
  Sequential same_memory(conv, norm, Tied(conv.weight().detach().reshape({9})));
  expect_folds(same_memory, 0);
  Sequential same_bias(conv, norm, Tied(norm.bias()));
  expect_folds(same_bias, 0);
  Sequential not_tied(conv, norm, Tied(conv.weight().detach().clone()));
  expect_folds(not_tied, 1);
}

TEST(FoldTest, a_block_used_twice_is_folded_once) {
  const ConvNormActivation block(3, 3);
  Sequential net(block, ReLU(), block);
  expect_folds(net, 1);
}

/// What comes out of the convolution goes to the norm and past it.
struct Around : Sequential {
  Around() {
    push_back(Conv2d(3, 3, 1, {.bias = false}));
    push_back(BatchNorm2d(3));
  }
  Tensor forward(const Tensor& x) override {
    const Tensor y = (*this)[0](x);
    return y + (*this)[1](y);
  }
};

TEST(FoldTest, an_output_that_goes_elsewhere_too_keeps_its_convolution) {
  Around net;
  expect_folds(net, 0);
}

TEST(FoldTest, what_was_taken_before_keeps_its_numbers_and_undoes_it) {
  const NoGrad no_grad;
  auto net = models::mobilenet_v2({.classes = 5, .width = 0.25});
  stir(net);
  net.eval();
  const Tensor x = testing::random_tensor({1, 3, 32, 32}, 7, {.dtype = float32});
  const Tensor expected = net(x).clone();
  const Tensors handles = net.parameters();  // as an optimizer has them
  const StateDict before = net.state_dict(), copies = before.clone();
  EXPECT_EQ(fold_batch_norms(net), 52);
  for (const auto& [name, tensor] : copies) EXPECT_THAT(before.at(name), HasSameBits(tensor)) << name;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    EXPECT_THAT(handles[i], HasSameBits(net.parameters()[i]));
    EXPECT_TRUE(handles[i].requires_grad());
  }
  net.load_state_dict(before);
  EXPECT_EQ(norm_calls(net, x), 52);
  EXPECT_THAT(net(x), HasSameBits(expected));
  EXPECT_EQ(fold_batch_norms(net), 52);
  expect_near(net(x), expected, 1e-4);
}

TEST(FoldTest, numbers_that_would_not_survive_are_left_alone) {
  const NoGrad no_grad;
  const auto folds = [](DType dtype, double weight, double var, double mean = 0) {
    Sequential pair(Conv2d(3, 4, 1, {.bias = false}), BatchNorm2d(4));
    Tensor kernel = pair.at<Conv2d>(0).weight(), running_var = pair.at<BatchNorm2d>(1).running_var(),
           running_mean = pair.at<BatchNorm2d>(1).running_mean();
    kernel.fill_(weight);
    running_var.fill_(var);
    running_mean.fill_(mean);
    pair.to(dtype);
    pair.eval();
    return fold_batch_norms(pair);
  };
  EXPECT_EQ(folds(float16, 1, 1), 1);
  EXPECT_EQ(folds(float16, 400, 0), 0);        // above 65504
  EXPECT_EQ(folds(float16, 1e-4, 6e4), 0);     // few digits left
  EXPECT_EQ(folds(float16, 100, 0, 1000), 0);  // the bias above 65504
  EXPECT_EQ(folds(bfloat16, 400, 0), 1);
  EXPECT_EQ(folds(float32, 1, -1), 0);  // NaN
  EXPECT_EQ(folds(float32, 0, 1), 1);
  EXPECT_EQ(folds(float64, 1, 1, INFINITY), 0);
}

TEST(FoldTest, an_error_leaves_all_as_it_was) {
  const NoGrad no_grad;
  Sequential net(Conv2d(3, 4, 1, {.bias = false}), BatchNorm2d(4), Conv2d(4, 64, 9, {.bias = false}),
                 BatchNorm2d(64));
  stir(net);
  net.eval();
  const StateDict before = net.state_dict().clone();
  const std::size_t in_use = memory_stats(Device::cpu()).in_use;
  empty_cache(Device::cpu());
  set_memory_limit(Device::cpu(), in_use + 150000);  // room for the first pair
  EXPECT_THROW(fold_batch_norms(net), OutOfMemoryError);
  set_memory_limit(Device::cpu(), 0);
  for (const auto& [name, tensor] : before)
    EXPECT_THAT(net.state_dict().at(name), HasSameBits(tensor)) << name;
  EXPECT_EQ(fold_batch_norms(net), 2);
}

}  // namespace
}  // namespace lamella
