#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "layers/depthwise_conv2d/cuda/plan.h"

/// Which families have plans for which problems, and which of them lead.
namespace lamella::depthwise::checks {
namespace {

TEST(Plans, of_float_boxes_are_offered) {
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both}) {
    SCOPED_TRACE(static_cast<int>(pass));
    Problem problem;
    problem.pass = pass, problem.dtype = DType::Float32, problem.channels_last = problem.boxes = true;
    const auto count = [&](std::int64_t size, std::int64_t stride, std::int64_t kernel,
                           std::int64_t channels) {
      const Size2 in(size), out((size - 1) / stride + 1);
      problem.geometry = {256, channels,      channels,      channels,          in,
                          out, Size2(kernel), Size2(stride), Size2(kernel / 2), {1, 1}};
      const std::vector<Plan> plans = plans_for(problem);
      return std::count_if(plans.begin(), plans.end(),
                           [](const Plan& plan) { return plan.family == Plan::Family::Boxes; });
    };
    for (const std::int64_t size : {7, 14, 28, 56, 112}) {
      EXPECT_GT(count(size, 1, 3, 96), 0);
      EXPECT_GT(count(size, 2, 3, 96), 0);
      EXPECT_GT(count(size, 1, 5, 96), 0);
    }
    problem.boxes = false;
    EXPECT_EQ(count(14, 1, 3, 96), 0);
    problem.boxes = true, problem.input_alignment = 8;
    EXPECT_EQ(count(14, 1, 3, 90), 0);
  }
}

TEST(Plans, of_boxes_by_rows_are_offered_for_dense_rows_of_few_channels) {
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both}) {
    SCOPED_TRACE(static_cast<int>(pass));
    Problem problem;
    problem.pass = pass, problem.dtype = DType::BFloat16, problem.channels_last = problem.boxes = true;
    const auto count = [&](std::int64_t channels, Size2 stride = {1, 1}, std::int64_t dilation = 1) {
      const Size2 in(56), out(55 / stride.h + 1, 55 / stride.w + 1);
      problem.geometry = {64,  channels, channels, channels,        in,
                          out, {3, 3},   stride,   Size2(dilation), Size2(dilation)};
      const std::vector<Plan> plans = plans_for(problem);
      return std::count_if(plans.begin(), plans.end(),
                           [](const Plan& plan) { return plan.what.starts_with("boxes by rows"); });
    };
    for (const std::int64_t channels : {16, 24, 72, 120}) EXPECT_GT(count(channels), 0) << channels;
    EXPECT_GT(count(72, {2, 1}), 0);
    for (const std::int64_t channels : {32, 64, 136}) EXPECT_EQ(count(channels), 0) << channels;
    EXPECT_EQ(count(72, {1, 2}), 0);
    EXPECT_EQ(count(72, {1, 1}, 2), 0);
    problem.input_gaps = true;
    EXPECT_EQ(count(72), 0);
    problem.input_gaps = false, problem.output_gaps = true;
    EXPECT_EQ(count(72), 0);
  }
}

TEST(Plans, of_boxes_are_offered_for_the_gradients_of_two_outputs) {
  Problem problem;
  problem.dtype = DType::BFloat16, problem.channels_last = problem.boxes = true;
  const auto count = [&](Pass pass, std::int64_t outputs, std::int64_t channels, std::int64_t stride) {
    problem.pass = pass;
    const Size2 in(56), out((56 - 1) / stride + 1);
    problem.geometry = {64,  channels, channels * outputs, channels, in,
                        out, {3, 3},   Size2(stride),      {1, 1},   {1, 1}};
    const std::vector<Plan> plans = plans_for(problem);
    return std::count_if(plans.begin(), plans.end(),
                         [](const Plan& plan) { return plan.family == Plan::Family::Boxes; });
  };
  for (const Pass pass : {Pass::Input, Pass::Weight, Pass::Both})
    for (const std::int64_t stride : {1, 2}) {
      EXPECT_GT(count(pass, 2, 96, stride), 0);
      EXPECT_GT(count(pass, 2, 24, stride), 0);
      EXPECT_EQ(count(pass, 3, 96, stride), 0);
    }
  EXPECT_EQ(count(Pass::Forward, 2, 96, 1), 0) << "Toeplitz boxes do that";
}

