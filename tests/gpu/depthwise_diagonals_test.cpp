#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "tensor/door.h"

// Plans of diagonals against the first plan of the problem.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Plan;

struct Setting {
  std::int64_t images, channels;
  Size2 in, kernel, padding;
  std::int64_t dilation;
  DType dtype;
  bool bias, transforms;
};

/// What the pass reads and writes.
struct Memory {
  Conv2dGeometry geometry;
  Tensor x, y, dweight, dbias, scale, shift;
  cuda::depthwise::Parts to;

  explicit Memory(const Setting& of) {
    Conv2dGeometry& g = geometry;
    g.batch = of.images, g.in_channels = g.out_channels = g.groups = of.channels;
    g.in = of.in, g.kernel = of.kernel, g.stride = Size2(1), g.padding = of.padding;
    g.dilation = Size2(of.dilation);
    const auto out = [&](std::int64_t in, std::int64_t kernel, std::int64_t padding) {
      return in + 2 * padding - (kernel - 1) * of.dilation;
    };
    g.out = {out(of.in.h, of.kernel.h, of.padding.h), out(of.in.w, of.kernel.w, of.padding.w)};
    const auto make = [](const Shape& shape, std::uint64_t seed, DType dtype) {
      return testing::random_tensor(shape, seed, {.dtype = DType::Float64})
          .to(dtype)
          .to(Device::cuda())
          .clone();
    };
    x = make({of.images, of.channels, of.in.h, of.in.w}, 1, of.dtype);
    y = make({of.images, of.channels, g.out.h, g.out.w}, 2, of.dtype);
    dweight = make({of.channels, 1, of.kernel.h, of.kernel.w}, 3, float32);
    dbias = make({of.channels}, 4, float32);
    scale = make({of.channels}, 5, float32), shift = make({of.channels}, 6, float32);
  }
  Operands operands(const Setting& of) {
    const auto floats = [](const Tensor& t) { return static_cast<float*>(detail::write(t, "test").data); };
    Operands o;
    if (of.transforms) o.transform = {floats(scale), floats(shift), 0, 1, false};
    o.input = detail::read(x);
    o.grad_output = detail::read(y);
    to.device = Device::cuda(), to.channels = of.channels, to.kernel = of.kernel;
    to.weight = detail::write(dweight, "test");
    if (of.bias) to.bias = detail::write(dbias, "test");
    o.to = &to;
    return o;
  }
  std::vector<std::vector<double>> numbers() const {
    std::vector<std::vector<double>> all;
    for (const Tensor& t : {dweight, dbias})
      all.push_back(t.to(Device::cpu()).to(float64).to_vector<double>());
    return all;
  }
};

/// False: there is no kernel for the plan.
bool run_plan(const Plan& plan, const Setting& of, Memory& memory) {
  const void* const kernel =
      detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
  return kernel != nullptr && cuda::depthwise::run_plan(plan, kernel, memory.geometry, memory.operands(of));
}

TEST(DepthwiseDiagonalsTest, plans_compute_what_the_first_does) {
  LAMELLA_NEEDS_GPU();
  constexpr std::size_t kEvery = 7;  // of the plans
  for (const Setting& of : {Setting{11, 72, Size2(7), Size2(3), Size2(1), 1, bfloat16, false, false},
                            Setting{5, 40, Size2(14), Size2(5), Size2(2), 1, bfloat16, false, true},
                            Setting{11, 72, Size2(14), Size2(3), Size2(1), 1, bfloat16, true, false},
                            Setting{5, 40, {13, 15}, Size2(5), Size2(2), 1, float16, true, false},
                            Setting{9, 24, Size2(28), {3, 5}, {1, 2}, 1, bfloat16, false, false},
                            Setting{5, 24, {30, 26}, Size2(7), Size2(3), 1, bfloat16, true, false},
                            Setting{5, 12, Size2(56), Size2(7), Size2(0), 1, float16, true, false},
                            Setting{3, 7, {112, 116}, Size2(3), Size2(2), 2, bfloat16, false, false}}) {
    Memory wanted(of);
    depthwise::Problem problem;
    ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(of), problem));
    if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
    const std::vector<Plan> plans = depthwise::plans_for(problem);
    ASSERT_FALSE(plans.empty());
    if (!run_plan(plans.front(), of, wanted)) GTEST_SKIP() << "no kernel can be compiled";
    const auto right = wanted.numbers();
    std::size_t count = 0;
    for (const Plan& plan : plans) {
      if (plan.family != Plan::Family::Diagonals || count++ % kEvery != 0) continue;
      SCOPED_TRACE(plan.kernel + ": " + plan.what);
      Memory memory(of);
      ASSERT_TRUE(run_plan(plan, of, memory));
      const auto got = memory.numbers();
      for (std::size_t t = 0; t < got.size(); ++t) {
        double difference = 0, size = 1e-12;
        for (std::size_t i = 0; i < got[t].size(); ++i) {
          const double apart = got[t][i] - right[t][i];
          difference += apart * apart, size += right[t][i] * right[t][i];
        }
        const double rounding = of.transforms ? 4e-3 : 1e-5;  // of what is transformed
        EXPECT_LT(difference, rounding * rounding * size) << "tensor " << t;
      }
    }
    EXPECT_GT(count, 0U);
  }
}

}  // namespace
}  // namespace lamella::test
