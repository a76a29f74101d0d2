#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "depthwise_plan_case.h"
#include "devices.h"

// Each family of depthwise kernels against another: some of the plans that it offers, on shapes that take
// their different ways through it.
namespace lamella::test {
namespace {

using depthwise::Hook;
using depthwise::Pass;
using depthwise::Plan;
using Family = Plan::Family;

constexpr auto kLast = MemoryFormat::ChannelsLast;
constexpr auto kPlanes = MemoryFormat::Contiguous;
constexpr Size2 kOne{1};

Size2 half(Size2 kernel) { return {kernel.h / 2, kernel.w / 2}; }

TEST(DepthwiseDirectTest, direct_plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  constexpr std::array<std::pair<DType, DType>, 4> kTypes{
      {{float32, float32}, {bfloat16, float32}, {bfloat16, bfloat16}, {float16, float16}}};
  std::vector<PlanSetting> settings;
  const auto add = [&](Pass pass, std::int64_t images, std::int64_t channels, std::int64_t size,
                       std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                       std::int64_t dilation = 1) {
    const auto& [dtype, tap_dtype] = kTypes[settings.size() % kTypes.size()];
    PlanSetting of{pass,        dtype,         kLast,          images,        channels,
                   Size2(size), Size2(kernel), Size2(padding), Size2(stride), Size2(dilation)};
    of.tap_dtype = tap_dtype;
    settings.push_back(of);
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
    PlanSetting more = settings[i];
    more.accumulates = more.pass != Pass::Forward;
    if (more.pass != Pass::Input) more.bias = true, more.transforms = i != 3;
    settings.push_back(more);
  }
  expect_plans_agree(settings, of_family(Family::Direct), 24, [](const PlanSetting& of) {
    // Pixels round what a transform gives, and each rounds its results.
    return of.dtype == float32 ? 1e-6 : of.dtype == float16 ? 1e-3 : 8e-3;
  });
}

TEST(DepthwiseDirectTest, taps_need_no_alignment) {
  LAMELLA_NEEDS_GPU();
  const PlanSetting of{Pass::Forward, float32, kLast, 1, 64, Size2(14)};
  PlanCase wanted(of), other(of);
  depthwise::Problem problem;
  ASSERT_TRUE(wanted.describe(problem));
  const std::vector<Plan> plans = depthwise::plans_for(problem);
  const auto direct = std::find_if(plans.begin(), plans.end(), of_family(Family::Direct));
  ASSERT_NE(direct, plans.end());
  if (!wanted.run(*direct)) GTEST_SKIP() << "no kernel can be compiled";
  const std::int64_t taps = wanted.weight.numel();
  Tensor longer = zeros({taps + 1}, {.dtype = float32, .device = Device::cuda()});
  Tensor moved = longer.slice(0, {1, taps + 1}).reshape(wanted.weight.shape());
  moved.copy_(wanted.weight);
  other.weight = moved;
  ASSERT_TRUE(other.run(*direct));
  EXPECT_EQ(other.numbers(), wanted.numbers());
}

TEST(DepthwiseImagesTest, plans_of_several_images_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t size, std::int64_t stride, Pass pass, Hook hook) {
    PlanSetting of{pass, bfloat16, kLast, images, 72, Size2(size), Size2(3), kOne, Size2(stride)};
    of.hook = hook;
    settings.push_back(of);
  };
  add(11, 7, 1, Pass::Forward, Hook::None);
  add(11, 7, 1, Pass::Forward, Hook::Statistics);
  add(5, 14, 2, Pass::Forward, Hook::Statistics);
  add(11, 7, 1, Pass::Weight, Hook::None);
  add(5, 14, 2, Pass::Both, Hook::NormSums);
  add(11, 7, 1, Pass::Both, Hook::None);
  add(11, 7, 1, Pass::Both, Hook::NormSums);
  add(9, 8, 1, Pass::Input, Hook::NormSums);
  expect_plans_agree(
      settings, [](const Plan& plan) { return plan.what.ends_with(" images"); }, 7, always(4e-3));
}

TEST(DepthwiseBoxesTest, plans_by_rows_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](Pass pass, std::int64_t images, std::int64_t channels, Size2 in, std::int64_t kernel,
                       Hook hook = Hook::None) {
    const DType dtype = settings.size() % 2 == 0 ? bfloat16 : float16;
    PlanSetting of{pass, dtype, kLast, images, channels, in, Size2(kernel), Size2(kernel / 2)};
    of.hook = hook, of.transforms = hook != Hook::None,
    of.bias = pass == Pass::Forward || pass == Pass::Weight;
    settings.push_back(of);
  };
  add(Pass::Forward, 3, 72, Size2(28), 3);
  add(Pass::Forward, 2, 24, Size2(33, 57), 5, Hook::Statistics);
  add(Pass::Forward, 3, 16, Size2(40, 30), 3);
  add(Pass::Input, 2, 120, Size2(30, 23), 5);
  add(Pass::Input, 5, 40, Size2(7), 3);
  add(Pass::Weight, 3, 72, Size2(56), 3);
  add(Pass::Weight, 2, 104, Size2(16, 30), 5);
  add(Pass::Both, 3, 88, Size2(21), 3, Hook::NormSums);
  add(Pass::Both, 2, 48, Size2(29, 35), 3);
  expect_plans_agree(
      settings, [](const Plan& plan) { return plan.what.starts_with("boxes by rows"); }, 12,
      [](const PlanSetting& of) { return of.dtype == float16 ? 1e-3 : 8e-3; });
}

