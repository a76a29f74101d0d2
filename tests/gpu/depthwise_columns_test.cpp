#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "tensor/door.h"

// Plans of columns, against the first plan of another family.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Pass;
using depthwise::Plan;

struct Setting {
  std::int64_t images, channels, height, width, kernel, padding;
  Pass pass;
};

/// What a pass reads and writes.
struct Memory {
  Conv2dGeometry geometry;
  Tensor x, y, weight, bias;
  cuda::depthwise::Parts to;
  Pass pass;

  explicit Memory(const Setting& of) : pass(of.pass) {
    Conv2dGeometry& g = geometry;
    g.batch = of.images, g.in_channels = g.out_channels = g.groups = of.channels;
    g.in = Size2(of.height, of.width), g.kernel = Size2(of.kernel), g.stride = Size2(1);
    g.padding = Size2(of.padding);
    const std::int64_t less = of.kernel - 1 - 2 * of.padding;
    g.out = Size2(of.height - less, of.width - less);
    const auto make = [&](const Shape& shape, std::uint64_t seed) {
      return testing::random_tensor(shape, seed, {.dtype = DType::Float64}).to(float32).to(Device::cuda());
    };
    x = make({of.images, of.channels, g.in.h, g.in.w}, 1);
    y = make({of.images, of.channels, g.out.h, g.out.w}, 2);
    weight = make({of.channels, 1, of.kernel, of.kernel}, 3), bias = make({of.channels}, 4);
  }
  Operands operands() {
    Operands o;
    if (pass != Pass::Weight) o.weight = detail::read(weight);
    if (pass != Pass::Input) o.input = detail::read(x);
    if (pass == Pass::Forward) {
      o.bias = detail::read(bias);
      o.output = detail::write(y, "test");
    } else {
      o.grad_output = detail::read(y);
    }
    if (pass == Pass::Input) o.grad_input = detail::write(x, "test");
    to.device = Device::cuda(), to.channels = geometry.in_channels, to.kernel = geometry.kernel;
    to.weight = detail::write(weight, "test"), to.bias = detail::write(bias, "test");
    if (pass == Pass::Weight) o.to = &to;
    return o;
  }
  std::vector<double> results() const {
    std::vector<double> all;
    for (const Tensor& t : {pass == Pass::Forward ? y : pass == Pass::Input ? x : weight, bias}) {
      const std::vector<double> some = t.to(Device::cpu()).to(float64).to_vector<double>();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
};

/// False: there is no kernel for the plan.
bool run_plan(const Plan& plan, Memory& memory) {
  const void* const kernel =
      detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
  return kernel != nullptr && cuda::depthwise::run_plan(plan, kernel, memory.geometry, memory.operands());
}

TEST(DepthwiseColumnsTest, plans_compute_what_another_family_does) {
  LAMELLA_NEEDS_GPU();
  constexpr std::size_t kEvery = 5;  // of the plans
  for (const Setting& of :
       {Setting{3, 22, 56, 56, 7, 3, Pass::Forward}, Setting{3, 22, 56, 56, 7, 3, Pass::Input},
        Setting{3, 22, 56, 56, 7, 3, Pass::Weight}, Setting{5, 42, 14, 14, 7, 3, Pass::Forward},
        Setting{5, 42, 14, 14, 7, 3, Pass::Weight}, Setting{5, 26, 28, 28, 5, 2, Pass::Input},
        Setting{5, 26, 28, 28, 5, 2, Pass::Weight}, Setting{9, 96, 7, 7, 5, 2, Pass::Forward},
        Setting{9, 96, 7, 7, 5, 2, Pass::Weight}, Setting{2, 9, 37, 61, 9, 1, Pass::Forward},
        Setting{2, 9, 37, 61, 9, 1, Pass::Input}, Setting{2, 9, 37, 61, 9, 1, Pass::Weight},
        Setting{1, 5, 150, 96, 5, 4, Pass::Forward}, Setting{1, 5, 150, 96, 5, 4, Pass::Weight}}) {
    SCOPED_TRACE(std::to_string(of.channels) + "@" + std::to_string(of.width) + " k" +
                 std::to_string(of.kernel) + " pass " + std::to_string(static_cast<int>(of.pass)));
    Memory wanted(of);
    depthwise::Problem problem;
    ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(), problem));
    if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
    const std::vector<Plan> plans = depthwise::plans_for(problem);
    const auto other = std::find_if(plans.begin(), plans.end(),
                                    [](const Plan& plan) { return plan.family != Plan::Family::Columns; });
    ASSERT_TRUE(other != plans.end());
    if (!run_plan(*other, wanted)) GTEST_SKIP() << "no kernel can be compiled";
    const std::vector<double> right = wanted.results();
    std::size_t count = 0;
    for (const Plan& plan : plans) {
      if (plan.family != Plan::Family::Columns || count++ % kEvery != 0) continue;
      SCOPED_TRACE(plan.kernel + ": " + plan.what);
      Memory memory(of);
      ASSERT_TRUE(run_plan(plan, memory));
      const std::vector<double> got = memory.results();
      ASSERT_EQ(got.size(), right.size());
      double difference = 0, size = 1e-12;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double apart = got[i] - right[i];
        difference += apart * apart, size += right[i] * right[i];
      }
      constexpr double kRounding = 3e-6;
      EXPECT_LT(difference, kRounding * kRounding * size);
    }
    EXPECT_GT(count, 0U);
  }
}

}  // namespace
}  // namespace lamella::test
