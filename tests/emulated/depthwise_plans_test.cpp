#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "depthwise_reference.h"
#include "layers/depthwise_conv2d/cuda/plan.h"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kProblems = 500;
/// Shared memory of a block: of compute capabilities 8.6 and 12.0, of 8.0, and of 9.0.
constexpr std::int64_t kShared[] = {99 << 10, 163 << 10, 227 << 10};

Problem draw_problem(Draw& draw) {
  const auto up_to = [&](int most) { return draw.one_in(3) ? draw(1, most) : draw(1, std::min(most, 7)); };
  Problem p;
  p.pass = static_cast<Pass>(draw(0, 3));
  p.dtype = draw.one_in(3) ? DType::Float32 : draw.one_in(2) ? DType::BFloat16 : DType::Float16;
  p.channels_last = draw.one_in(2), p.boxes = draw(0, 3) > 0, p.transforms = draw.one_in(10);
  p.hardswish = p.transforms && draw.one_in(2);
  p.accumulate = p.pass != Pass::Weight && draw.one_in(8), p.exact_taps = draw.one_in(8);
  if (p.pass == Pass::Forward && draw.one_in(4)) p.hook = Hook::Statistics;
  if ((p.pass == Pass::Input || p.pass == Pass::Both) && draw.one_in(4))
    p.hook = Hook::NormSums, p.transforms = true;
  p.bias = (p.pass == Pass::Weight || p.pass == Pass::Both) && draw.one_in(2);
  Conv2dGeometry& g = p.geometry;
  g.batch = up_to(300), g.in_channels = g.groups = up_to(130) * (draw.one_in(3) ? 1 : 8);
  g.out_channels = g.in_channels * (draw.one_in(3) ? draw(1, 9) : 1);
  const auto axis = [&](std::int64_t& in, std::int64_t& kernel, std::int64_t& stride, std::int64_t& padding,
                        std::int64_t& dilation, std::int64_t& out) {
    do {
      in = up_to(draw.one_in(8) ? 2000 : 120), kernel = up_to(draw.one_in(8) ? 17 : 7),
      stride = draw.one_in(2) ? 1 : draw(1, 6);
      dilation = kernel > 1 && draw.one_in(3) ? draw(1, 6) : 1;
      const int beyond = draw.one_in(8) ? 9 : 0;  // the taps' reach
      padding = draw.one_in(2) ? (kernel - 1) * dilation / 2
                               : draw(0, static_cast<int>(kernel * dilation) + beyond);
      const std::int64_t places = in + 2 * padding - (kernel - 1) * dilation - 1;
      out = places < 0 ? 0 : places / stride + 1;
      // As "same" padding of an even kernel has it.
      if (out > 0 && stride == 1 && kernel > 1 && draw.one_in(8)) ++out;
    } while (out == 0);
  };
  axis(g.in.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, g.out.h);
  axis(g.in.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, g.out.w);
  const auto alignment = [&](std::int64_t channels) {
    std::int64_t bits = draw.one_in(8) ? 1 << draw(2, 4) : 16;
    if (p.channels_last) bits |= channels * static_cast<std::int64_t>(size_of(p.dtype));
    return static_cast<int>(bits & -bits);
  };
  p.input_alignment = alignment(g.in_channels), p.output_alignment = alignment(g.out_channels);
  p.shared_bytes = kShared[draw(0, 2)];
  return p;
}

std::string to_string(const Problem& p) {
  const auto n = [](std::int64_t number) { return static_cast<int>(number); };
  const Conv2dGeometry& g = p.geometry;
  std::string text =
      to_string(Geometry{n(g.batch), n(g.in_channels), n(g.multiplier()), n(g.kernel.h), n(g.kernel.w),
                         n(g.in.h), n(g.in.w), n(g.out.h), n(g.out.w), n(g.stride.h), n(g.stride.w),
                         n(g.padding.h), n(g.padding.w), n(g.dilation.h), n(g.dilation.w)});
  text += std::string(", pass ") + std::to_string(n(static_cast<int>(p.pass))) + ", " + name(p.dtype);
  for (const bool flag : {p.channels_last, p.bias, p.transforms, p.accumulate, p.boxes, p.exact_taps})
    text += flag ? " 1" : " 0";
  return text + ", alignment " + std::to_string(p.input_alignment) + " " +
         std::to_string(p.output_alignment) + ", shared " + std::to_string(p.shared_bytes);
}

