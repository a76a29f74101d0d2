#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "tensor/door.h"

// Plans of matrices, against the first plan of the problem.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Pass;
using depthwise::Plan;

struct Setting {
  std::int64_t images, channels, size, kernel, padding;
  Pass pass;
  DType dtype;
};

/// What a pass reads and writes.
struct Memory {
  Conv2dGeometry geometry;
  Tensor x, y, weight, bias;
  Pass pass;

  explicit Memory(const Setting& of) : pass(of.pass) {
    Conv2dGeometry& g = geometry;
    g.batch = of.images, g.in_channels = g.out_channels = g.groups = of.channels;
    g.in = Size2(of.size), g.kernel = Size2(of.kernel), g.stride = Size2(1), g.padding = Size2(of.padding);
    g.out = Size2(of.size + 2 * of.padding - of.kernel + 1);
    const auto make = [&](const Shape& shape, std::uint64_t seed) {
      return testing::random_tensor(shape, seed, {.dtype = DType::Float64}).to(of.dtype).to(Device::cuda());
    };
    x = make({of.images, of.channels, g.in.h, g.in.w}, 1);
    y = make({of.images, of.channels, g.out.h, g.out.w}, 2);
    weight = make({of.channels, 1, of.kernel, of.kernel}, 3), bias = make({of.channels}, 4);
  }
  Operands operands() const {
    Operands o;
    o.weight = detail::read(weight);
    if (pass == Pass::Forward) {
      o.input = detail::read(x), o.bias = detail::read(bias);
      o.output = detail::write(y, "test");
    } else {
      o.grad_output = detail::read(y);
      o.grad_input = detail::write(x, "test");
    }
    return o;
  }
  std::vector<double> results() const {
    return (pass == Pass::Forward ? y : x).to(Device::cpu()).to(float64).to_vector<double>();
  }
};

/// False: there is no kernel for the plan.
bool run_plan(const Plan& plan, const Memory& memory) {
  const void* const kernel =
      detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
  return kernel != nullptr && cuda::depthwise::run_plan(plan, kernel, memory.geometry, memory.operands());
}

TEST(DepthwiseMatricesTest, plans_compute_what_the_first_does) {
  LAMELLA_NEEDS_GPU();
  constexpr std::size_t kEvery = 9;  // of the plans
  const DType types[] = {bfloat16, float16};
  for (const DType dtype : types)
    for (const Setting& of :
         {Setting{11, 72, 14, 3, 1, Pass::Forward, dtype}, Setting{37, 40, 7, 3, 1, Pass::Forward, dtype},
          Setting{5, 12, 28, 3, 1, Pass::Input, dtype}, Setting{3, 10, 56, 3, 1, Pass::Forward, dtype},
          Setting{2, 5, 112, 3, 1, Pass::Forward, dtype}, Setting{5, 26, 13, 3, 0, Pass::Forward, dtype},
          Setting{5, 24, 28, 5, 2, Pass::Forward, dtype}, Setting{9, 24, 7, 5, 2, Pass::Input, dtype},
          Setting{5, 18, 14, 7, 3, Pass::Forward, dtype}, Setting{3, 10, 56, 7, 3, Pass::Input, dtype},
          Setting{1, 8, 30, 4, 1, Pass::Forward, dtype}}) {
      SCOPED_TRACE(std::to_string(of.channels) + "@" + std::to_string(of.size) + " k" +
                   std::to_string(of.kernel));
      const Memory wanted(of);
      depthwise::Problem problem;
      ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(), problem));
      if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
      const std::vector<Plan> plans = depthwise::plans_for(problem);
      ASSERT_FALSE(plans.empty());
      if (!run_plan(plans.front(), wanted)) GTEST_SKIP() << "no kernel can be compiled";
      const std::vector<double> right = wanted.results();
      std::size_t count = 0;
      for (const Plan& plan : plans) {
        if (plan.family != Plan::Family::Matrices || count++ % kEvery != 0) continue;
        SCOPED_TRACE(plan.kernel + ": " + plan.what);
        const Memory memory(of);
        ASSERT_TRUE(run_plan(plan, memory));
        const std::vector<double> got = memory.results();
        ASSERT_EQ(got.size(), right.size());
        double difference = 0, size = 1e-12;
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double apart = got[i] - right[i];
          difference += apart * apart, size += right[i] * right[i];
        }
        constexpr double kRounding = 4e-3;
        EXPECT_LT(difference, kRounding * kRounding * size);
      }
      EXPECT_GT(count, 0U);
    }
}

}  // namespace
}  // namespace lamella::test