TEST(Plans, of_matrices_come_before_runs_where_taps_are_many) {
  const auto families = [](Pass pass, Size2 kernel, std::int64_t size, DType dtype, bool exact_taps) {
    Problem problem;
    problem.pass = pass, problem.dtype = dtype, problem.boxes = true, problem.exact_taps = exact_taps;
    constexpr std::int64_t kChannels = 96;
    problem.geometry = {64,        kChannels,   kChannels,
                        kChannels, Size2(size), Size2(size),
                        kernel,    {1, 1},      {kernel.h / 2, kernel.w / 2},
                        {1, 1}};
    std::set<Plan::Family> found;
    const std::vector<Plan> plans = plans_for(problem);
    for (const Plan& plan : plans)
      if (plan.family != Plan::Family::Positions && !plan.has_phases()) found.insert(plan.family);
    if (kernel == Size2(7) && size > 7 && found.count(Plan::Family::Matrices) > 0) {
      EXPECT_EQ(plans.front().family, Plan::Family::Matrices) << size;
    }
    return found;
  };
  using Family = Plan::Family;
  const std::set<Family> with{Family::Runs, Family::Matrices, Family::Planes},
      without{Family::Runs, Family::Planes}, columns{Family::Runs, Family::Planes, Family::Columns};
  for (const Pass pass : {Pass::Forward, Pass::Input})
    for (const Size2 kernel : {Size2(3), Size2(5), Size2(7), Size2(3, 5)})
      for (const std::int64_t size : {7, 13, 14, 28, 56, 112}) {
        EXPECT_EQ(families(pass, kernel, size, DType::BFloat16, false), with) << size;
        EXPECT_EQ(families(pass, kernel, size, DType::Float16, true), without) << size;
        EXPECT_EQ(families(pass, kernel, size, DType::Float32, false), kernel == Size2(3) ? without : columns)
            << size;
      }
  EXPECT_EQ(families(Pass::Weight, Size2(3), 14, DType::BFloat16, false).count(Family::Matrices), 0U);
}

TEST(Plans, of_diagonals_come_first_where_taps_are_many) {
  Problem problem;
  problem.pass = Pass::Weight, problem.dtype = DType::BFloat16, problem.boxes = true;
  const auto count = [&](std::int64_t size, std::int64_t kernel, std::int64_t stride) {
    constexpr std::int64_t kChannels = 384;
    const Size2 in(size), out((size - 1) / stride + 1);
    problem.geometry = {256, kChannels,     kChannels,     kChannels,         in,
                        out, Size2(kernel), Size2(stride), Size2(kernel / 2), {1, 1}};
    const std::vector<Plan> plans = plans_for(problem);
    const auto is_one = [](const Plan& plan) { return plan.family == Plan::Family::Diagonals; };
    if (kernel == 7 && stride == 1 && size > 7) {
      const auto first = std::find_if_not(plans.begin(), plans.end(), [](const Plan& plan) {
        return plan.family == Plan::Family::Positions;
      });
      EXPECT_TRUE(is_one(*first)) << size;
    }
    return std::count_if(plans.begin(), plans.end(), is_one);
  };
  for (const std::int64_t size : {7, 13, 14, 28, 30, 56, 112})
    for (const std::int64_t kernel : {3, 5, 7}) EXPECT_GT(count(size, kernel, 1), 0) << size << " " << kernel;
  EXPECT_EQ(count(14, 9, 1), 0);
  for (const std::int64_t size : {14, 27, 28, 112})
    for (const std::int64_t kernel : {3, 5, 7})
      for (const std::int64_t stride : {2, 3})
        EXPECT_GT(count(size, kernel, stride), 0) << size << " " << kernel << " " << stride;
  EXPECT_EQ(count(56, 11, 2), 0);
  problem.transforms = problem.hardswish = true;
  EXPECT_GT(count(14, 3, 1), 0);
  problem.dtype = DType::Float32;
  EXPECT_EQ(count(14, 3, 1), 0);
}

