#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "tensor/door.h"

// Input gradients of planes with several outputs a channel, which one kernel takes in turn: they must be the
// sum over the outputs, rounded once.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Plan;

struct Setting {
  std::int64_t images, channels, outputs;
  Size2 in, kernel, stride, padding, dilation;
};
// Bands, whole planes, several planes of a block; strides and dilations with inputs that no output reads.
const Setting kSettings[] = {
    {2, 5, 2, {150, 180}, {9, 13}, {1, 1}, {4, 6}, {1, 1}},
    {3, 4, 3, {61, 37}, {11, 11}, {3, 3}, {5, 5}, {1, 1}},
    {2, 33, 2, {21, 13}, {9, 5}, {3, 1}, {0, 1}, {1, 3}},
    {2, 3, 2, {162, 188}, {12, 8}, {3, 3}, {20, 4}, {3, 1}},
    {2, 7, 4, {64, 61}, {7, 15}, {3, 2}, {9, 21}, {3, 3}},
    {1, 6, 8, {40, 50}, {15, 15}, {2, 1}, {7, 7}, {1, 2}},
};

Tensor numbers(const Shape& shape, std::uint64_t seed, DType dtype) {
  return testing::random_tensor(shape, seed, {.dtype = float64}).to(dtype);
}
std::vector<double> on_cpu(const Tensor& t) { return t.to(Device::cpu()).to(float64).to_vector<double>(); }

/// Of numbers of the type: 0.5 in the last place, and what float32 sums are off.
void expect_rounded_once(const std::vector<double>& got, const std::vector<double>& right, DType dtype) {
  ASSERT_EQ(got.size(), right.size());
  const double unit = dtype == bfloat16 ? 0x1p-8 : dtype == float16 ? 0x1p-11 : 0x1p-24;
  std::size_t wrong = 0, first = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(got[i] - right[i]) <= unit * std::abs(right[i]) + 1e-4) && wrong++ == 0) first = i;
  EXPECT_EQ(wrong, 0U) << "the first, " << first << " of " << got.size() << ", is " << got[first]
                       << " instead of " << right[first];
}

struct Problem {
  Conv2dGeometry geometry;
  Tensor x, g, weight;  // on the CPU, of the type
  std::vector<double> right;

  Problem(const Setting& of, DType dtype) {
    x = numbers({of.images, of.channels, of.in.h, of.in.w}, 1, dtype);
    weight = numbers({of.channels * of.outputs, 1, of.kernel.h, of.kernel.w}, 2, dtype);
    options = {of.stride, of.padding, of.dilation};
    Tensor exact = x.to(float64).clone();
    exact.set_requires_grad(true);
    const Tensor y = depthwise_conv2d(exact, weight.to(float64), {}, options);
    g = numbers(y.shape(), 3, dtype);
    y.backward(g.to(float64));
    right = on_cpu(exact.grad());
    geometry = {of.images,   of.channels, of.channels * of.outputs,
                of.channels, of.in,       Size2(y.shape()[2], y.shape()[3]),
                of.kernel,   of.stride,   of.padding,
                of.dilation};
  }
  DepthwiseConv2dOptions options;
};

TEST(DepthwiseOutputsTest, the_operator_rounds_an_input_gradient_once) {
  LAMELLA_NEEDS_GPU();
  for (const Setting& of : kSettings)
    for (const DType dtype : {bfloat16, float16, float32}) {
      SCOPED_TRACE(std::string(name(dtype)) + ", kernel " + std::to_string(of.kernel.h));
      const Problem problem(of, dtype);
      Tensor x = problem.x.to(Device::cuda()).clone();
      x.set_requires_grad(true);
      depthwise_conv2d(x, problem.weight.to(Device::cuda()), {}, problem.options)
          .backward(problem.g.to(Device::cuda()));
      expect_rounded_once(on_cpu(x.grad()), problem.right, dtype);
    }
}

TEST(DepthwiseOutputsTest, some_plans_of_outputs_in_turn_add_and_round_once) {
  LAMELLA_NEEDS_GPU();
  constexpr std::size_t kEvery = 31;  // of the plans
  for (const Setting& of : kSettings)
    for (const DType dtype : {bfloat16, float16}) {
      const Problem problem(of, dtype);
      const Tensor weight = problem.weight.to(Device::cuda()), g = problem.g.to(Device::cuda()),
                   old = numbers(problem.x.shape(), 4, dtype);
      const std::vector<double> before = on_cpu(old);
      for (const bool adds : {false, true}) {
        std::vector<double> right = problem.right;
        for (std::size_t i = 0; adds && i < right.size(); ++i) right[i] += before[i];
        const auto operands = [&](const Tensor& dx) {
          Operands o;
          o.weight = detail::read(weight), o.grad_output = detail::read(g);
          o.grad_input = detail::write(dx, "test");
          o.accumulate = adds;
          return o;
        };
        depthwise::Problem described;
        ASSERT_TRUE(cuda::depthwise::describe_problem(problem.geometry,
                                                      operands(old.to(Device::cuda()).clone()), described));
        std::size_t count = 0;
        for (const Plan& plan : depthwise::plans_for(described)) {
          if (!plan.what.ends_with(" in turn") || count++ % kEvery != 0) continue;
          SCOPED_TRACE(plan.kernel + ": " + plan.what + (adds ? ", adds" : ""));
          const void* const kernel =
              detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
          if (kernel == nullptr) GTEST_SKIP() << "no kernel can be compiled";
          const Tensor dx = old.to(Device::cuda()).clone();
          ASSERT_TRUE(cuda::depthwise::run_plan(plan, kernel, problem.geometry, operands(dx)));
          expect_rounded_once(on_cpu(dx), right, dtype);
        }
        EXPECT_GT(count, 0U);
      }
    }
}

}  // namespace
}  // namespace lamella::test