TEST(DepthwiseBoxesTest, plans_of_odd_eights_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t channels, std::int64_t size, std::int64_t kernel,
                       std::int64_t stride, Pass pass, DType dtype, Hook hook = Hook::None) {
    PlanSetting of{
        pass, dtype, kLast, images, channels, Size2(size), Size2(kernel), Size2(kernel / 2), Size2(stride)};
    of.hook = hook;
    settings.push_back(of);
  };
  add(3, 72, 28, 3, 1, Pass::Forward, bfloat16, Hook::Statistics);
  add(3, 72, 56, 5, 2, Pass::Forward, float16);
  add(5, 120, 14, 5, 1, Pass::Input, bfloat16);
  add(3, 72, 28, 3, 1, Pass::Weight, bfloat16);
  add(3, 72, 56, 5, 2, Pass::Weight, float16);
  add(5, 200, 14, 3, 1, Pass::Both, bfloat16, Hook::NormSums);
  const auto is_odd = [](const Plan& plan) {
    const auto has = [&](const char* text) { return plan.what.find(text) != std::string::npos; };
    return has(" 24 channels") || has(" 40 channels") || has(" 72 channels") || has(" 120 channels");
  };
  expect_plans_agree(
      settings, [&](const Plan& plan) { return plan.family == Family::Boxes && is_odd(plan); }, 5,
      always(4e-3));
}

TEST(DepthwiseBoxesTest, plans_of_two_outputs_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](Pass pass, std::int64_t images, std::int64_t channels, Size2 in, std::int64_t kernel,
                       std::int64_t stride, DType dtype, Hook hook = Hook::None) {
    PlanSetting of{pass, dtype, kLast, images, channels, in, Size2(kernel), Size2(kernel / 2), Size2(stride)};
    of.outputs = 2;
    of.hook = hook, of.transforms = hook != Hook::None, of.bias = pass == Pass::Weight;
    settings.push_back(of);
  };
  add(Pass::Input, 3, 96, Size2(56), 3, 1, bfloat16);
  add(Pass::Input, 2, 40, Size2(29, 35), 5, 2, float16);
  add(Pass::Input, 17, 24, Size2(7), 3, 1, bfloat16);
  add(Pass::Weight, 3, 96, Size2(56), 3, 1, bfloat16);
  add(Pass::Weight, 2, 72, Size2(33, 57), 3, 2, float16);
  add(Pass::Weight, 17, 40, Size2(7), 5, 1, bfloat16);
  add(Pass::Both, 3, 64, Size2(28), 3, 1, bfloat16);
  add(Pass::Both, 3, 48, Size2(21), 3, 2, bfloat16, Hook::NormSums);
  expect_plans_agree(settings, of_family(Family::Boxes), 7,
                     [](const PlanSetting& of) { return of.dtype == float16 ? 1e-3 : 8e-3; });
}

TEST(DepthwiseToeplitzBoxesTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t channels, std::int64_t size, Size2 kernel, Pass pass,
                       DType dtype, std::int64_t stride = 1, std::int64_t outputs = 1) {
    settings.push_back(
        {pass, dtype, kLast, images, channels, Size2(size), kernel, half(kernel), Size2(stride)});
    settings.back().outputs = outputs;
    settings.back().bias = pass == Pass::Forward;
  };
  add(11, 72, 7, Size2(5), Pass::Forward, bfloat16);
  add(5, 120, 28, Size2(5), Pass::Input, float16);
  add(5, 64, 14, Size2(7), Pass::Forward, bfloat16);
  add(3, 40, 56, Size2(7), Pass::Input, bfloat16);
  add(3, 48, 30, {3, 7}, Pass::Forward, float16);
  add(3, 32, 13, Size2(3), Pass::Forward, float16);
  add(2, 32, 30, Size2(15), Pass::Forward, bfloat16);
  add(5, 72, 14, Size2(5), Pass::Forward, bfloat16, 2);
  add(3, 72, 28, Size2(5), Pass::Forward, float16, 2);
  add(2, 48, 57, Size2(7), Pass::Forward, bfloat16, 2);
  add(2, 48, 56, Size2(3), Pass::Forward, bfloat16, 1, 2);
  add(3, 48, 28, Size2(3), Pass::Forward, float16, 2, 2);
  expect_plans_agree(settings, of_family(Family::ToeplitzBoxes), 7, always(4e-3));
}

TEST(DepthwiseFloatBoxesTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t size, std::int64_t stride, Pass pass, Hook hook,
                       std::int64_t kernel = 3) {
    PlanSetting of{pass,          float32,           kLast,        images, 72, Size2(size),
                   Size2(kernel), Size2(kernel / 2), Size2(stride)};
    of.hook = hook;
    of.bias = pass == Pass::Weight || pass == Pass::Both;
    settings.push_back(of);
  };
  add(11, 7, 1, Pass::Forward, Hook::None);
  add(5, 14, 1, Pass::Forward, Hook::Statistics);
  add(5, 14, 2, Pass::Forward, Hook::Statistics, 5);
  add(3, 28, 1, Pass::Input, Hook::None);
  add(11, 7, 1, Pass::Weight, Hook::None);
  add(5, 14, 1, Pass::Weight, Hook::None);
  add(5, 14, 2, Pass::Weight, Hook::None);
  add(3, 28, 1, Pass::Weight, Hook::None);
  add(2, 57, 2, Pass::Weight, Hook::None);
  add(5, 14, 1, Pass::Weight, Hook::None, 5);
  add(11, 7, 1, Pass::Both, Hook::None);
  add(5, 14, 2, Pass::Both, Hook::NormSums);
  add(3, 28, 1, Pass::Both, Hook::NormSums, 5);
  add(5, 14, 2, Pass::Input, Hook::None);
  add(5, 14, 1, Pass::Input, Hook::NormSums);
  expect_plans_agree(settings, of_family(Family::Boxes), 5, always(2e-6));
}

TEST(DepthwiseMatricesTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  for (const DType dtype : {bfloat16, float16}) {
    const auto add = [&](std::int64_t images, std::int64_t channels, std::int64_t size, std::int64_t kernel,
                         std::int64_t padding, Pass pass) {
      settings.push_back(
          {pass, dtype, kPlanes, images, channels, Size2(size), Size2(kernel), Size2(padding)});
      settings.back().bias = pass == Pass::Forward;
    };
    add(11, 72, 14, 3, 1, Pass::Forward);
    add(37, 40, 7, 3, 1, Pass::Forward);
    add(5, 12, 28, 3, 1, Pass::Input);
    add(3, 10, 56, 3, 1, Pass::Forward);
    add(2, 5, 112, 3, 1, Pass::Forward);
    add(5, 26, 13, 3, 0, Pass::Forward);
    add(5, 24, 28, 5, 2, Pass::Forward);
    add(9, 24, 7, 5, 2, Pass::Input);
    add(5, 18, 14, 7, 3, Pass::Forward);
    add(3, 10, 56, 7, 3, Pass::Input);
    add(1, 8, 30, 4, 1, Pass::Forward);
  }
  expect_plans_agree(settings, of_family(Family::Matrices), 9, always(4e-3));
}