TEST(Plans, of_hankel_boxes_are_offered) {
  Problem problem;
  problem.pass = Pass::Weight, problem.dtype = DType::BFloat16;
  problem.channels_last = problem.boxes = true;
  const auto count = [&](std::int64_t size, Size2 kernel, std::int64_t stride, std::int64_t dilation) {
    constexpr std::int64_t kChannels = 96;
    const Size2 padding{kernel.h / 2 * dilation, kernel.w / 2 * dilation};
    problem.geometry = {
        64,     kChannels,     kChannels, kChannels,      Size2(size), Size2((size - 1) / stride + 1),
        kernel, Size2(stride), padding,   Size2(dilation)};
    const std::vector<Plan> plans = plans_for(problem);
    return std::count_if(plans.begin(), plans.end(),
                         [](const Plan& plan) { return plan.family == Plan::Family::HankelBoxes; });
  };
  for (const bool bias : {false, true}) {
    problem.bias = bias;
    for (const std::int64_t size : {7, 8, 13, 14, 28, 30, 56, 112})
      for (const Size2 kernel : {Size2(3), Size2(5), Size2(7), Size2(3, 7), Size2(5, 3)})
        EXPECT_GT(count(size, kernel, 1, 1), 0) << size << " " << kernel.h << "x" << kernel.w;
  }
  EXPECT_GT(count(56, Size2(3), 1, 2), 0);
  EXPECT_EQ(count(56, Size2(5), 2, 1), 0);
  EXPECT_EQ(count(14, Size2(3, 9), 1, 1), 0);
  problem.transforms = true;
  EXPECT_EQ(count(14, Size2(5), 1, 1), 0);
}

TEST(Plans, of_phases_are_offered) {
  Problem problem;
  problem.boxes = true;
  std::int64_t images = 400;
  bool leads = false;
  const auto count = [&](Size2 kernel, Size2 stride, Size2 dilation, std::int64_t multiplier) {
    constexpr std::int64_t kChannels = 11, kSize = 60;
    const Size2 reach{(kernel.h - 1) * dilation.h, (kernel.w - 1) * dilation.w};
    const auto outputs = [](std::int64_t of, std::int64_t step) { return (kSize - of - 1) / step + 1; };
    problem.geometry = {images,    kChannels,    kChannels * multiplier,
                        kChannels, Size2(kSize), {outputs(reach.h, stride.h), outputs(reach.w, stride.w)},
                        kernel,    stride,       {0, 0},
                        dilation};
    const int number = static_cast<int>(size_of(problem.dtype));
    problem.input_alignment = problem.channels_last ? number : 16;
    problem.output_alignment = problem.channels_last ? number * static_cast<int>(multiplier) : 16;
    const std::vector<Plan> plans = plans_for(problem);
    const auto is_one = [](const Plan& plan) { return plan.family == Plan::Family::Phases; };
    leads = !plans.empty() && plans.front().has_phases();
    return std::count_if(plans.begin(), plans.end(), is_one);
  };
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
    for (const bool last : {false, true})
      for (const DType dtype : {DType::Float32, DType::BFloat16}) {
        problem.pass = pass, problem.channels_last = last, problem.dtype = dtype;
        EXPECT_EQ(count({3, 3}, {1, 1}, {1, 1}, 1), 0);
        EXPECT_GT(count({5, 5}, {1, 1}, {1, 1}, 1), 0);
        EXPECT_GT(count({9, 4}, {3, 2}, {1, 1}, 2), 0);
        EXPECT_GT(count({9, 13}, {1, 3}, {3, 1}, 1), 0);
        if (pass == Pass::Weight) {
          EXPECT_TRUE(leads);
        }
      }
  images = 4;
  EXPECT_GT(count({9, 13}, {1, 3}, {3, 1}, 1), 0);
  EXPECT_FALSE(leads) << "with little to do";
  problem.transforms = true;
  problem.pass = Pass::Forward;
  EXPECT_EQ(count({5, 5}, {1, 1}, {1, 1}, 1), 0);
}

