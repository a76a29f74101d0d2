#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/layers/conv.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "tests/layers/conv_cases.h"

namespace lamella {
namespace {

using test::check_conv;
using test::ConvCase;
using testing::gradcheck;
using ::testing::HasSubstr;
using testing::Passes;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};

std::string shape_error(const std::function<void()>& run) {
  try {
    run();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

void check(ConvCase c) {
  for (c.format = MemoryFormat::Contiguous;; c.format = MemoryFormat::ChannelsLast) {
    check_conv(conv2d, c);
    if (c.format == MemoryFormat::ChannelsLast) return;
  }
}

TEST(Conv2dTest, computes_what_its_formula_says) {
  const Tensor x = from_vector<double>({1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 1, 3, 3});
  const Tensor w = from_vector<double>({1, 10, 100, 1000}, {1, 1, 2, 2});
  EXPECT_THAT(conv2d(x, w),
              testing::HasSameBits(from_vector<double>({5421, 6532, 8754, 9865}, {1, 1, 2, 2})));
  EXPECT_THAT(conv2d(x, w, from_vector<double>({0.5}, {1}), {.stride = 2, .padding = 1}),
              testing::HasSameBits(from_vector<double>({1000.5, 3200.5, 7040.5, 9865.5}, {1, 1, 2, 2})));
}

TEST(Conv2dTest, pointwise) {
  check({{2, 24, 9, 7}, {40, 24, 1, 1}, {}});
  check({{3, 17, 5, 5}, {9, 17, 1, 1}, {.stride = {2, 3}}});
  check({{2, 24, 6, 5}, {15, 8, 1, 1}, {.groups = 3}});
  check({{5, 40, 1, 1}, {30, 40, 1, 1}, {}});
  check({{2, 4, 3, 3}, {5, 4, 1, 1}, {.padding = 1}});
  check({{1, 16, 40, 40}, {24, 16, 1, 1}, {}, false});
}

TEST(Conv2dTest, stem_of_three_channels) {
  check({{2, 3, 33, 31}, {32, 3, 3, 3}, {.stride = 2, .padding = 1}, false});
}

TEST(Conv2dTest, dense_kernels) {
  check({{2, 8, 13, 11}, {12, 8, 3, 3}, {.padding = 1}});
  check({{1, 5, 12, 17}, {7, 5, 3, 2}, {.stride = {2, 1}, .padding = {0, 2}, .dilation = {1, 3}}});
  check({{2, 6, 9, 9}, {10, 3, 3, 3}, {.stride = 2, .padding = 1, .groups = 2}});
  check({{1, 70, 6, 6}, {4, 70, 3, 3}, {.padding = 1}});  // several channel blocks of the input's gradient
  check({{1, 2, 1, 1}, {3, 2, 3, 3}, {.padding = 1}});    // one pixel
  check({{2, 1, 8, 8}, {6, 1, 3, 3}, {.padding = 1}});    // one channel is not depthwise
  check({{1, 4, 70, 40}, {4, 4, 3, 3}, {.padding = 1}});  // several blocks of rows
}

TEST(Conv2dTest, same_padding_keeps_the_size_and_puts_the_odd_zero_at_the_end) {
  check({{2, 3, 7, 5}, {4, 3, 3, 3}, {.same_padding = true}});
  check({{2, 3, 7, 5}, {4, 3, 2, 4}, {.dilation = {1, 3}, .same_padding = true}});
  check({{1, 3, 1, 1}, {4, 3, 2, 2}, {.same_padding = true}});
  const Tensor x = from_vector<double>({1, 2, 3}, {1, 1, 1, 3}),
               w = from_vector<double>({1, 10}, {1, 1, 1, 2});
  EXPECT_THAT(conv2d(x, w, {}, {.same_padding = true}),
              testing::HasSameBits(from_vector<double>({21, 32, 3}, {1, 1, 1, 3})));
}

TEST(Conv2dTest, half_types_and_their_float32_parameters) {
  for (const DType dtype : {float16, bfloat16})
    for (const DType parameter : {dtype, float32})
      for (const std::int64_t k : {1, 3}) {
        check({{2, 8, 7, 6}, {12, 8, k, k}, {.padding = k / 2}, true, {}, dtype, parameter});
        check({{2, 8, 7, 6},
               {12, 4, k, k},
               {.stride = 2, .padding = k / 2, .groups = 2},
               true,
               {},
               dtype,
               parameter});
      }
}

TEST(Conv2dTest, an_empty_batch_gives_zero_parameter_gradients) {
  for (const std::int64_t k : {1, 3}) check({{0, 4, 5, 5}, {6, 4, k, k}, {.padding = 1}});
}

TEST(Conv2dTest, as_many_groups_as_channels_is_depthwise) {
  const Tensor x = random_tensor({2, 6, 7, 5}, 1), w = random_tensor({12, 1, 3, 3}, 2),
               b = random_tensor({12}, 3);
  const Conv2dOptions options{.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 6};
  EXPECT_THAT(conv2d(x, w, b, options), testing::HasSameBits(depthwise_conv2d(
                                            x, w, b, {options.stride, options.padding, options.dilation})));
}

TEST(Conv2dTest, differentiates) {
  for (const MemoryFormat format : kFormats)
    for (const std::int64_t k : {1, 3})
      for (const std::int64_t groups : {1, 2}) {
        const auto leaf = [&](const Shape& shape, std::uint64_t seed) {
          return random_tensor(
              shape, seed,
              {.format = shape.size() == 4 ? format : MemoryFormat::Contiguous, .requires_grad = true});
        };
        const Conv2dOptions options{.stride = {1, 2}, .padding = k / 2, .groups = groups};
        const auto f = [&](const Tensors& t) { return conv2d(t[0], t[1], t[2], options); };
        EXPECT_TRUE(Passes(gradcheck(f, {leaf({2, 4, 5, 4}, 1), leaf({6, 4 / groups, k, k}, 2), leaf({6}, 3)},
                                     {.step = 1, .tolerance = 1e-10})));
      }
}

TEST(Conv2dTest, takes_operands_of_any_strides) {
  const Tensor x = random_tensor({2, 9, 8, 6}, 1).permute({0, 2, 3, 1});  // neither format: [2,8,6,9]
  const Tensor w = random_tensor({3, 3, 8, 5}, 2).permute({3, 2, 1, 0});  // [5,8,3,3]
  const Tensor b = random_tensor({10}, 3).slice(0, {0, 10, 2});
  const Conv2dOptions options{.padding = 1};
  EXPECT_THAT(conv2d(x, w, b, options), testing::IsClose(testing::reference::conv2d(x, w, b, 1, 1),
                                                         {.relative = 1e-12, .absolute = 1e-13}));
  // A gradient that is one number everywhere.
  Tensor leaf = w.contiguous().detach().set_requires_grad();
  conv2d(x, leaf, {}, options).backward(ones({1}, {.dtype = float64}).expand({2, 5, 6, 9}));
  EXPECT_THAT(leaf.grad(), testing::IsClose(testing::reference::conv2d_backward_weight(ones({2, 5, 6, 9}), x,
                                                                                       leaf.shape(), 1, 1),
                                            {.relative = 1e-12, .absolute = 1e-13}));
}

TEST(Conv2dTest, saves_only_what_the_gradient_reads) {
  Tensor x = random_tensor({1, 2, 4, 4}, 1), w = random_tensor({3, 2, 3, 3}, 2);
  x.set_requires_grad();
  Tensor y = conv2d(x, w);
  x.detach().fill_(0);  // not needed for its own gradient
  y.backward(ones(y.shape(), {.dtype = float64}));
  x.detach().fill_(1);
  y = conv2d(x, w);
  w.fill_(0);
  EXPECT_THROW(y.backward(ones(y.shape(), {.dtype = float64})), Error);
}

TEST(Conv2dTest, says_what_does_not_fit) {
  const Tensor x = zeros({8, 32, 56, 56});
  EXPECT_THAT(
      shape_error([&] {
        conv2d(x, zeros({24, 16, 3, 3}));
      }),
      HasSubstr(
          "conv2d: weight takes 16 channels per group but input has 32 channels in 1 groups, so it must be "
          "32 (input [8,32,56,56], weight [24,16,3,3], groups 1)"));
  EXPECT_THAT(
      shape_error([&] {
        conv2d(x, zeros({24, 32, 3, 3}), zeros({23}));
      }),
      HasSubstr(
          "conv2d: bias must have one number for each of the 24 output channels (input [8,32,56,56] float32 "
          "cpu, weight [24,32,3,3] float32 cpu, bias [23] float32 cpu)"));
  EXPECT_THAT(shape_error([&] {
                conv2d(x, zeros({24, 32, 58, 3}));
              }),
              HasSubstr("the dilated kernel covers 58"));
  EXPECT_THAT(shape_error([&] { conv2d(zeros({32, 56, 56}), zeros({24, 32, 3, 3})); }), HasSubstr("4 axes"));
  EXPECT_THAT(shape_error([&] { conv2d(x, zeros({24, 32, 3})); }), HasSubstr("4 axes"));
  const auto with = [&](const Conv2dOptions& options) {
    return shape_error([&] { conv2d(x, zeros({24, 32, 3, 3}), {}, options); });
  };
  for (const Conv2dOptions& options :
       {Conv2dOptions{.stride = 0}, Conv2dOptions{.padding = -1}, Conv2dOptions{.dilation = 0},
        Conv2dOptions{.groups = 0}, Conv2dOptions{.groups = 5}})
    EXPECT_THAT(with(options), HasSubstr("conv2d: "));
  EXPECT_THAT(with({.stride = {1, 2}, .same_padding = true}),
              HasSubstr("conv2d: same_padding needs stride 1"));
  EXPECT_THAT(with({.padding = 1, .same_padding = true}), HasSubstr("conv2d: same_padding and padding"));
  EXPECT_THROW(conv2d(x, zeros({24, 32, 3, 3}, {.dtype = float64})), DTypeError);
  EXPECT_THROW(conv2d(zeros(x.shape(), {.dtype = float64}), zeros({24, 32, 3, 3})), DTypeError);
  EXPECT_THROW(conv2d(zeros(x.shape(), {.dtype = int64}), zeros({24, 32, 3, 3}, {.dtype = int64})),
               DTypeError);
  EXPECT_THROW(conv2d(x, zeros({24, 32, 3, 3}), zeros({24}, {.dtype = bfloat16})), DTypeError);
  EXPECT_THROW(conv2d(x, Tensor()), Error);
  EXPECT_THROW(conv2d(Tensor(), x), Error);
}

RC_GTEST_PROP(Conv2dTest, agrees_with_the_reference, ()) {
  ConvCase c = test::random_case();
  const auto number = [](std::int64_t low, std::int64_t high) { return *rc::gen::inRange(low, high + 1); };
  c.options.groups = *rc::gen::weightedElement<std::int64_t>({{3, 1}, {1, number(1, 4)}});
  const std::int64_t in_group = number(1, 9) + (c.options.groups > 1 ? 1 : 0);
  c.input[1] = in_group * c.options.groups;
  c.weight[0] = number(1, 20) * c.options.groups;
  c.weight[1] = in_group;
  check_conv(conv2d, c);
  RC_ASSERT(!::testing::Test::HasFailure());
}

}  // namespace
}  // namespace lamella
