#include "depthwise_plan_case.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"
#include "tensor/door.h"

namespace lamella::test {

using cuda::depthwise::Operands;
using depthwise::Hook;
using depthwise::Pass;
using depthwise::Plan;

PlanCase::PlanCase(const PlanSetting& setting) : of_(setting) {
  const PlanSetting& of = of_;
  const auto out = [](std::int64_t in, std::int64_t kernel, std::int64_t padding, std::int64_t stride,
                      std::int64_t dilation) {
    return (in + 2 * padding - (kernel - 1) * dilation - 1) / stride + 1;
  };
  Conv2dGeometry& g = geometry_;
  g.batch = of.images, g.in_channels = g.groups = of.channels, g.out_channels = of.channels * of.outputs;
  g.in = of.in, g.kernel = of.kernel, g.stride = of.stride, g.padding = of.padding, g.dilation = of.dilation;
  g.out = {out(of.in.h, of.kernel.h, of.padding.h, of.stride.h, of.dilation.h),
           out(of.in.w, of.kernel.w, of.padding.w, of.stride.w, of.dilation.w)};
  std::uint64_t seed = 0;
  const auto make = [&](const Shape& shape, DType dtype, MemoryFormat format = {}) {
    return testing::random_tensor(shape, ++seed, {.dtype = DType::Float64, .format = format})
        .to(dtype)
        .to(Device::cuda())
        .clone();
  };
  x = make({of.images, of.channels, g.in.h, g.in.w}, of.dtype, of.format);
  y = make({of.images, g.out_channels, g.out.h, g.out.w}, of.dtype, of.format);
  dx = make(x.shape(), of.dtype, of.format);
  weight = make({g.out_channels, 1, g.kernel.h, g.kernel.w}, of.tap_dtype);
  bias_ = make({g.out_channels}, of.tap_dtype);
  // Gradients in float32 but where the small types' own are asked for with taps of them.
  const DType gradient = of.accumulates ? of.tap_dtype : float32;
  dweight_ = make(weight.shape(), gradient), dbias_ = make({g.out_channels}, gradient);
  for (Tensor* const per_channel : {&scale_, &shift_, &center_}) *per_channel = make({of.channels}, float32);
  for (Tensor* const result : {&first_, &second_}) *result = make({g.out_channels}, float32);
}

Operands PlanCase::operands() {
  const auto floats = [](const Tensor& t) { return static_cast<float*>(detail::write(t, "test").data); };
  const bool forward = of_.pass == Pass::Forward, input = of_.pass == Pass::Input || of_.pass == Pass::Both,
             weighs = of_.pass == Pass::Weight || of_.pass == Pass::Both;
  Operands o;
  o.hook = of_.hook;
  o.accumulate = of_.accumulates && of_.pass != Pass::Weight;
  if (of_.pass != Pass::Weight) o.weight = detail::read(weight);
  if (of_.pass != Pass::Input || of_.hook != Hook::None) o.input = detail::read(x);
  if (of_.transforms || of_.hook != Hook::None) o.transform = {floats(scale_), floats(shift_), 0, 1, false};
  if (of_.hook == Hook::Statistics) o.results.mean = floats(first_), o.results.variance = floats(second_);
  if (of_.hook == Hook::NormSums)
    o.results.center = floats(center_), o.results.sum = floats(first_), o.results.product = floats(second_);
  if (forward) {
    o.output = detail::write(y, "test");
    if (of_.bias) o.bias = detail::read(bias_);
  } else {
    o.grad_output = detail::read(y);
  }
  if (input) o.grad_input = detail::write(dx, "test");
  if (weighs) {
    to_.device = Device::cuda(), to_.channels = geometry_.out_channels, to_.kernel = geometry_.kernel;
    to_.weight = detail::write(dweight_, "test");
    if (of_.bias) to_.bias = detail::write(dbias_, "test");
    to_.add_weight = to_.add_bias = of_.accumulates;
    o.to = &to_;
  }
  return o;
}

bool PlanCase::describe(depthwise::Problem& problem) {
  return cuda::depthwise::describe_problem(geometry_, operands(), problem);
}

bool PlanCase::run(const Plan& plan) {
  const void* const kernel =
      detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
  return kernel != nullptr && cuda::depthwise::run_plan(plan, kernel, geometry_, operands());
}

std::vector<std::vector<double>> PlanCase::numbers() const {
  std::vector<std::vector<double>> all;
  for (const Tensor& t : {x, y, dx, dweight_, dbias_, first_, second_})
    all.push_back(t.to(Device::cpu()).to(float64).to_vector<double>());
  return all;
}

void expect_close(const PlanCase& got, const PlanCase& wanted, double rounding) {
  const auto numbers = got.numbers(), right = wanted.numbers();
  for (std::size_t t = 0; t < numbers.size(); ++t) {
    double difference = 0, size = 1e-12;
    for (std::size_t i = 0; i < numbers[t].size(); ++i) {
      const double apart = numbers[t][i] - right[t][i];
      difference += apart * apart, size += right[t][i] * right[t][i];
    }
    EXPECT_LT(difference, rounding * rounding * size) << "tensor " << t;
  }
}

void expect_plans_agree(const std::vector<PlanSetting>& settings,
                        const std::function<bool(const Plan&)>& is_wanted, std::size_t every,
                        const std::function<double(const PlanSetting&)>& rounding) {
  for (const PlanSetting& of : settings) {
    PlanCase wanted(of);
    depthwise::Problem problem;
    ASSERT_TRUE(wanted.describe(problem));
    SCOPED_TRACE(depthwise::text_of(problem));
    if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
    const std::vector<Plan> plans = depthwise::plans_for(problem);
    const auto other = std::find_if_not(plans.begin(), plans.end(), is_wanted);
    ASSERT_NE(other, plans.end());
    if (!wanted.run(*other)) GTEST_SKIP() << "no kernel can be compiled";
    std::size_t count = 0;
    for (const Plan& plan : plans) {
      if (!is_wanted(plan) || count++ % every != 0) continue;
      SCOPED_TRACE(plan.kernel + ": " + plan.what);
      PlanCase one(of);
      ASSERT_TRUE(one.run(plan));
      expect_close(one, wanted, rounding(of));
    }
    EXPECT_GT(count, 0U);
  }
}

}  // namespace lamella::test