/// Of a slice of channels the distance of columns is not compiled in; of dense planes there are no slices.
TEST(Plans, of_rolling_rows_are_offered) {
  Problem problem;
  problem.boxes = true;
  problem.geometry = {40, 48, 48, 48, Size2(60), Size2(50), Size2(11), Size2(1), Size2(0), Size2(1)};
  const auto kernels = [&](const std::string& with) {
    const std::vector<Plan> plans = plans_for(problem);
    return std::count_if(plans.begin(), plans.end(), [&](const Plan& plan) {
      return (plan.family == Plan::Family::Rolling || plan.family == Plan::Family::RollingPlanes) &&
             plan.kernel.find(with) != std::string::npos;
    });
  };
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
    for (const DType dtype : {DType::Float32, DType::BFloat16}) {
      problem.pass = pass, problem.dtype = dtype, problem.channels_last = true;
      const std::string name = pass == Pass::Weight ? "weigh_rolling<" : "correlate_rolling<";
      EXPECT_GT(kernels(name), 0);
      EXPECT_GT(kernels(", 48, "), 0);
      problem.input_gaps = problem.output_gaps = true;
      EXPECT_GT(kernels(name), 0);
      EXPECT_EQ(kernels(", 48, "), 0);
      problem.input_gaps = problem.output_gaps = problem.channels_last = false;
      EXPECT_GT(kernels("_rolling_planes<"), 0);
      EXPECT_EQ(kernels(name), 0);
    }
  problem.pass = Pass::Forward;
  for (const bool last : {false, true}) {
    problem.channels_last = last;
    problem.transforms = true;
    EXPECT_EQ(kernels(""), 0);
    problem.transforms = false, problem.geometry.kernel = Size2(3), problem.geometry.out = Size2(58);
    EXPECT_EQ(kernels(""), 0) << "of few taps";
    problem.geometry.kernel = Size2(11), problem.geometry.out = Size2(50);
  }
}

/// Of few taps: of weights, and of pixels that are few bytes or not aligned.
TEST(Plans, of_rolling_rows_of_few_taps_are_offered) {
  Problem problem;
  problem.boxes = true;
  const auto are_offered = [&](Pass pass, DType dtype, bool last, std::int64_t channels) {
    problem.pass = pass, problem.dtype = dtype, problem.channels_last = last;
    problem.geometry = {40,        channels, channels, channels, Size2(60),
                        Size2(58), Size2(3), Size2(1), Size2(0), Size2(1)};
    const std::int64_t bytes = channels * static_cast<std::int64_t>(size_of(dtype)) | 16;
    problem.input_alignment = problem.output_alignment = last ? static_cast<int>(bytes & -bytes) : 16;
    const std::vector<Plan> plans = plans_for(problem);
    return std::any_of(plans.begin(), plans.end(), [](const Plan& plan) { return plan.has_phases(); });
  };
  for (const auto& [dtype, bytes] : {std::pair{DType::Float32, 4}, std::pair{DType::BFloat16, 2}})
    for (const std::int64_t channels : {3, 4, 5, 8, 9, 10, 12, 16, 20, 48}) {
      SCOPED_TRACE(std::to_string(channels) + " channels of " + std::to_string(bytes) + " bytes");
      const bool few = channels * bytes <= 16, unaligned = channels * bytes % 8 != 0;
      EXPECT_TRUE(are_offered(Pass::Weight, dtype, true, channels));
      EXPECT_EQ(are_offered(Pass::Forward, dtype, true, channels), few || unaligned);
      EXPECT_EQ(are_offered(Pass::Input, dtype, true, channels), few);
      for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight})
        EXPECT_FALSE(are_offered(pass, dtype, false, channels));
    }
}

/// From 16 MiB on all are in order; below, phases and rolling rows are behind the others.
TEST(Plans, of_large_problems_are_in_one_order) {
  constexpr std::int64_t kChannels = 16, kSize = 64, kImages = 64;  // of float32: 16 MiB of input
  Problem problem;
  problem.boxes = true;
  const auto is_dearer = [](const Plan& a, const Plan& b) { return a.cost > b.cost; };
  const auto has_phases = [](const Plan& plan) { return plan.has_phases(); };
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both})
    for (const bool last : {false, true}) {
      SCOPED_TRACE(std::string(last ? "NHWC" : "NCHW") + ", pass " + std::to_string(static_cast<int>(pass)));
      problem.pass = pass, problem.channels_last = last;
      problem.geometry = {kImages,   kChannels, kChannels, kChannels, Size2(kSize),
                          Size2(32), Size2(7),  Size2(2),  Size2(9),  Size2(3)};
      const std::vector<Plan> large = plans_for(problem);
      EXPECT_EQ(std::adjacent_find(large.begin(), large.end(), is_dearer), large.end());
      EXPECT_EQ(std::any_of(large.begin(), large.end(), has_phases), pass != Pass::Both);
      problem.geometry.batch = kImages / 2;
      const std::vector<Plan> small = plans_for(problem);
      const auto first = std::find_if(small.begin(), small.end(), has_phases);
      EXPECT_TRUE(std::all_of(first, small.end(), has_phases));
      EXPECT_GT(first - small.begin(), 0);
    }
}

