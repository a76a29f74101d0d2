#include "lamella/layers/depthwise_conv2d.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "tests/layers/conv_cases.h"

namespace lamella {
namespace {

using test::check_conv;
using test::ConvCase;
using testing::gradcheck;
using ::testing::HasSubstr;
using testing::Passes;
using testing::random_tensor;

Tensor depthwise(const Tensor& x, const Tensor& w, const Tensor& b, const Conv2dOptions& o) {
  return depthwise_conv2d(x, w, b, {o.stride, o.padding, o.dilation, o.same_padding});
}

/// Both formats; the input's channels are the groups.
void check(ConvCase c) {
  c.options.groups = c.input[1];
  for (c.format = MemoryFormat::Contiguous;; c.format = MemoryFormat::ChannelsLast) {
    check_conv(depthwise, c);
    if (c.format == MemoryFormat::ChannelsLast) return;
  }
}

std::string shape_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(DepthwiseConv2dTest, kernels_of_mobilenets) {
  for (const std::int64_t k : {3, 5, 7})
    for (const std::int64_t stride : {1, 2})
      check({{2, 17, 15, 13}, {17, 1, k, k}, {.stride = stride, .padding = k / 2}});
}

TEST(DepthwiseConv2dTest, asymmetric_everything) {
  check({{2, 9, 20, 25}, {9, 1, 3, 7}, {}});
  check({{2, 8, 30, 6}, {8, 1, 3, 1}, {.padding = {1, 0}}});
  check({{2, 10, 14, 19}, {30, 1, 2, 3}, {.stride = {3, 2}, .padding = {4, 1}, .dilation = {2, 3}}});
}

TEST(DepthwiseConv2dTest, strides_and_dilations_far_beyond_the_input) {
  const std::int64_t most = std::numeric_limits<std::int32_t>::max();
  check({{2, 9, 4, 5}, {9, 1, 3, 3}, {.stride = most, .padding = 1}});
  check({{1, 3, 4, 5}, {3, 1, 3, 3}, {.stride = {most, 1}, .padding = {1000, 2}}});
  check({{1, 3, 4, 5}, {3, 1, 3, 3}, {.stride = {700, 900}, .padding = {1000, 1000}}});
  check({{1, 3, 4, 5}, {3, 1, 1, 2}, {.stride = {1, 2}, .padding = {0, 900}, .dilation = {most, 1801}}});
  const Tensor x = zeros({1, 3, 4, 5}), w = zeros({3, 1, 3, 3});
  EXPECT_THAT(shape_error([&] {
                depthwise_conv2d(x, w, {}, {.stride = {std::int64_t{1} << 62, 1}, .padding = {1000, 2}});
              }),
              HasSubstr("depthwise_conv2d: stride 4611686018427387904 must be at most 2147483647"));
}

TEST(DepthwiseConv2dTest, small_and_empty) {
  check({{2, 12, 1, 1}, {12, 1, 3, 3}, {.padding = 1}});
  check({{0, 12, 5, 5}, {12, 1, 3, 3}, {.padding = 1}});
  check({{1, 1, 4, 4}, {5, 1, 3, 3}, {.padding = 1}});
}

TEST(DepthwiseConv2dTest, same_padding) {
  check({{2, 5, 8, 7}, {5, 1, 3, 5}, {.same_padding = true}});
  check({{2, 5, 8, 7}, {10, 1, 2, 4}, {.dilation = {3, 1}, .same_padding = true}});
  check({{1, 3, 1, 1}, {3, 1, 2, 2}, {.same_padding = true}});
}

TEST(DepthwiseConv2dTest, half_types_and_their_float32_parameters) {
  for (const DType dtype : {float16, bfloat16})
    for (const DType parameter : {dtype, float32})
      check({{2, 19, 9, 8}, {19, 1, 3, 3}, {.stride = {1, 2}, .padding = 1}, true, {}, dtype, parameter});
}

TEST(DepthwiseConv2dTest, differentiates) {
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const std::int64_t multiplier : {1, 2}) {
      const auto leaf = [&](const Shape& shape, std::uint64_t seed) {
        return random_tensor(
            shape, seed,
            {.format = shape.size() == 4 ? format : MemoryFormat::Contiguous, .requires_grad = true});
      };
      const auto f = [&](const Tensors& t) {
        return depthwise_conv2d(t[0], t[1], t[2], {.stride = {1, 2}, .padding = {1, 2}, .dilation = {2, 1}});
      };
      EXPECT_TRUE(Passes(
          gradcheck(f, {leaf({2, 3, 5, 6}, 1), leaf({3 * multiplier, 1, 3, 3}, 2), leaf({3 * multiplier}, 3)},
                    {.step = 1, .tolerance = 1e-10})));
    }
}

TEST(DepthwiseConv2dTest, gives_each_gradient_alone) {
  const Tensor x = random_tensor({2, 4, 6, 5}, 1), w = random_tensor({4, 1, 3, 3}, 2),
               b = random_tensor({4}, 3);
  const Tensor grad = random_tensor({2, 4, 4, 3}, 4);
  const auto gradients = [&](int which) {
    Tensors leaves = {x.clone(), w.clone(), b.clone()};
    for (int i = 0; i < 3; ++i)
      if (which < 0 || which == i) leaves[static_cast<std::size_t>(i)].set_requires_grad();
    depthwise_conv2d(leaves[0], leaves[1], leaves[2]).backward(grad);
    return leaves;
  };
  const Tensors all = gradients(-1);
  for (int i = 0; i < 3; ++i) {
    const auto at = static_cast<std::size_t>(i);
    EXPECT_THAT(gradients(i)[at].grad(), testing::HasSameBits(all[at].grad()));
  }
}

TEST(DepthwiseConv2dTest, says_what_does_not_fit) {
  const Tensor x = zeros({8, 32, 56, 56});
  EXPECT_EQ(
      shape_error([&] {
        depthwise_conv2d(x, zeros({24, 1, 3, 3}));
      }),
      "depthwise_conv2d: weight has 24 channels but input has 32 (input [8,32,56,56] float32 cpu, weight "
      "[24,1,3,3])");
  EXPECT_THAT(shape_error([&] {
                depthwise_conv2d(x, zeros({32, 2, 3, 3}));
              }),
              HasSubstr("depthwise_conv2d: "));
  EXPECT_THAT(shape_error([&] {
                depthwise_conv2d(x, zeros({32, 1, 59, 3}), {}, {.padding = 1});
              }),
              HasSubstr("depthwise_conv2d: "));
  EXPECT_THAT(shape_error([&] {
                depthwise_conv2d(x, zeros({32, 1, 3, 3}), zeros({16}));
              }),
              HasSubstr("32 output channels"));
  EXPECT_THAT(shape_error([&] {
                depthwise_conv2d(x, zeros({32, 1, 3, 3}), {}, {.stride = 2, .same_padding = true});
              }),
              HasSubstr("depthwise_conv2d: same_padding needs stride 1"));
  EXPECT_THROW(depthwise_conv2d(x, zeros({32, 1, 3, 3}, {.dtype = bfloat16})), DTypeError);
  EXPECT_THROW(depthwise_conv2d(zeros(x.shape(), {.dtype = float64}), zeros({32, 1, 3, 3})), DTypeError);
  EXPECT_THROW(depthwise_conv2d(x, Tensor()), Error);
}

RC_GTEST_PROP(DepthwiseConv2dTest, agrees_with_the_reference, ()) {
  ConvCase c = test::random_case();
  const auto number = [](std::int64_t low, std::int64_t high) { return *rc::gen::inRange(low, high + 1); };
  c.input[1] = number(1, 40);
  c.weight[0] = c.input[1] * *rc::gen::weightedElement<std::int64_t>({{3, 1}, {1, number(1, 4)}});
  c.options.groups = c.input[1];
  check_conv(depthwise, c);
  RC_ASSERT(!::testing::Test::HasFailure());
}

}  // namespace
}  // namespace lamella
