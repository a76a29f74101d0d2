#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "depthwise_plan_case.h"
#include "devices.h"

// Phases, and rolling rows and planes, as depthwise_families_test.cpp has the other families of depthwise
// kernels.
namespace lamella::test {
namespace {

using depthwise::Pass;
using depthwise::Plan;
using Family = Plan::Family;

constexpr auto kLast = MemoryFormat::ChannelsLast;
constexpr auto kPlanes = MemoryFormat::Contiguous;

class DepthwisePhasesTest : public ::testing::TestWithParam<std::tuple<Pass, MemoryFormat>> {};

TEST_P(DepthwisePhasesTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  const auto [pass, format] = GetParam();
  std::vector<PlanSetting> settings;
  const auto add = [&, pass = pass, format = format](std::int64_t channels, Size2 in, Size2 kernel,
                                                     Size2 stride, Size2 dilation, std::int64_t outputs,
                                                     DType dtype) {
    constexpr std::int64_t kImages = 7;
    PlanSetting of{pass, dtype, format, kImages, channels, in, kernel};
    of.bias = pass != Pass::Input;
    of.padding = {kernel.h / 2, kernel.w / 2 * dilation.w}, of.stride = stride, of.dilation = dilation;
    of.outputs = outputs;
    settings.push_back(of);
  };
  add(11, {60, 47}, {7, 10}, Size2(1), Size2(1), 1, float32);
  add(24, {33, 38}, {11, 4}, {2, 3}, {1, 2}, 1, bfloat16);
  add(3, {101, 96}, {4, 9}, {3, 1}, {1, 3}, 2, float16);
  add(72, Size2(14), Size2(5), Size2(2), Size2(2), 1, bfloat16);
  add(5, {44, 130}, {15, 15}, {1, 2}, {3, 1}, 2, float32);
  expect_plans_agree(settings, of_family(Family::Phases), 6, [](const PlanSetting& of) {
    return of.pass == Pass::Weight ? 1e-5 : of.dtype == float32 ? 4e-6 : 4e-3;
  });
  if (pass == Pass::Weight) return;
  // Those of the matrix units are few among them, and need not be among the first of all problems.
  std::erase_if(settings, [](const PlanSetting& of) { return of.dtype == float32; });
  expect_plans_agree(
      settings, [](const Plan& plan) { return plan.kernel.starts_with("multiply_phases<"); }, 2,
      always(4e-3));
}
INSTANTIATE_TEST_SUITE_P(Passes, DepthwisePhasesTest,
                         ::testing::Combine(::testing::Values(Pass::Forward, Pass::Input, Pass::Weight),
                                            ::testing::Values(kPlanes, kLast)));

class DepthwiseRollingTest : public ::testing::TestWithParam<std::tuple<Pass, MemoryFormat>> {};

TEST_P(DepthwiseRollingTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  const auto [pass, format] = GetParam();
  std::vector<PlanSetting> settings;
  const auto add = [&, pass = pass, format = format](std::int64_t channels, Size2 in, Size2 kernel,
                                                     Size2 padding, Size2 stride, Size2 dilation,
                                                     std::int64_t outputs, DType dtype) {
    constexpr std::int64_t kImages = 5;
    PlanSetting of{pass, dtype, format, kImages, channels, in, kernel, padding, stride, dilation};
    of.bias = pass != Pass::Input;
    of.accumulates = pass == Pass::Input && channels == 33;
    of.outputs = outputs;
    settings.push_back(of);
  };
  add(24, {60, 47}, {7, 10}, {3, 5}, Size2(1), Size2(1), 1, float32);
  add(33, {33, 38}, {11, 4}, {5, 4}, {2, 3}, {1, 2}, 1, bfloat16);
  add(3, {71, 66}, {4, 9}, {2, 12}, {3, 1}, {1, 3}, 2, float16);
  add(130, Size2(14), Size2(5), Size2(4), Size2(2), Size2(2), 1, bfloat16);
  add(5, {44, 90}, {15, 15}, {21, 7}, {1, 2}, {3, 1}, 2, float32);
  add(42, {24, 20}, {12, 12}, {28, 5}, {2, 3}, {3, 2}, 1, float16);
  if (format == kLast) {  // of few taps, too
    add(3, {71, 66}, {3, 2}, {2, 1}, {1, 3}, {3, 1}, 2, float16);
    if (pass != Pass::Input) add(33, {38, 45}, Size2(1), Size2(0), {3, 2}, Size2(1), 1, bfloat16);
    if (pass == Pass::Weight) add(48, Size2(28), Size2(3), Size2(1), Size2(1), Size2(1), 2, bfloat16);
  }
  const Family family = format == kLast ? Family::Rolling : Family::RollingPlanes;
  expect_plans_agree(settings, of_family(family), 8, [](const PlanSetting& of) {
    return of.pass == Pass::Weight ? 1e-5 : of.dtype == float32 ? 4e-6 : 4e-3;
  });
}
INSTANTIATE_TEST_SUITE_P(Passes, DepthwiseRollingTest,
                         ::testing::Combine(::testing::Values(Pass::Forward, Pass::Input, Pass::Weight),
                                            ::testing::Values(kPlanes, kLast)));

/// Of a tensor of one column, as a reshape gives it, the column's stride may be anything.
TEST(DepthwiseRollingColumnTest, the_stride_of_a_single_column_does_not_matter) {
  LAMELLA_NEEDS_GPU();
  constexpr std::int64_t kImages = 16, kChannels = 24;
  const PlanSetting of{Pass::Input, float32, kLast, kImages, kChannels, Size2(7), Size2(7), Size2(0)};
  PlanCase wanted(of), other(of);
  other.y = wanted.y.reshape({kImages, kChannels}).reshape({kImages, kChannels, 1, 1});
  ASSERT_NE(other.y.strides()[3], wanted.y.strides()[3]);
  depthwise::Problem problem;
  ASSERT_TRUE(other.describe(problem));
  if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
  std::size_t count = 0;
  for (const Plan& plan : depthwise::plans_for(problem)) {
    constexpr std::size_t kEvery = 8;
    if (plan.family != Family::Rolling || count++ % kEvery != 0) continue;
    SCOPED_TRACE(plan.kernel + ": " + plan.what);
    if (!wanted.run(plan)) GTEST_SKIP() << "no kernel can be compiled";
    ASSERT_TRUE(other.run(plan));
    EXPECT_EQ(other.numbers(), wanted.numbers());
  }
  EXPECT_GT(count, 0U);
}

}  // namespace
}  // namespace lamella::test
