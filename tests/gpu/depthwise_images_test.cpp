#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/compiler.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/run.h"
#include "tensor/door.h"

// Plans of boxes against the first plan of another kind: those in which an item is several images of a small
// map, those of float32, and those that are multiplied by Toeplitz matrices.
namespace lamella::test {
namespace {

using cuda::depthwise::Operands;
using depthwise::Hook;
using depthwise::Pass;
using depthwise::Plan;

constexpr std::int64_t kChannels = 72;

struct Setting {
  std::int64_t images, size, stride;
  Pass pass;
  Hook hook;
  DType dtype = bfloat16;
  std::int64_t kernel = 3, outputs = 1;  ///< of a channel
};

/// What a pass reads and writes.
struct Memory {
  Conv2dGeometry geometry;
  Tensor x, y, dx, weight, dweight, dbias, scale, shift, center, first, second;
  cuda::depthwise::Parts to;

  explicit Memory(const Setting& of) {
    Conv2dGeometry& g = geometry;
    g.batch = of.images, g.in_channels = g.groups = kChannels, g.out_channels = kChannels * of.outputs;
    g.in = Size2(of.size), g.kernel = Size2(of.kernel), g.stride = Size2(of.stride);
    g.padding = Size2(of.kernel / 2);
    g.out = Size2((of.size - 1) / of.stride + 1);
    const auto make = [](const Shape& shape, std::uint64_t seed, DType dtype, MemoryFormat format = {}) {
      return testing::random_tensor(shape, seed, {.dtype = DType::Float64, .format = format})
          .to(dtype)
          .to(Device::cuda())
          .clone();
    };
    constexpr auto kLast = MemoryFormat::ChannelsLast;
    x = make({of.images, kChannels, of.size, of.size}, 1, of.dtype, kLast);
    y = make({of.images, g.out_channels, g.out.h, g.out.w}, 2, of.dtype, kLast);
    dx = make({of.images, kChannels, of.size, of.size}, 3, of.dtype, kLast);
    weight = make({g.out_channels, 1, of.kernel, of.kernel}, 4, of.dtype);
    dweight = make({kChannels, 1, of.kernel, of.kernel}, 5, float32);
    dbias = make({kChannels}, 11, float32);
    scale = make({kChannels}, 6, float32), shift = make({kChannels}, 7, float32);
    center = make({kChannels}, 8, float32);
    first = make({kChannels}, 9, float32), second = make({kChannels}, 10, float32);
  }
  Operands operands(const Setting& of) {
    const auto floats = [](const Tensor& t) { return static_cast<float*>(detail::write(t, "test").data); };
    const bool forward = of.pass == Pass::Forward, input = of.pass == Pass::Input || of.pass == Pass::Both;
    Operands o;
    o.hook = of.hook;
    if (of.pass != Pass::Weight) o.weight = detail::read(weight);
    if (of.pass != Pass::Input || of.hook != Hook::None) o.input = detail::read(x);
    if (of.hook != Hook::None) o.transform = {floats(scale), floats(shift), 0, 1, false};
    if (of.hook == Hook::Statistics) o.results.mean = floats(first), o.results.variance = floats(second);
    if (of.hook == Hook::NormSums)
      o.results.center = floats(center), o.results.sum = floats(first), o.results.product = floats(second);
    if (forward) o.output = detail::write(y, "test");
    if (!forward) o.grad_output = detail::read(y);
    if (input) o.grad_input = detail::write(dx, "test");
    to.device = Device::cuda(), to.channels = kChannels, to.kernel = geometry.kernel;
    to.weight = detail::write(dweight, "test");
    if (of.dtype == float32) to.bias = detail::write(dbias, "test");
    if (of.pass == Pass::Weight || of.pass == Pass::Both) o.to = &to;
    return o;
  }
  std::vector<std::vector<double>> numbers() const {
    std::vector<std::vector<double>> all;
    for (const Tensor& t : {y, dx, dweight, dbias, first, second})
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

/// Of the plans that are wanted, every so many-th.
void expect_same_as_another(std::initializer_list<Setting> settings, bool (*is_wanted)(const Plan&),
                            double rounding, std::size_t every) {
  for (const Setting& of : settings) {
    Memory wanted(of);
    depthwise::Problem problem;
    ASSERT_TRUE(cuda::depthwise::describe_problem(wanted.geometry, wanted.operands(of), problem));
    if (!problem.boxes) GTEST_SKIP() << "the GPU has no copy engine";
    const std::vector<Plan> plans = depthwise::plans_for(problem);
    const auto other = std::find_if_not(plans.begin(), plans.end(), is_wanted);
    ASSERT_NE(other, plans.end());
    if (!run_plan(*other, of, wanted)) GTEST_SKIP() << "no kernel can be compiled";
    const auto right = wanted.numbers();
    std::size_t count = 0;
    for (const Plan& plan : plans) {
      if (!is_wanted(plan) || count++ % every != 0) continue;
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
        EXPECT_LT(difference, rounding * rounding * size) << "tensor " << t;
      }
    }
    EXPECT_GT(count, 0U);
  }
}

TEST(DepthwiseImagesTest, plans_of_several_images_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  expect_same_as_another(
      {Setting{11, 7, 1, Pass::Forward, Hook::None}, Setting{11, 7, 1, Pass::Forward, Hook::Statistics},
       Setting{5, 14, 2, Pass::Forward, Hook::Statistics}, Setting{11, 7, 1, Pass::Weight, Hook::None},
       Setting{5, 14, 2, Pass::Both, Hook::NormSums}, Setting{11, 7, 1, Pass::Both, Hook::None},
       Setting{11, 7, 1, Pass::Both, Hook::NormSums}, Setting{9, 8, 1, Pass::Input, Hook::NormSums}},
      [](const Plan& plan) { return plan.what.ends_with(" images"); }, 4e-3, 7);
}

TEST(DepthwiseImagesTest, plans_of_float_boxes_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  constexpr Hook kNone = Hook::None;
  expect_same_as_another(
      {{11, 7, 1, Pass::Forward, kNone, float32},
       {5, 14, 1, Pass::Forward, Hook::Statistics, float32},
       {5, 14, 2, Pass::Forward, Hook::Statistics, float32, 5},
       {3, 28, 1, Pass::Input, kNone, float32},
       {11, 7, 1, Pass::Weight, kNone, float32},
       {5, 14, 1, Pass::Weight, kNone, float32},
       {5, 14, 2, Pass::Weight, kNone, float32},
       {3, 28, 1, Pass::Weight, kNone, float32},
       {2, 57, 2, Pass::Weight, kNone, float32},
       {5, 14, 1, Pass::Weight, kNone, float32, 5},
       {11, 7, 1, Pass::Both, kNone, float32},
       {5, 14, 2, Pass::Both, Hook::NormSums, float32},
       {3, 28, 1, Pass::Both, Hook::NormSums, float32, 5},
       {5, 14, 2, Pass::Input, kNone, float32},
       {5, 14, 1, Pass::Input, Hook::NormSums, float32}},
      [](const Plan& plan) { return plan.family == Plan::Family::Boxes; }, 2e-6, 5);
}

TEST(DepthwiseImagesTest, plans_of_toeplitz_boxes_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  constexpr Hook kNone = Hook::None;
  expect_same_as_another(
      {{11, 7, 1, Pass::Forward, kNone, bfloat16, 5},
       {11, 7, 1, Pass::Input, kNone, bfloat16, 7},
       {5, 14, 1, Pass::Forward, kNone, bfloat16, 7},
       {5, 14, 1, Pass::Input, kNone, float16, 5},
       {3, 13, 1, Pass::Forward, kNone, float16, 3},
       {3, 28, 1, Pass::Forward, kNone, bfloat16, 5},
       {3, 30, 1, Pass::Input, kNone, bfloat16, 7},
       {2, 57, 1, Pass::Forward, kNone, bfloat16, 7},
       {2, 56, 1, Pass::Forward, kNone, bfloat16, 9},
       {2, 30, 1, Pass::Forward, kNone, bfloat16, 15},
       {5, 14, 2, Pass::Forward, kNone, bfloat16, 5},
       {3, 28, 2, Pass::Forward, kNone, float16, 5},
       {2, 57, 2, Pass::Forward, kNone, bfloat16, 7},
       {2, 56, 1, Pass::Forward, kNone, bfloat16, 3, 2},
       {3, 28, 2, Pass::Forward, kNone, bfloat16, 3, 2}},
      [](const Plan& plan) { return plan.family == Plan::Family::ToeplitzBoxes; }, 4e-3, 5);
}

}  // namespace
}  // namespace lamella::test
