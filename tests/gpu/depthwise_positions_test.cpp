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

// Plans of positions, against the first plan of another family.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Pass;
using depthwise::Plan;

struct Setting {
  std::int64_t images, channels;
  Size2 in, kernel, stride, padding;
  Pass pass;
  DType dtype = bfloat16;
  bool bias = false, transforms = false;  ///< of the weight's gradient
};

/// What a pass reads and writes.
struct Memory {
  Conv2dGeometry geometry;
  Tensor x, y, weight, bias, dweight, dbias, scale, shift;
  cuda::depthwise::Parts to;
  Pass pass;

  explicit Memory(const Setting& of) : pass(of.pass) {
    Conv2dGeometry& g = geometry;
    g.batch = of.images, g.in_channels = g.out_channels = g.groups = of.channels;
    g.in = of.in, g.kernel = of.kernel, g.stride = of.stride, g.padding = of.padding;
    const auto out = [](std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding) {
      return (in + 2 * padding - kernel) / stride + 1;
    };
    g.out = {out(of.in.h, of.kernel.h, of.stride.h, of.padding.h),
             out(of.in.w, of.kernel.w, of.stride.w, of.padding.w)};
    const auto make = [](const Shape& shape, std::uint64_t seed, DType dtype) {
      return testing::random_tensor(shape, seed, {.dtype = DType::Float64})
          .to(dtype)
          .to(Device::cuda())
          .clone();
    };
    x = make({of.images, of.channels, g.in.h, g.in.w}, 1, of.dtype);
    y = make({of.images, of.channels, g.out.h, g.out.w}, 2, of.dtype);
    weight = make({of.channels, 1, of.kernel.h, of.kernel.w}, 3, of.dtype);
    bias = make({of.channels}, 4, of.dtype);
    dweight = make({of.channels, 1, of.kernel.h, of.kernel.w}, 5, float32);
    dbias = make({of.channels}, 6, float32);
    scale = make({of.channels}, 7, float32), shift = make({of.channels}, 8, float32);
  }
  Operands operands(const Setting& of) {
    const auto floats = [](const Tensor& t) { return static_cast<float*>(detail::write(t, "test").data); };
    Operands o;
    if (pass != Pass::Weight) o.weight = detail::read(weight);
    if (pass != Pass::Input) o.input = detail::read(x);
    if (pass == Pass::Forward) o.bias = detail::read(bias), o.output = detail::write(y, "test");
    if (pass != Pass::Forward) o.grad_output = detail::read(y);
    if (pass == Pass::Input) o.grad_input = detail::write(x, "test");
    if (pass != Pass::Weight) return o;
    if (of.transforms) o.transform = {floats(scale), floats(shift), 0, 1, false};
    to.device = Device::cuda(), to.channels = of.channels, to.kernel = of.kernel;
    to.weight = detail::write(dweight, "test");
    if (of.bias) to.bias = detail::write(dbias, "test");
    o.to = &to;
    return o;
  }
  std::vector<double> results() const {
    const auto numbers = [](const Tensor& t) { return t.to(Device::cpu()).to(float64).to_vector<double>(); };
    if (pass != Pass::Weight) return numbers(pass == Pass::Forward ? y : x);
    std::vector<double> all = numbers(dweight);
    const std::vector<double> more = numbers(dbias);
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

/// False: there is no kernel for the plan.
bool run_plan(const Plan& plan, const Setting& of, Memory& memory) {
  const void* const kernel =
      detail::cuda::kernel_for(cuda::depthwise::device_sources(), plan.kernel, Device::cuda());
  return kernel != nullptr && cuda::depthwise::run_plan(plan, kernel, memory.geometry, memory.operands(of));
}

TEST(DepthwisePositionsTest, plans_compute_what_the_first_of_others_does) {
  LAMELLA_NEEDS_GPU();
  constexpr std::size_t kEvery = 4;  // of the plans
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
    for (Setting of : {Setting{37, 72, Size2(7), Size2(3), Size2(1), Size2(1), pass, bfloat16, true},
                       Setting{64, 40, Size2(7), Size2(5), Size2(1), Size2(2), pass, float16},
                       Setting{33, 24, Size2(14), Size2(3), Size2(2), Size2(1), pass, bfloat16, true, true},
                       Setting{16, 40, Size2(14), Size2(5), Size2(2), Size2(2), pass},
                       Setting{50, 16, Size2(14), Size2(3), Size2(1), Size2(1), pass, float16, true},
                       Setting{21, 18, Size2(14), Size2(7), Size2(1), Size2(3), pass},
                       Setting{20, 16, Size2(28), Size2(3), Size2(2), Size2(1), pass, float16, true},
                       Setting{35, 24, Size2(28), Size2(5), Size2(2), Size2(2), pass},
                       Setting{35, 40, {9, 13}, {3, 5}, {1, 2}, {1, 2}, pass, float16, true}}) {
      of.transforms = of.transforms && pass == Pass::Weight;
      SCOPED_TRACE(std::to_string(of.channels) + "@" + std::to_string(of.in.h) + ", pass " +
                   std::to_string(static_cast<int>(pass)));
      Memory wanted(of);
      depthwise::Problem problem;
      ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(of), problem));
      if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
      const std::vector<Plan> plans = depthwise::plans_for(problem);
      const auto is_one = [](const Plan& plan) { return plan.family == Plan::Family::Positions; };
      const auto other = std::find_if_not(plans.begin(), plans.end(), is_one);
      ASSERT_NE(other, plans.end());
      if (!run_plan(*other, of, wanted)) GTEST_SKIP() << "no kernel can be compiled";
      const std::vector<double> right = wanted.results();
      std::size_t count = 0;
      for (const Plan& plan : plans) {
        if (!is_one(plan) || count++ % kEvery != 0) continue;
        SCOPED_TRACE(plan.kernel + ": " + plan.what);
        Memory memory(of);
        ASSERT_TRUE(run_plan(plan, of, memory));
        const std::vector<double> got = memory.results();
        ASSERT_EQ(got.size(), right.size());
        double difference = 0, size = 1e-12;
        for (std::size_t i = 0; i < got.size(); ++i) {
          const double apart = got[i] - right[i];
          difference += apart * apart, size += right[i] * right[i];
        }
        const double rounding = pass != Pass::Weight || of.transforms ? 4e-3 : 1e-5;
        EXPECT_LT(difference, rounding * rounding * size);
      }
      EXPECT_TRUE(count > 0 || of.in.h == 28);
    }
}

}  // namespace
}  // namespace lamella::test