/// What a transform gives is rounded to sixteen bits.
double of_weights(const PlanSetting& of) { return of.transforms ? 4e-3 : 1e-5; }

TEST(DepthwiseDiagonalsTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t channels, Size2 in, Size2 kernel, Size2 padding,
                       DType dtype, bool bias, bool transforms = false, std::int64_t dilation = 1) {
    PlanSetting of{Pass::Weight, dtype,  kPlanes, images, channels,
                   in,           kernel, padding, kOne,   Size2(dilation)};
    of.bias = bias, of.transforms = transforms;
    settings.push_back(of);
  };
  add(11, 72, Size2(7), Size2(3), kOne, bfloat16, false);
  add(5, 40, Size2(14), Size2(5), Size2(2), bfloat16, false, true);
  add(11, 72, Size2(14), Size2(3), kOne, bfloat16, true);
  add(5, 40, {13, 15}, Size2(5), Size2(2), float16, true);
  add(9, 24, Size2(28), {3, 5}, {1, 2}, bfloat16, false);
  add(5, 24, {30, 26}, Size2(7), Size2(3), bfloat16, true);
  add(5, 12, Size2(56), Size2(7), Size2(0), float16, true);
  add(3, 7, {112, 116}, Size2(3), Size2(2), bfloat16, false, false, 2);
  expect_plans_agree(settings, of_family(Family::Diagonals), 7, of_weights);
}

TEST(DepthwiseDiagonalsTest, plans_with_strides_and_several_outputs_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t channels, Size2 in, Size2 kernel, Size2 padding,
                       Size2 stride, DType dtype, bool bias, std::int64_t outputs = 1,
                       bool transforms = false) {
    settings.push_back({Pass::Weight, dtype, kPlanes, images, channels, in, kernel, padding, stride});
    settings.back().bias = bias, settings.back().outputs = outputs, settings.back().transforms = transforms;
  };
  add(11, 72, Size2(14), Size2(3), kOne, Size2(2), bfloat16, false);
  add(5, 40, Size2(14), Size2(5), Size2(2), Size2(2), float16, true, 1, true);
  add(9, 24, {28, 30}, Size2(3), kOne, Size2(2), bfloat16, true);
  add(5, 23, {27, 29}, Size2(5), Size2(2), Size2(2), bfloat16, true);
  add(5, 12, Size2(56), {5, 3}, {2, 1}, {2, 1}, float16, false);
  add(3, 7, {112, 116}, Size2(7), Size2(0), Size2(3), bfloat16, true);
  add(5, 12, Size2(28), Size2(3), kOne, kOne, bfloat16, true, 2);
  add(3, 6, {33, 31}, Size2(3), kOne, Size2(2), float16, true, 3, true);
  expect_plans_agree(settings, of_family(Family::Diagonals), 7, of_weights);
}

TEST(DepthwisePairsTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](MemoryFormat format, std::int64_t images, std::int64_t channels, Size2 in,
                       Size2 kernel, DType dtype, bool bias, bool transforms = false,
                       std::int64_t stride = 1) {
    PlanSetting of{Pass::Both, dtype, format, images, channels, in, kernel, half(kernel), Size2(stride)};
    of.bias = bias, of.transforms = transforms;
    settings.push_back(of);
  };
  // By matrices or positions and diagonals or positions.
  add(kPlanes, 11, 72, Size2(7), Size2(3), bfloat16, false);
  add(kPlanes, 70, 40, Size2(7), Size2(5), float16, true);
  add(kPlanes, 37, 40, Size2(14), Size2(5), bfloat16, true);
  add(kPlanes, 130, 36, Size2(14), Size2(3), float16, true, true);
  add(kPlanes, 45, 24, Size2(14), Size2(3), bfloat16, true, false, 2);
  add(kPlanes, 9, 24, Size2(28), {3, 5}, bfloat16, false);
  add(kPlanes, 5, 24, Size2(56), Size2(7), float16, true);
  add(kPlanes, 3, 12, Size2(112), Size2(3), bfloat16, false, true);
  // By Toeplitz boxes and Hankel boxes or boxes.
  add(kLast, 37, 72, Size2(7), Size2(5), bfloat16, false);
  add(kLast, 21, 40, Size2(14), Size2(7), float16, true);
  add(kLast, 9, 136, Size2(14), Size2(3), bfloat16, true, true);
  add(kLast, 7, 72, Size2(28), Size2(5), bfloat16, true);
  add(kLast, 5, 32, Size2(57), Size2(7), float16, false);
  // Input gradients are rounded to sixteen bits, and so is what a transform gives.
  expect_plans_agree(settings, of_family(Family::Pairs), 7, always(4e-3));
}

TEST(DepthwiseMapBoxesTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t channels, std::int64_t size, Size2 kernel, Pass pass,
                       DType dtype) {
    settings.push_back({pass, dtype, kLast, images, channels, Size2(size), kernel, half(kernel)});
    settings.back().bias = pass == Pass::Forward;
  };
  add(11, 72, 7, Size2(5), Pass::Forward, bfloat16);
  add(40, 64, 7, Size2(3), Pass::Input, float16);
  add(13, 64, 14, Size2(7), Pass::Forward, bfloat16);
  add(9, 200, 14, Size2(3), Pass::Input, bfloat16);
  add(9, 40, 12, {5, 3}, Pass::Forward, float16);
  add(12, 48, 16, Size2(15), Pass::Input, float16);
  expect_plans_agree(settings, of_family(Family::MapBoxes), 9, always(4e-3));
}

TEST(DepthwiseHankelBoxesTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t size, std::int64_t kernel, DType dtype, bool bias) {
    settings.push_back(
        {Pass::Weight, dtype, kLast, images, 72, Size2(size), Size2(kernel), Size2(kernel / 2)});
    settings.back().bias = bias;
  };
  add(11, 7, 3, bfloat16, false);
  add(11, 7, 5, bfloat16, false);
  add(11, 7, 7, float16, true);
  add(5, 14, 5, bfloat16, true);
  add(5, 14, 7, bfloat16, false);
  add(3, 28, 5, float16, false);
  add(2, 57, 7, bfloat16, true);
  expect_plans_agree(settings, of_family(Family::HankelBoxes), 5, always(1e-5));
}

TEST(DepthwiseColumnsTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  std::vector<PlanSetting> settings;
  const auto add = [&](std::int64_t images, std::int64_t channels, Size2 in, std::int64_t kernel,
                       std::int64_t padding, Pass pass) {
    settings.push_back({pass, float32, kPlanes, images, channels, in, Size2(kernel), Size2(padding)});
    settings.back().bias = pass == Pass::Weight;
  };
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
    add(3, 22, Size2(56), 7, 3, pass);
    add(5, 42, Size2(14), 7, 3, pass);
    add(5, 26, Size2(28), 5, 2, pass);
    add(9, 96, Size2(7), 5, 2, pass);
    add(2, 9, {37, 61}, 9, 1, pass);
    add(1, 5, {150, 96}, 5, 4, pass);
  }
  expect_plans_agree(settings, of_family(Family::Columns), 5, always(3e-6));
}

TEST(DepthwisePositionsTest, plans_compute_what_others_do) {
  LAMELLA_NEEDS_GPU();
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
    std::vector<PlanSetting> settings;
    const auto add = [&](std::int64_t images, std::int64_t channels, Size2 in, Size2 kernel,
                         std::int64_t stride, DType dtype, bool bias, bool transforms = false) {
      PlanSetting of{pass, dtype, kPlanes, images, channels, in, kernel, half(kernel), Size2(stride)};
      of.bias = bias && pass != Pass::Input, of.transforms = transforms && pass == Pass::Weight;
      settings.push_back(of);
    };
    add(37, 72, Size2(7), Size2(3), 1, bfloat16, true);
    add(64, 40, Size2(7), Size2(5), 1, float16, false);
    add(33, 24, Size2(14), Size2(3), 2, bfloat16, true, true);
    add(16, 40, Size2(14), Size2(5), 2, bfloat16, false);
    add(50, 16, Size2(14), Size2(3), 1, float16, true);
    add(21, 18, Size2(14), Size2(7), 1, bfloat16, false);
    add(35, 40, {9, 13}, {3, 5}, 1, float16, true);
    add(70, 192, Size2(1), Size2(3), 1, bfloat16, true);
    if (pass == Pass::Weight) {
      add(20, 16, Size2(28), Size2(3), 2, float16, true);
      add(35, 24, Size2(28), Size2(5), 2, bfloat16, false);
    }
    expect_plans_agree(settings, of_family(Family::Positions), 4,
                       [](const PlanSetting& of) { return of.pass == Pass::Weight ? of_weights(of) : 4e-3; });
  }
}