/// An input's gradient that is added to is not cleared before.
TEST(Plans, cost_no_zeros_that_are_not_written) {
  Problem problem;
  problem.pass = Pass::Input, problem.channels_last = true;
  problem.geometry = {16, 32, 32, 32, Size2(64), Size2(32), Size2(3), Size2(2), Size2(2), Size2(2)};
  const auto least = [&] {
    const std::vector<Plan> plans = plans_for(problem);
    return std::min_element(plans.begin(), plans.end(),
                            [](const Plan& a, const Plan& b) { return a.cost < b.cost; })
        ->cost;
  };
  const double cleared = least();
  problem.accumulate = true;
  EXPECT_LT(least(), cleared);
}

/// Of a slice of channels, each column is copied by itself.
TEST(Plans, of_phases_leave_out_gaps) {
  const auto has_gaps = [](Pass pass, bool input, bool output) {
    Problem problem;
    problem.pass = pass, problem.channels_last = problem.boxes = true;
    problem.geometry = {40, 8, 8, 8, Size2(60), Size2(56), Size2(5), Size2(1), Size2(0), Size2(1)};
    problem.input_gaps = input, problem.output_gaps = output;
    const std::vector<Plan> plans = plans_for(problem);
    std::pair<bool, bool> found{true, true};  // of all plans: sources by columns, and targets
    int count = 0;
    for (const Plan& plan : plans) {
      if (plan.family != Plan::Family::Phases) continue;
      const PhaseCut& cut = plan.phases.cut;
      found.first = found.first && cut.source_raw.by_columns;
      found.second = found.second && cut.target_raw.by_columns;
      ++count;
    }
    EXPECT_GT(count, 0);
    return found;
  };
  EXPECT_FALSE(has_gaps(Pass::Forward, false, true).first);
  EXPECT_TRUE(has_gaps(Pass::Forward, true, false).first);
  EXPECT_FALSE(has_gaps(Pass::Input, true, false).first);
  EXPECT_TRUE(has_gaps(Pass::Input, false, true).first);
  EXPECT_EQ(has_gaps(Pass::Weight, false, false), std::pair(false, false));
  EXPECT_EQ(has_gaps(Pass::Weight, true, false), std::pair(true, false));
  EXPECT_EQ(has_gaps(Pass::Weight, false, true), std::pair(false, true));
}

TEST(Plans, of_positions_are_offered_for_small_maps) {
  Problem problem;
  problem.dtype = DType::BFloat16, problem.boxes = true;
  const auto count = [&](std::int64_t size, std::int64_t kernel, std::int64_t stride,
                         std::int64_t channels = 384, std::int64_t images = 256) {
    const Size2 in(size), out((size - 1) / stride + 1);
    problem.geometry = {images, channels,      channels,      channels,          in,
                        out,    Size2(kernel), Size2(stride), Size2(kernel / 2), {1, 1}};
    const std::vector<Plan> plans = plans_for(problem);
    return std::count_if(plans.begin(), plans.end(),
                         [](const Plan& plan) { return plan.family == Plan::Family::Positions; });
  };
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
    SCOPED_TRACE(static_cast<int>(pass));
    problem.pass = pass;
    for (const std::int64_t kernel : {3, 5, 7}) {
      EXPECT_GT(count(7, kernel, 1), 0) << kernel;
      EXPECT_GT(count(14, kernel, 1), 0) << kernel;
      EXPECT_GT(count(14, kernel, 2), 0) << kernel;
    }
    EXPECT_EQ(count(28, 5, 2) > 0, pass != Pass::Input);
    EXPECT_EQ(count(56, 3, 1), 0);
    EXPECT_EQ(count(7, 3, 1, 384, 4), 0) << "images are too few";
    EXPECT_EQ(count(7, 3, 1, 383), 0) << "images do not begin with sixteen bytes";
    problem.output_alignment = 8;
    EXPECT_EQ(count(7, 3, 1), 0);
    problem.output_alignment = 16, problem.transforms = true;
    EXPECT_EQ(count(7, 3, 1) > 0, pass != Pass::Forward);
    problem.transforms = false, problem.dtype = DType::Float32;
    EXPECT_EQ(count(7, 3, 1), 0);
    problem.dtype = DType::BFloat16, problem.exact_taps = pass != Pass::Weight;
    EXPECT_EQ(count(7, 3, 1) > 0, pass == Pass::Weight);
    problem.exact_taps = false;
  }
}

}  // namespace
}  // namespace lamella::depthwise::checks
