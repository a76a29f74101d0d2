#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/layers/layers.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"

namespace {

namespace lm = lamella;
namespace reference = lamella::testing::reference;
using lm::testing::check_layer;
using lm::testing::HasSameBits;
using lm::testing::IsClose;
using lm::testing::Passes;
using lm::testing::random_tensor;
using testing::ElementsAre;

template <class Module>
std::vector<std::string> names(const Module& module) {
  std::vector<std::string> result;
  for (const auto& [name, tensor] : module.state_dict()) result.push_back(name + tensor.shape().to_string());
  return result;
}

double largest(const lm::Tensor& tensor) { return lm::max(lm::abs(tensor.detach())).item(); }

TEST(LinearTest, computes_and_starts_as_pytorch) {
  lm::Linear layer(100, 50);
  EXPECT_THAT(names(layer), ElementsAre("weight[50,100]", "bias[50]"));
  EXPECT_LE(largest(layer.weight()), 0.1);
  EXPECT_GT(largest(layer.weight()), 0.099);
  EXPECT_LE(largest(layer.bias()), 0.1);
  EXPECT_GT(largest(layer.bias()), 0.08);
  const lm::Tensor x = lm::randn({3, 100});
  EXPECT_THAT(layer(x),
              IsClose(reference::matmul(x, layer.weight().detach().transpose(0, 1)) + layer.bias().detach(),
                      {.relative = 1e-5, .absolute = 1e-5}));
  EXPECT_EQ(layer.to_string(), "Linear(in_features=100, out_features=50, bias=True)");
  lm::Linear plain(2, 3, false);
  EXPECT_THAT(names(plain), ElementsAre("weight[3,2]"));
  EXPECT_FALSE(plain.bias().defined());
  EXPECT_THROW(lm::Linear(0, 3), lm::ShapeError);
  EXPECT_TRUE(Passes(check_layer(layer, random_tensor({3, 100}, 1))));
}

TEST(Conv2dTest, computes_and_starts_as_pytorch) {
  lm::Conv2d layer(6, 10, {3, 5}, {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2});
  EXPECT_THAT(names(layer), ElementsAre("weight[10,3,3,5]", "bias[10]"));
  EXPECT_LE(largest(layer.weight()), 1 / std::sqrt(45.0));
  EXPECT_LE(largest(layer.bias()), 1 / std::sqrt(45.0));
  EXPECT_GT(largest(layer.weight()), 0.97 / std::sqrt(45.0));
  const lm::Tensor x = random_tensor({2, 6, 9, 11}, 1);
  EXPECT_TRUE(Passes(check_layer(layer, x)));
  EXPECT_THAT(layer(x), IsClose(reference::conv2d(x, layer.weight().detach(), layer.bias().detach(), {2, 1},
                                                  {1, 2}, {1, 2}, 2)));
  EXPECT_EQ(layer.to_string(),
            "Conv2d(6, 10, kernel_size=(3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)");
}

TEST(Conv2dTest, same_padding_keeps_the_size) {
  lm::Conv2d layer(2, 3, {4, 3}, {.dilation = 2, .same_padding = true, .bias = false});
  EXPECT_EQ(layer(lm::randn({1, 2, 9, 10})).shape(), (lm::Shape{1, 3, 9, 10}));
  EXPECT_FALSE(layer.bias().defined());
}

TEST(Conv2dTest, refuses_sizes_that_make_no_sense) {
  EXPECT_THROW(lm::Conv2d(0, 1, 3), lm::ShapeError);
  EXPECT_THROW(lm::Conv2d(1, 1, 0), lm::ShapeError);
  EXPECT_THROW(lm::Conv2d(1, 1, 3, {.stride = 0}), lm::ShapeError);
  EXPECT_THROW(lm::Conv2d(1, 1, 3, {.padding = -1}), lm::ShapeError);
  EXPECT_THROW(lm::Conv2d(3, 4, 3, {.groups = 2}), lm::ShapeError);
  EXPECT_THROW(lm::Conv2d(1, 1, 3, {.stride = 2, .same_padding = true}), lm::ShapeError);
  EXPECT_THROW(lm::DepthwiseConv2d(4, 3, {.multiplier = 0}), lm::ShapeError);
}

TEST(DepthwiseConv2dTest, is_a_conv2d_with_a_group_per_channel) {
  lm::manual_seed(5);
  lm::DepthwiseConv2d layer(4, {3, 7}, {.stride = {1, 2}, .padding = {1, 3}, .multiplier = 2});
  lm::manual_seed(5);
  lm::Conv2d grouped(4, 8, {3, 7}, {.stride = {1, 2}, .padding = {1, 3}, .groups = 4});
  EXPECT_THAT(layer.weight().detach(), HasSameBits(grouped.weight().detach()));
  EXPECT_THAT(layer.bias().detach(), HasSameBits(grouped.bias().detach()));
  EXPECT_TRUE(grouped.load_state_dict(layer.state_dict()).ok());
  const lm::Tensor x = random_tensor({2, 4, 8, 9}, 2);
  EXPECT_TRUE(Passes(check_layer(layer, x)));
  grouped.to(lm::float64);
  EXPECT_THAT(layer(x), IsClose(grouped(x)));
}

TEST(BatchNorm2dTest, trains_and_evaluates) {
  lm::BatchNorm2d layer(3);
  EXPECT_THAT(names(layer), ElementsAre("weight[3]", "bias[3]", "running_mean[3]", "running_var[3]",
                                        "num_batches_tracked[]"));
  const lm::Tensor x = random_tensor({4, 3, 5, 6}, 1);
  layer.to(lm::float64);
  EXPECT_THAT(layer(x), IsClose(reference::batch_norm(x, lm::Tensor(), lm::Tensor())));
  EXPECT_EQ(layer.num_batches_tracked().item<std::int64_t>(), 1);
  const lm::Tensor mean = lm::mean(x, {.axes = {0, 2, 3}}), var = lm::var(x, {.axes = {0, 2, 3}});
  EXPECT_THAT(layer.running_mean(), IsClose(0.1 * mean));
  EXPECT_THAT(layer.running_var(), IsClose(0.9 + 0.1 * var));

  layer.eval();
  const lm::Tensor shape = layer.running_mean().reshape({1, 3, 1, 1});
  EXPECT_THAT(layer(x), IsClose((x - shape) / lm::sqrt(layer.running_var().reshape({1, 3, 1, 1}) + 1e-5)));
  EXPECT_EQ(layer.num_batches_tracked().item<std::int64_t>(), 1);
  EXPECT_TRUE(Passes(check_layer(layer, x)));
}

TEST(BatchNorm2dTest, options) {
  lm::BatchNorm2d plain(2, {.affine = false, .track_running_stats = false});
  EXPECT_TRUE(plain.state_dict().empty());
  plain.eval();
  const lm::Tensor x = random_tensor({4, 2, 3, 3}, 1);
  EXPECT_THAT(plain(x), IsClose(reference::batch_norm(x, lm::Tensor(), lm::Tensor())));
  EXPECT_THROW(plain(lm::randn({4, 3, 3, 3})), lm::ShapeError);
  EXPECT_THROW(plain(lm::randn({4, 2})), lm::ShapeError);
  EXPECT_THROW(lm::BatchNorm2d(0), lm::ShapeError);
  EXPECT_THROW(lm::BatchNorm2d(1, {.eps = 0}), lm::ShapeError);
  EXPECT_THROW(lm::BatchNorm2d(1, {.momentum = 1.5}), lm::ShapeError);
  EXPECT_EQ(lm::BatchNorm2d(2, {.eps = 0.001}).to_string(),
            "BatchNorm2d(2, eps=0.001, momentum=0.1, affine=True, track_running_stats=True)");
}

TEST(BatchNorm2dTest, a_block_run_twice_counts_once) {
  lm::BatchNorm2d layer(2);
  const lm::Tensor x = lm::randn({3, 2, 4, 4}, {.requires_grad = true});
  const lm::Tensor y = lm::recompute([&](const lm::Tensors& in) { return layer(in[0]); }, {x});
  lm::sum(y * y).backward();
  EXPECT_EQ(layer.num_batches_tracked().item<std::int64_t>(), 1);
}

TEST(ActivationModuleTest, call_their_functions) {
  const lm::Tensor x = random_tensor({3, 4}, 1, {.low = -7, .high = 7});
  EXPECT_THAT(lm::ReLU()(x), HasSameBits(lm::relu(x)));
  EXPECT_THAT(lm::ReLU6()(x), HasSameBits(lm::relu6(x)));
  EXPECT_THAT(lm::LeakyReLU(0.2)(x), HasSameBits(lm::leaky_relu(x, 0.2)));
  EXPECT_THAT(lm::Hardswish()(x), HasSameBits(lm::hardswish(x)));
  EXPECT_THAT(lm::Hardsigmoid()(x), HasSameBits(lm::hardsigmoid(x)));
  EXPECT_THAT(lm::Sigmoid()(x), HasSameBits(lm::sigmoid(x)));
  EXPECT_THAT(lm::SiLU()(x), HasSameBits(lm::silu(x)));
  EXPECT_THAT(lm::GELU()(x), HasSameBits(lm::gelu(x)));
  EXPECT_THAT(lm::GELU(lm::GeluApproximation::Tanh)(x),
              HasSameBits(lm::gelu(x, lm::GeluApproximation::Tanh)));
  EXPECT_THAT(lm::Tanh()(x), HasSameBits(lm::tanh(x)));
  EXPECT_EQ(lm::LeakyReLU().to_string(), "LeakyReLU(negative_slope=0.01)");
}

TEST(PoolModuleTest, call_their_functions) {
  const lm::Tensor x = random_tensor({2, 3, 9, 8}, 1);
  const lm::MaxPool2dOptions max{.kernel = 3, .stride = 2, .padding = 1};
  EXPECT_THAT(lm::MaxPool2d(max)(x), HasSameBits(lm::max_pool2d(x, max)));
  EXPECT_THAT(lm::AvgPool2d({.kernel = {2, 3}})(x), HasSameBits(lm::avg_pool2d(x, {.kernel = {2, 3}})));
  EXPECT_THAT(lm::AdaptiveAvgPool2d({2, 3})(x), HasSameBits(lm::adaptive_avg_pool2d(x, {2, 3})));
  EXPECT_EQ(lm::MaxPool2d(max).to_string(),
            "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil_mode=False)");
}

TEST(DropoutTest, acts_in_training_alone) {
  lm::manual_seed(1);
  const lm::Tensor x = lm::ones({100, 100});
  lm::Dropout layer(0.25);
  const double kept = lm::mean(layer(x)).item() * 0.75;
  EXPECT_NEAR(kept, 0.75, 0.02);
  EXPECT_NEAR(largest(layer(x)), 1 / 0.75, 1e-6);
  layer.eval();
  EXPECT_THAT(layer(x), HasSameBits(x));
  EXPECT_THROW(lm::Dropout(1.1), lm::ShapeError);
  EXPECT_THROW(lm::Dropout(-0.1), lm::ShapeError);
}

TEST(DropPathTest, drops_whole_samples) {
  lm::manual_seed(1);
  lm::DropPath layer(0.5);
  const lm::Tensor y = layer(lm::ones({200, 3, 2, 2}));
  std::int64_t dropped = 0;
  for (int i = 0; i < 200; ++i) {
    const auto sample = y.select(0, i).to_vector<float>();
    EXPECT_THAT(sample, testing::Each(sample[0]));
    dropped += sample[0] == 0;
  }
  EXPECT_NEAR(static_cast<double>(dropped), 100, 35);
  EXPECT_THROW(lm::DropPath(2), lm::ShapeError);
}

TEST(FlattenTest, merges_all_axes_but_the_batch) {
  EXPECT_EQ(lm::Flatten()(lm::zeros({2, 3, 4, 5})).shape(), (lm::Shape{2, 60}));
  EXPECT_EQ(lm::Flatten(1, 2)(lm::zeros({2, 3, 4, 5})).shape(), (lm::Shape{2, 12, 5}));
}

// ---- Blocks ----

TEST(BlocksTest, conv_norm_activation_is_its_three_parts) {
  lm::ConvNormActivation block(3, 4, {.kernel = 5, .stride = 2, .activation = lm::Activation::Hardswish});
  const lm::Tensor x = random_tensor({2, 3, 9, 8}, 1);
  EXPECT_TRUE(Passes(check_layer(block, x)));
  EXPECT_THAT(block(x), IsClose(lm::hardswish(block.norm()(block.conv()(x)))));
  EXPECT_EQ(block.to_string(),
            "ConvNormActivation(\n"
            "  (0): Conv2d(3, 4, kernel_size=(5, 5), stride=(2, 2), padding=(2, 2), bias=False)\n"
            "  (1): BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)\n"
            "  (2): Hardswish()\n"
            ")");
  EXPECT_THROW(lm::ConvNormActivation(3, 4, {.kernel = 2}), lm::ShapeError);
}

TEST(BlocksTest, squeeze_excite_scales_channels) {
  lm::SqueezeExcite block(6, 2, {.gate = lm::Activation::Sigmoid});
  const lm::Tensor x = random_tensor({2, 6, 3, 5}, 1);
  EXPECT_TRUE(Passes(check_layer(block, x)));
  const lm::Tensor factors = block(x) / x;
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 6; ++c) {
      const auto map = factors({n, c}).to_vector<double>();
      for (const double factor : map) EXPECT_NEAR(factor, map[0], 1e-12);
      EXPECT_GT(map[0], 0);
      EXPECT_LT(map[0], 1);
    }
}