/// Reads a name, a number, or a template's name with its arguments off `text`; how many arguments, or -1: it
/// is none.
int read_expression(std::string_view& text) {
  std::size_t length = 0;
  while (length < text.size() &&
         (std::isalnum(static_cast<unsigned char>(text[length])) != 0 || text[length] == '_'))
    ++length;
  if (length == 0) return -1;
  text.remove_prefix(length);
  if (!text.starts_with('<')) return 0;
  for (int count = 1;; ++count) {
    text.remove_prefix(count == 1 ? 1 : 2);
    if (read_expression(text) < 0) return -1;
    if (text.starts_with('>')) {
      text.remove_prefix(1);
      return count;
    }
    if (!text.starts_with(", ")) return -1;
  }
}

/// Parameters of the kernels' templates.
const std::map<std::string, int, std::less<>> kParameters{
    {"forward_pixels", 11},        {"backward_pixels", 14},    {"forward_planes", 11},
    {"backward_planes", 15},       {"forward_boxes", 6},       {"backward_boxes", 11},
    {"forward_runs", 11},          {"backward_runs", 14},      {"forward_direct", 8},
    {"backward_direct", 6},        {"weigh_direct", 7},        {"backward_float_boxes", 9},
    {"forward_float_boxes", 6},    {"backward_diagonals", 11}, {"forward_matrices", 7},
    {"forward_toeplitz_boxes", 4}, {"backward_pairs", 6},      {"backward_hankel_boxes", 5},
    {"forward_map_boxes", 4},

    {"forward_columns", 5},        {"weigh_columns", 6},       {"weigh_whole_columns", 7},
    {"forward_positions", 6},      {"backward_positions", 6},  {"weigh_positions", 8},
    {"correlate_phases", 10},      {"multiply_phases", 10},    {"weigh_phases", 11},
    {"correlate_rolling", 7},      {"weigh_rolling", 8},       {"correlate_rolling_planes", 10},
    {"weigh_rolling_planes", 12}};

void expect_fits(const Problem& problem, const Plan& plan) {
  SCOPED_TRACE(plan.kernel + ": " + plan.what);
  const bool has_parts = problem.pass == Pass::Weight || problem.pass == Pass::Both;
  EXPECT_GT(plan.launch.blocks, 0);
  EXPECT_LT(plan.launch.blocks, std::int64_t{1} << 31);
  EXPECT_GT(plan.launch.threads, 0);
  EXPECT_LE(plan.launch.threads, 1024);
  EXPECT_EQ(plan.launch.threads % 32, 0);
  EXPECT_GE(plan.launch.shared_bytes, 0);
  EXPECT_LE(plan.launch.shared_bytes, problem.shared_bytes);
  EXPECT_EQ(plan.launch.parts > 0, has_parts);
  EXPECT_EQ(plan.launch.hook_parts > 0, problem.hook != Hook::None);
  EXPECT_EQ(plan.workspace_bytes(problem.geometry, problem.hook) > 0,
            has_parts || problem.hook != Hook::None);
  EXPECT_TRUE(std::isfinite(plan.cost) && plan.cost > 0) << plan.cost;

  static constexpr const char* kFamilies[] = {
      "pixels",    "planes", "boxes",          "runs",          "direct",    "matrices",
      "diagonals", "pairs",  "toeplitz_boxes", "hankel_boxes",  "map_boxes", "columns",
      "positions", "phases", "rolling",        "rolling_planes"};
  const std::size_t bracket = plan.kernel.find('<');
  const std::string name = plan.kernel.substr(0, bracket);
  EXPECT_TRUE(name.ends_with(kFamilies[static_cast<std::size_t>(plan.family)]));
  // Those of phases, and rolling rows, are compiled for what is left of a row of taps.
  const bool has_kernel = !plan.has_phases();
  EXPECT_EQ(name.starts_with("forward"), has_kernel && (problem.pass == Pass::Forward || plan.turned));
  const char* const type = problem.dtype == DType::Float32    ? "<float, Kernel<"
                           : problem.dtype == DType::BFloat16 ? "<BFloat16, Kernel<"
                                                              : "<Float16, Kernel<";
  const Size2 kernel = problem.geometry.kernel;
  const std::size_t parameters =
      plan.family == Plan::Family::Pairs ? plan.kernel.find('<', bracket + 1) : bracket;
  if (has_kernel) {
    EXPECT_EQ(plan.kernel.find(type + std::to_string(kernel.h) + ", " + std::to_string(kernel.w) + ", "),
              parameters);
  }
  std::string_view text = plan.kernel;
  const auto known = kParameters.find(name);
  ASSERT_NE(known, kParameters.end());
  EXPECT_EQ(read_expression(text), known->second);
  EXPECT_TRUE(text.empty()) << text;
}

