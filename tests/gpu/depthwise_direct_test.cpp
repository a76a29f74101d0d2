#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"
#include "tensor/door.h"

// Direct plans of small problems against the first plan of another family.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Pass;
using depthwise::Plan;

struct Setting {
  Pass pass;
  DType dtype, tap_dtype;
  std::int64_t images, channels, size, kernel, stride, padding, dilation = 1;
  bool accumulate = false, transforms = false, bias = false;
};

/// What a pass reads and writes.
struct Memory {
  Conv2dGeometry geometry;
  Tensor x, y, dx, weight, bias, scale, shift, dweight, dbias;
  cuda::depthwise::Parts to;

  explicit Memory(const Setting& of) {
    Conv2dGeometry& g = geometry;
    g.batch = of.images, g.in_channels = g.out_channels = g.groups = of.channels;
    g.in = Size2(of.size), g.kernel = Size2(of.kernel), g.stride = Size2(of.stride);
    g.padding = Size2(of.padding), g.dilation = Size2(of.dilation);
    g.out = Size2((of.size + 2 * of.padding - of.dilation * (of.kernel - 1) - 1) / of.stride + 1);
    const auto make = [](const Shape& shape, std::uint64_t seed, DType dtype, MemoryFormat format = {}) {
      return testing::random_tensor(shape, seed, {.dtype = DType::Float64, .format = format})
          .to(dtype)
          .to(Device::cuda())
          .clone();
    };
    constexpr auto kLast = MemoryFormat::ChannelsLast;
    x = make({of.images, of.channels, of.size, of.size}, 1, of.dtype, kLast);
    y = make({of.images, of.channels, g.out.h, g.out.w}, 2, of.dtype, kLast);
    dx = make({of.images, of.channels, of.size, of.size}, 3, of.dtype, kLast);
    weight = make({of.channels, 1, of.kernel, of.kernel}, 4, of.tap_dtype);
    bias = make({of.channels}, 5, of.tap_dtype);
    scale = make({of.channels}, 6, float32), shift = make({of.channels}, 7, float32);
    dweight = make({of.channels, 1, of.kernel, of.kernel}, 8, of.tap_dtype);
    dbias = make({of.channels}, 9, of.tap_dtype);
  }
  Operands operands(const Setting& of) {
    const auto floats = [](const Tensor& t) { return static_cast<float*>(detail::write(t, "test").data); };
    Operands o;
    if (of.pass == Pass::Weight) {
      to.device = Device::cuda(), to.channels = of.channels, to.kernel = geometry.kernel;
      to.weight = detail::write(dweight, "test");
      if (of.bias) to.bias = detail::write(dbias, "test");
      to.add_weight = to.add_bias = of.accumulate;
      o.input = detail::read(x), o.grad_output = detail::read(y), o.to = &to;
      if (of.transforms) o.transform = {floats(scale), floats(shift), 0, 1, false};
      return o;
    }
    o.weight = detail::read(weight);
    o.accumulate = of.accumulate;
    if (of.pass == Pass::Forward) {
      o.input = detail::read(x), o.output = detail::write(y, "test");
      if (of.bias) o.bias = detail::read(bias);
      if (of.transforms) o.transform = {floats(scale), floats(shift), 0, 1, false};
    } else {
      o.grad_output = detail::read(y), o.grad_input = detail::write(dx, "test");
    }
    return o;
  }
  std::vector<std::vector<double>> numbers() const {
    std::vector<std::vector<double>> all;
    for (const Tensor& t : {x, y, dx, dweight, dbias})
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

TEST(DepthwiseDirectTest, direct_plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  constexpr std::size_t kEvery = 24;  // of the plans: each is compiled
  constexpr std::array<std::pair<DType, DType>, 4> kTypes{
      {{float32, float32}, {bfloat16, float32}, {bfloat16, bfloat16}, {float16, float16}}};
  std::vector<Setting> settings;
  const auto add = [&](Pass pass, std::int64_t images, std::int64_t channels, std::int64_t size,
                       std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                       std::int64_t dilation = 1) {
    const auto& [dtype, tap_dtype] = kTypes[settings.size() % kTypes.size()];
    settings.push_back({pass, dtype, tap_dtype, images, channels, size, kernel, stride, padding, dilation});
  };
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
    add(pass, 1, 960, 7, 3, 1, 1);
    add(pass, 2, 36, 23, 3, 2, 1);
    add(pass, 1, 21, 14, 5, 1, 2);
    add(pass, 3, 24, 15, 3, 1, 0, 2);
    add(pass, 1, 40, 12, 5, 2, 1);
    add(pass, 2, 10, 9, 2, 2, 0);
    add(pass, 1, 16, 20, 3, 2, 2, 2);
  }
  const std::size_t plain = settings.size();
  for (std::size_t i = 0; i < plain; i += 3) {
    Setting more = settings[i];
    more.accumulate = more.pass != Pass::Forward;
    if (more.pass != Pass::Input) more.bias = true, more.transforms = i != 3;
    settings.push_back(more);
  }
  for (const Setting& of : settings) {
    Memory wanted(of);
    depthwise::Problem problem;
    ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(of), problem));
    SCOPED_TRACE(depthwise::text_of(problem));
    const std::vector<Plan> plans = depthwise::plans_for(problem);
    const auto other = std::find_if(plans.begin(), plans.end(),
                                    [](const Plan& plan) { return plan.family == Plan::Family::Pixels; });
    ASSERT_NE(other, plans.end());
    if (!run_plan(*other, of, wanted)) GTEST_SKIP() << "no kernel can be compiled";
    const auto right = wanted.numbers();
    std::size_t count = 0;
    for (const Plan& plan : plans) {
      if (plan.family != Plan::Family::Direct || count++ % kEvery != 0) continue;
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
        // Pixels round what a transform gives, and each rounds its results.
        const double rounding = of.dtype == float32 ? 1e-6 : of.dtype == float16 ? 1e-3 : 8e-3;
        EXPECT_LT(difference, rounding * rounding * size) << "tensor " << t;
      }
    }
    EXPECT_GT(count, 0U);
  }
}

TEST(DepthwiseDirectTest, taps_need_no_alignment) {
  LAMELLA_NEEDS_GPU();
  const Setting of{Pass::Forward, float32, float32, 1, 64, 14, 3, 1, 1};
  Memory wanted(of), memory(of);
  depthwise::Problem problem;
  ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(of), problem));
  const std::vector<Plan> plans = depthwise::plans_for(problem);
  const auto direct = std::find_if(plans.begin(), plans.end(),
                                   [](const Plan& plan) { return plan.family == Plan::Family::Direct; });
  ASSERT_NE(direct, plans.end());
  if (!run_plan(*direct, of, wanted)) GTEST_SKIP() << "no kernel can be compiled";
  const std::int64_t taps = wanted.weight.numel();
  Tensor longer = zeros({taps + 1}, {.dtype = float32, .device = Device::cuda()});
  Tensor moved = longer.slice(0, {1, taps + 1}).reshape(wanted.weight.shape());
  moved.copy_(wanted.weight);
  memory.weight = moved;
  ASSERT_TRUE(run_plan(*direct, of, memory));
  EXPECT_EQ(memory.numbers()[1], wanted.numbers()[1]);
}

}  // namespace
}  // namespace lamella::test