TEST(BlocksTest, inverted_residual_in_both_spellings) {
  lm::InvertedResidual v2(8, 8, {.activation = lm::Activation::SiLU});
  EXPECT_TRUE(v2.has_shortcut());
  EXPECT_EQ(v2.state_dict().at("conv.0.0.weight").shape(), (lm::Shape{48, 8, 1, 1}));
  EXPECT_EQ(v2.state_dict().at("conv.2.weight").shape(), (lm::Shape{8, 48, 1, 1}));
  EXPECT_TRUE(Passes(check_layer(v2, random_tensor({2, 8, 4, 5}, 1))));

  lm::InvertedResidual v3(8, 12,
                          {.expanded = 8,
                           .kernel = 5,
                           .stride = 2,
                           .squeezed = 4,
                           .activation = lm::Activation::SiLU,
                           .names = lm::BlockNames::MobileNetV3});
  EXPECT_FALSE(v3.has_shortcut());
  EXPECT_EQ(v3.state_dict().at("block.0.0.weight").shape(), (lm::Shape{8, 1, 5, 5}));
  EXPECT_EQ(v3.state_dict().at("block.1.fc1.bias").shape(), (lm::Shape{4}));
  EXPECT_EQ(v3.state_dict().at("block.2.1.weight").shape(), (lm::Shape{12}));
  EXPECT_TRUE(Passes(check_layer(v3, random_tensor({2, 8, 7, 6}, 1))));
}

TEST(BlocksTest, a_dropped_path_leaves_the_shortcut) {
  lm::InvertedResidual block(8, 8, {.drop_path = 1});
  const lm::Tensor x = lm::randn({2, 8, 4, 4});
  EXPECT_THAT(block(x).detach(), HasSameBits(x));
  block.eval();
  EXPECT_GT(largest(block(x) - x), 0);
}

TEST(BlocksTest, depthwise_separable) {
  lm::DepthwiseSeparable block(4, 6, {.stride = 2, .activation = lm::Activation::SiLU});
  EXPECT_TRUE(Passes(check_layer(block, random_tensor({2, 4, 6, 5}, 1))));
  EXPECT_EQ(block.state_dict().at("conv_dw.weight").shape(), (lm::Shape{4, 1, 3, 3}));
  EXPECT_EQ(block.state_dict().at("bn2.weight").shape(), (lm::Shape{6}));
}

}  // namespace