TEST(Plans, fit_a_gpu_and_do_not_change) {
  std::map<Plan::Family, int> firsts;
  for (unsigned seed = 1; seed <= kProblems && !HasFailure(); ++seed) {
    Draw draw(seed);
    const Problem problem = draw_problem(draw);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + to_string(problem));
    const std::vector<Plan> plans = plans_for(problem), again = plans_for(problem);
    ASSERT_EQ(plans.size(), again.size());
    for (std::size_t i = 0; i < plans.size(); ++i) {
      expect_fits(problem, plans[i]);
      EXPECT_EQ(plans[i].kernel, again[i].kernel);
      EXPECT_EQ(plans[i].what, again[i].what);
      EXPECT_EQ(plans[i].launch.blocks, again[i].launch.blocks);
      EXPECT_EQ(plans[i].launch.shared_bytes, again[i].launch.shared_bytes);
      EXPECT_TRUE(i == 0 || plans[i].family != plans[i - 1].family || plans[i - 1].cost <= plans[i].cost);
    }
    if (!plans.empty()) ++firsts[plans.front().family];
  }
  EXPECT_GE(firsts.size(), 6U) << "families are never the first choice";
}

TEST(Plans, of_all_families_fit_a_gpu_of_little_shared_memory) {
  std::set<Plan::Family> most, few;
  for (unsigned seed = 1; seed <= kProblems; ++seed) {
    Draw draw(seed);
    Problem problem = draw_problem(draw);
    for (const bool little : {false, true}) {
      problem.shared_bytes = little ? kShared[0] : kShared[2];
      for (const Plan& plan : plans_for(problem)) (little ? few : most).insert(plan.family);
    }
  }
  EXPECT_EQ(few, most);
  EXPECT_GE(most.size(), 12U);
}

TEST(Plans, of_several_images_are_offered_for_small_maps) {
  for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both}) {
    SCOPED_TRACE(static_cast<int>(pass));
    Problem problem;
    problem.pass = pass, problem.dtype = DType::BFloat16, problem.channels_last = problem.boxes = true;
    const auto count = [&](std::int64_t images, std::int64_t size, std::int64_t stride) {
      constexpr std::int64_t kChannels = 512;
      const Size2 in(size), out((size - 1) / stride + 1);
      problem.geometry = {images, kChannels, kChannels,     kChannels, in,
                          out,    {3, 3},    Size2(stride), {1, 1},    {1, 1}};
      const std::vector<Plan> plans = plans_for(problem);
      return std::count_if(plans.begin(), plans.end(),
                           [](const Plan& plan) { return plan.what.ends_with(" images"); });
    };
    EXPECT_GT(count(256, 7, 1), 0);
    EXPECT_GT(count(2, 8, 1), 0);
    EXPECT_GT(count(256, 14, 2), 0);
    EXPECT_GT(count(256, 14, 1), 0);
    EXPECT_EQ(count(1, 7, 1), 0);
    EXPECT_EQ(count(256, 17, 1), 0);
  }
}