/// Problems drawn at random: of each family that has plans for one, the first and one further on.
class DepthwiseFamiliesTest : public ::testing::TestWithParam<unsigned> {};

TEST_P(DepthwiseFamiliesTest, agree_on_random_problems) {
  LAMELLA_NEEDS_GPU();
  std::mt19937 generator(GetParam());
  const auto draw = [&](int least, int most) {
    return static_cast<std::int64_t>(std::uniform_int_distribution<int>(least, most)(generator));
  };
  constexpr int kProblems = 4;
  for (int i = 0; i < kProblems; ++i) {
    PlanSetting of;
    of.pass = static_cast<Pass>(draw(0, 3));
    of.dtype = std::array{float32, bfloat16, float16}[static_cast<std::size_t>(draw(0, 2))];
    of.tap_dtype = of.dtype;
    of.format = draw(0, 1) == 0 ? kPlanes : kLast;
    of.images = draw(1, 40), of.channels = draw(1, 20) * (draw(0, 2) == 0 ? 1 : 8);
    of.outputs = draw(0, 4) == 0 ? 2 : 1;
    const bool is_small = draw(0, 1) == 0;
    of.kernel = {draw(2, 9), draw(2, 9)};
    of.stride = Size2(draw(0, 2) == 0 ? 2 : 1), of.dilation = Size2(draw(0, 3) == 0 ? 2 : 1);
    const auto reach = [&](std::int64_t kernel) { return (kernel - 1) * of.dilation.h; };
    of.in = {draw(is_small ? 4 : 14, is_small ? 14 : 60), draw(is_small ? 4 : 14, is_small ? 14 : 60)};
    of.in = {std::max(of.in.h, reach(of.kernel.h) / 2 + 1), std::max(of.in.w, reach(of.kernel.w) / 2 + 1)};
    of.padding = {(reach(of.kernel.h) + 1) / 2, (reach(of.kernel.w) + 1) / 2};
    of.bias = draw(0, 1) == 0 && of.pass != Pass::Input;
    of.transforms = draw(0, 3) == 0 && of.pass != Pass::Input;
    PlanCase wanted(of);
    depthwise::Problem problem;
    ASSERT_TRUE(wanted.describe(problem));
    constexpr std::int64_t kFew = 99 << 10;  // as GPUs of compute capability 8.6 have it
    if (draw(0, 3) == 0) problem.shared_bytes = std::min(problem.shared_bytes, kFew);
    SCOPED_TRACE(depthwise::text_of(problem));
    std::map<Family, std::vector<Plan>> families;
    for (Plan& plan : depthwise::plans_for(problem)) families[plan.family].push_back(std::move(plan));
    if (families.size() < 2) continue;
    // Threads that copy for themselves: what is furthest from all others.
    const Family plain = of.format == kLast ? Family::Pixels : Family::Planes;
    const Plan& other = (families.count(plain) > 0 ? families[plain] : families.begin()->second).front();
    if (!wanted.run(other)) GTEST_SKIP() << "no kernel can be compiled";
    for (const auto& [family, plans] : families)
      for (const std::size_t at : {std::size_t{0}, plans.size() / 3}) {
        SCOPED_TRACE(plans[at].kernel + ": " + plans[at].what);
        PlanCase one(of);
        ASSERT_TRUE(one.run(plans[at]));
        expect_close(one, wanted, of.dtype == float32 ? 4e-6 : of.dtype == float16 ? 2e-3 : 8e-3);
      }
  }
}
INSTANTIATE_TEST_SUITE_P(Seeds, DepthwiseFamiliesTest, ::testing::Range(1U, 17U));

}  // namespace
}  // namespace lamella::test
