#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/memory.h"
#include "lamella/core/stream.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/testing/matchers.h"
#include "raw_pointers.h"

namespace lamella::test {
namespace {

using ::testing::AllOf;
using testing::HasSameBits;
using ::testing::HasSubstr;

// The same kernels on memory of the same alignment: the same bits.
void expect_equal(RawProblem p) {
  const Tensors wanted = p.expected();
  p.forward();
  EXPECT_THAT(p.y, HasSameBits(wanted[0]));
  p.backward();
  EXPECT_THAT(p.gx, HasSameBits(wanted[1]));
  EXPECT_THAT(p.gw, HasSameBits(wanted[2]));
  EXPECT_THAT(p.gb, HasSameBits(wanted[3]));
}

TEST(DepthwiseRawPointersTest, is_the_operator) {
  LAMELLA_NEEDS_TEST_DEVICE();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const DType dtype : {float32, float64, bfloat16, float16}) {
      SCOPED_TRACE(std::string(name(format)) + " " + name(dtype));
      expect_equal({{2, 16, 15, 13}, {16, 1, 3, 3}, {.padding = 1}, format, dtype, dtype});
      expect_equal({{2, 6, 12, 9},
                    {12, 1, 3, 5},
                    {.stride = {1, 2}, .padding = {1, 2}, .dilation = {2, 1}},
                    format,
                    dtype,
                    dtype == float64 ? float64 : float32});
      expect_equal({{2, 8, 10, 11}, {8, 1, 3, 1}, {.stride = 2}, format, dtype, dtype});
    }
}

TEST(DepthwiseRawPointersTest, padding_that_keeps_the_size) {
  LAMELLA_NEEDS_TEST_DEVICE();
  expect_equal({{2, 5, 8, 7}, {5, 1, 2, 4}, {.same_padding = true}});
  expect_equal({{1, 3, 1, 1}, {3, 1, 2, 2}, {.same_padding = true}});
}

TEST(DepthwiseRawPointersTest, each_gradient_alone_and_added) {
  LAMELLA_NEEDS_TEST_DEVICE();
  const testing::Tolerance rounding{1e-5, 1e-5};
  RawProblem p({3, 8, 14, 14}, {8, 1, 3, 3}, {.padding = 1});
  const Tensors wanted = p.expected();
  p.backward(true, false, false);
  EXPECT_THAT(p.gx, testing::IsClose(wanted[1], rounding));
  p.backward(false, true, false);
  EXPECT_THAT(p.gw, testing::IsClose(wanted[2], rounding));
  p.backward(false, false, true);
  EXPECT_THAT(p.gb, testing::IsClose(wanted[3], rounding));
  p.backward(false, false, false);
  EXPECT_EQ(p.call.workspace_bytes, 0);

  p.gx.fill_(1);
  p.gw.fill_(2);
  p.gb.fill_(3);
  p.call.accumulate = true;
  p.backward();
  EXPECT_THAT(p.gx, testing::IsClose(add(wanted[1], 1), rounding));
  EXPECT_THAT(p.gw, testing::IsClose(add(wanted[2], 2), rounding));
  EXPECT_THAT(p.gb, testing::IsClose(add(wanted[3], 3), rounding));
}

TEST(DepthwiseRawPointersTest, strides_are_those_given_or_dense) {
  LAMELLA_NEEDS_TEST_DEVICE();
  RawProblem p({2, 4, 6, 5}, {4, 1, 3, 3}, {.padding = 1});
  const Tensors wanted = p.expected();
  for (kernels::Operand* operand : {&p.call.input, &p.call.weight, &p.call.bias}) operand->strides = {};
  p.forward();
  EXPECT_THAT(p.y, HasSameBits(wanted[0]));
  // Every other column of a wider input.
  const Tensor wide = zeros({2, 4, 6, 10}, {.device = test_device()});
  wide.slice(3, {0, 10, 2}).copy_(p.x);
  p.call.input = operand(wide.slice(3, {0, 10, 2}));
  p.forward();
  EXPECT_THAT(p.y, testing::IsClose(wanted[0], {1e-5, 1e-5}));
}

TEST(DepthwiseRawPointersTest, an_empty_batch_has_no_addresses) {
  LAMELLA_NEEDS_TEST_DEVICE();
  RawProblem p({0, 4, 6, 5}, {4, 1, 3, 3}, {.padding = 1});
  p.call.input = p.call.grad_output = {};
  depthwise_conv2d_forward(p.call);
  p.call.grad_weight = result(p.gw), p.call.grad_bias = result(p.gb);
  EXPECT_EQ(depthwise_conv2d_workspace_bytes(p.call), 0);
  depthwise_conv2d_backward(p.call);
  EXPECT_THAT(p.gw, HasSameBits(zeros({4, 1, 3, 3})));
  EXPECT_THAT(p.gb, HasSameBits(zeros({4})));
}

TEST(DepthwiseRawPointersTest, takes_no_memory_of_the_device) {
  LAMELLA_NEEDS_TEST_DEVICE();
  RawProblem p({8, 32, 28, 28}, {32, 1, 3, 3}, {.padding = 1});
  p.forward();
  p.backward();
  if (p.call.device.is_cpu()) return;  // its kernels have scratch of their own
  const auto before = memory_stats(p.call.device).allocations;
  depthwise_conv2d_prepare(p.call);
  depthwise_conv2d_forward(p.call);
  depthwise_conv2d_backward(p.call);
  EXPECT_EQ(memory_stats(p.call.device).allocations, before);
  synchronize(p.call.device);
  ASSERT_GT(p.call.workspace_bytes, 0);
  p.gx.fill_(7);
  p.call.workspace_bytes -= 1;
  EXPECT_THROW(depthwise_conv2d_backward(p.call), Error);
  EXPECT_THAT(p.gx, HasSameBits(full(p.gx.shape(), 7)));
}

std::string thrown(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(DepthwiseRawPointersTest, says_what_does_not_fit) {
  LAMELLA_NEEDS_TEST_DEVICE();
  const RawProblem good({2, 4, 6, 5}, {4, 1, 3, 3}, {.padding = 1});
  const auto with = [&](const std::function<void(kernels::DepthwiseConv2d&)>& change) {
    kernels::DepthwiseConv2d call = good.call;
    call.output = result(good.y);
    change(call);
    return thrown([&] { depthwise_conv2d_forward(call); });
  };
  EXPECT_EQ(with([](auto&) {}), "nothing was thrown");
  EXPECT_THAT(with([](auto& call) { call.input.data = nullptr; }),
              AllOf(HasSubstr("kernels::depthwise_conv2d_forward: input is missing"),
                    HasSubstr("(input [2,4,6,5] float32 "),
                    HasSubstr("weight [4,1,3,3] float32, output [2,4,6,5])")));
  EXPECT_THAT(with([](auto& call) { call.weight.data = nullptr; }), HasSubstr("weight is missing"));
  EXPECT_THAT(with([](auto& call) { call.output.data = nullptr; }), HasSubstr("output is missing"));
  EXPECT_THAT(with([](auto& call) { call.geometry.groups = 2; }),
              HasSubstr("groups must equal the 4 input channels"));
  EXPECT_THAT(with([](auto& call) { call.geometry.out_channels = 6; }),
              HasSubstr("divide the output channels"));
  EXPECT_THAT(
      with([](auto& call) { call.geometry.out.h = 8; }),
      HasSubstr("output height is 8, must be 6 (input 6, kernel 3, stride 1, padding 1, dilation 1)"));
  EXPECT_THAT(with([](auto& call) { call.geometry.stride.w = 0; }), HasSubstr("stride 0 must be at least 1"));
  EXPECT_THAT(with([](auto& call) { call.geometry.in.w = 0; }), HasSubstr("input size 0 must be at least 1"));
  EXPECT_THAT(with([](auto& call) { call.geometry.batch = -1; }),
              HasSubstr("batch size must not be negative"));
  EXPECT_THAT(with([](auto& call) { call.geometry.padding.h = 1 << 21; }),
              HasSubstr("padding 2097152 must be"));
  EXPECT_THAT(with([](auto& call) {
                call.input.strides = {1, 2};
              }),
              HasSubstr("input [2,4,6,5] has 4 axes, but strides"));
  EXPECT_THAT(with([](auto& call) { call.output.strides = {0, 30, 5, 1}; }), HasSubstr("overlaps itself"));
  EXPECT_THAT(with([](auto& call) { call.dtype = int32; }), HasSubstr("input must be floating"));
  EXPECT_THAT(with([](auto& call) { call.parameter_dtype = bfloat16; }),
              HasSubstr("must be float32 like the input"));
  EXPECT_THAT(with([](auto& call) { call.dtype = float64; }), HasSubstr("must be float64 like the input"));
  EXPECT_THAT(with([](auto& call) { call.device = Device::cuda(99); }),
              HasSubstr("cuda:99 is not available"));

  kernels::DepthwiseConv2d call = good.call;
  call.grad_input = result(good.gx);
  call.weight.data = nullptr;
  EXPECT_THAT(thrown([&] { depthwise_conv2d_backward(call); }),
              HasSubstr("kernels::depthwise_conv2d_backward: weight is missing"));
  call.grad_output.data = nullptr;
  EXPECT_THAT(thrown([&] { depthwise_conv2d_workspace_bytes(call); }), HasSubstr("grad_output is missing"));
}

}  // namespace
}  // namespace lamella::test