/// Channels side by side, padding as "same" has it.
Problem small_problem(Pass pass, DType dtype, std::int64_t images, std::int64_t channels, std::int64_t size,
                      std::int64_t kernel, std::int64_t stride) {
  Problem problem;
  problem.pass = pass, problem.dtype = dtype, problem.channels_last = problem.boxes = true;
  problem.exact_taps = pass != Pass::Weight && dtype == DType::Float32;
  problem.geometry = {images,        channels,      channels,
                      channels,      Size2(size),   Size2((size - 1) / stride + 1),
                      Size2(kernel), Size2(stride), Size2((kernel - 1) / 2),
                      {1, 1}};
  return problem;
}

TEST(Plans, small_problems_with_channels_side_by_side_go_the_direct_way) {
  const auto is_direct = [](const Plan& plan) { return plan.family == Plan::Family::Direct; };
  const auto count = [&](const Problem& problem) {
    const std::vector<Plan> plans = plans_for(problem);
    return std::count_if(plans.begin(), plans.end(), is_direct);
  };
  const auto is_first = [&](const Problem& problem) { return is_direct(plans_for(problem).front()); };
  for (const Pass pass : {Pass::Forward, Pass::Input})
    for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
      SCOPED_TRACE(std::string(name(dtype)) + ", pass " + std::to_string(static_cast<int>(pass)));
      EXPECT_TRUE(is_first(small_problem(pass, dtype, 1, 960, 7, 3, 1)));
      EXPECT_TRUE(is_first(small_problem(pass, dtype, 1, 576, 14, 3, 2)));
      EXPECT_TRUE(is_first(small_problem(pass, dtype, 1, 384, 14, 3, 1)));
      EXPECT_TRUE(is_first(small_problem(pass, dtype, 1, 144, 56, 3, 1)));
      EXPECT_TRUE(is_first(small_problem(pass, dtype, 1, 32, 112, 3, 1)));
      EXPECT_GT(count(small_problem(pass, dtype, 1, 120, 28, 5, 1)), 0);
      EXPECT_GT(count(small_problem(pass, dtype, 1, 240, 28, 5, 2)), 0);
      // Larger ones may be tried, and very large ones need not.
      const Problem medium = small_problem(pass, dtype, dtype == DType::Float32 ? 3 : 6, 144, 56, 3, 1);
      EXPECT_GT(count(medium), 0);
      EXPECT_FALSE(is_first(medium));
      EXPECT_EQ(count(small_problem(pass, dtype, 256, 144, 56, 3, 1)), 0);
      EXPECT_EQ(count(small_problem(pass, dtype, 1, 384, 14, 7, 1)), 0);
      Problem other = small_problem(pass, dtype, 1, 384, 14, 3, 1);
      other.channels_last = false;
      EXPECT_EQ(count(other), 0);
      other = small_problem(pass, dtype, 1, 384, 14, 3, 1);
      other.transforms = true;
      EXPECT_EQ(is_first(other), pass == Pass::Input || dtype == DType::Float32);
      EXPECT_GT(count(other), 0);
      other.hook = pass == Pass::Forward ? Hook::Statistics : Hook::NormSums;
      EXPECT_EQ(count(other), 0);
    }
  for (const DType dtype : {DType::Float32, DType::BFloat16}) {
    EXPECT_TRUE(is_first(small_problem(Pass::Weight, dtype, 1, 960, 7, 3, 1)));
    EXPECT_GT(count(small_problem(Pass::Weight, dtype, 1, 384, 14, 3, 1)), 0);
    EXPECT_FALSE(is_first(small_problem(Pass::Weight, dtype, 1, 32, 112, 3, 1)));
  }
  EXPECT_EQ(count(small_problem(Pass::Both, DType::Float32, 1, 384, 14, 3, 1)), 0);
}

TEST(Plans, of_few_channels_have_blocks_of_as_many) {
  for (const std::int64_t channels : {2, 3, 9})
    for (const Pass pass : {Pass::Forward, Pass::Input, Pass::Weight}) {
      Problem problem;
      problem.pass = pass, problem.dtype = DType::BFloat16, problem.channels_last = true;
      problem.input_alignment = problem.output_alignment = channels % 2 == 0 ? 4 : 2;
      problem.geometry = {500,     channels, channels, channels, {9, 33},
                          {9, 33}, {9, 9},   {1, 1},   {4, 4},   {1, 1}};
      const std::vector<Plan> plans = plans_for(problem);
      ASSERT_FALSE(plans.empty());
      EXPECT_NE(plans.front().what.find(", " + std::to_string(channels) + " channels"), std::string::npos)
          << plans.front().what;
    }
}

// Of several outputs a channel, in planes.
TEST(Plans, are_there_up_to_15x15_with_steps_of_three) {
  for (unsigned seed = 1; seed <= kProblems; ++seed) {
    Draw draw(seed);
    Problem problem;
    problem.pass = static_cast<Pass>(draw(0, 2));
    problem.dtype = draw.one_in(3) ? DType::Float32 : draw.one_in(2) ? DType::BFloat16 : DType::Float16;
    problem.boxes = draw.one_in(2), problem.accumulate = problem.pass == Pass::Input && draw.one_in(4);
    problem.channels_last = draw.one_in(4);
    Conv2dGeometry& g = problem.geometry;
    g.batch = draw(1, 200), g.in_channels = g.groups = draw(1, 500);
    g.out_channels = g.in_channels * draw(1, problem.channels_last ? 2 : 8);
    const auto axis = [&](std::int64_t& in, std::int64_t& kernel, std::int64_t& stride, std::int64_t& padding,
                          std::int64_t& dilation, std::int64_t& out) {
      kernel = draw(1, 15), stride = draw(1, 3), dilation = kernel > 1 ? draw(1, 3) : 1;
      const std::int64_t reach = (kernel - 1) * dilation;
      padding = draw(0, static_cast<int>(reach));
      in = std::max<std::int64_t>(draw(1, 200), reach + 1 - 2 * padding);
      out = (in + 2 * padding - reach - 1) / stride + 1;
    };
    axis(g.in.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h, g.out.h);
    axis(g.in.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w, g.out.w);
    if (problem.channels_last) {
      const auto alignment = [&](std::int64_t channels) {
        const std::int64_t bytes = (channels * static_cast<std::int64_t>(size_of(problem.dtype))) | 16;
        return static_cast<int>(bytes & -bytes);
      };
      problem.input_alignment = alignment(g.in_channels),
      problem.output_alignment = alignment(g.out_channels);
    }
    problem.shared_bytes = kShared[draw(0, 2)];
    if (plans_for(problem).empty()) ADD_FAILURE() << "seed " << seed << ": " << to_string(problem);
  }
}

TEST(Plans, are_none_for_what_only_the_generic_kernels_do) {
  Draw draw(1);
  Problem problem = draw_problem(draw);
  problem.geometry = {1, 8, 8, 8, {20, 20}, {20, 20}, {3, 3}, {1, 1}, {1, 1}, {1, 1}};
  EXPECT_FALSE(plans_for(problem).empty());
  Problem other = problem;
  other.dtype = DType::Float64;
  EXPECT_TRUE(plans_for(other).empty());
  other = problem;
  other.geometry.kernel = {17, 3}, other.geometry.padding = {8, 1};
  EXPECT_TRUE(plans_for(other).empty());
  other = problem;
  other.geometry.out_channels = 9 * other.geometry.in_channels;
  EXPECT_TRUE(plans_for(other).empty());
}

}  // namespace
}  // namespace lamella::depthwise::checks
