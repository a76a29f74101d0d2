#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "lamella/core/error.h"
#include "lamella/core/log.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"

// None of this needs a GPU.
namespace lamella::test {
namespace {

using namespace depthwise;

Problem some_problem(Pass pass = Pass::Forward) {
  Problem problem;
  problem.pass = pass;
  problem.channels_last = true;
  Conv2dGeometry& g = problem.geometry;
  g.batch = 8;
  g.in_channels = g.out_channels = g.groups = 64;
  g.in = g.out = Size2(28);
  g.kernel = Size2(3);
  g.padding = Size2(1);
  return problem;
}

/// A file in a folder of its own, gone at the end.
class DepthwiseTuningTest : public testing::Test {
 protected:
  DepthwiseTuningTest() { std::filesystem::create_directory(folder_); }
  ~DepthwiseTuningTest() override {
    unsetenv("LAMELLA_TUNING");
    std::filesystem::remove_all(folder_);
  }
  static std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void replace_contents(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  /// Of an Error that reading throws.
  std::string complaint(const std::string& device = kDevice) const {
    try {
      read_tuning(path_, device);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  static constexpr const char* kDevice = "A GPU 9000";
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("lamella-tuning-" + std::to_string(::getpid()));
  std::string path_ = folder_ / "tuning";
};

TEST_F(DepthwiseTuningTest, different_problems_have_different_texts) {
  std::vector<Problem> problems(1, some_problem());
  const auto add = [&](const auto& change) {
    problems.push_back(some_problem());
    change(problems.back());
  };
  for (const Pass pass : {Pass::Input, Pass::Weight, Pass::Both}) add([&](Problem& p) { p.pass = pass; });
  for (const DType dtype : {bfloat16, float16}) add([&](Problem& p) { p.dtype = dtype; });
  add([](Problem& p) { p.channels_last = false; });
  add([](Problem& p) { p.input_alignment = 8; });
  add([](Problem& p) { p.output_alignment = 8; });
  add([](Problem& p) { p.bias = true; });
  add([](Problem& p) { p.transforms = true; });
  add([](Problem& p) { p.accumulate = true; });
  add([](Problem& p) { p.boxes = true; });
  add([](Problem& p) { p.exact_taps = true; });
  add([](Problem& p) { p.geometry.batch = 9; });
  add([](Problem& p) { p.geometry.in_channels = 32; });
  add([](Problem& p) { p.geometry.out_channels = 128; });
  for (Size2 Conv2dGeometry::*const size :
       {&Conv2dGeometry::in, &Conv2dGeometry::out, &Conv2dGeometry::kernel, &Conv2dGeometry::stride,
        &Conv2dGeometry::padding, &Conv2dGeometry::dilation}) {
    add([&](Problem& p) { (p.geometry.*size).h = 5; });
    add([&](Problem& p) { (p.geometry.*size).w = 5; });
  }
  std::set<std::string> texts;
  for (const Problem& problem : problems) {
    texts.insert(text_of(problem));
    EXPECT_EQ(text_of(problem).find_first_of("\t\n"), std::string::npos);
  }
  EXPECT_EQ(texts.size(), problems.size());
  EXPECT_EQ(text_of(some_problem()), text_of(some_problem()));
}

TEST_F(DepthwiseTuningTest, plans_of_one_text_are_one_plan) {
  for (const Pass pass : {Pass::Forward, Pass::Weight}) {
    std::map<std::string, Plan> plans;
    for (const Plan& plan : plans_for(some_problem(pass))) {
      const auto [same, is_new] = plans.emplace(text_of(plan), plan);
      EXPECT_EQ(text_of(plan).find_first_of("\t\n"), std::string::npos);
      EXPECT_EQ(same->second.cost, plan.cost);
      EXPECT_EQ(same->second.launch.parts, plan.launch.parts);
      EXPECT_EQ(same->second.pixels.cut.strip_rows, plan.pixels.cut.strip_rows);
      EXPECT_EQ(same->second.planes.cut.bands, plan.planes.cut.bands);
    }
    EXPECT_GT(plans.size(), 1U);
  }
}

TEST_F(DepthwiseTuningTest, what_is_written_can_be_read) {
  for (const Tuning& tuning : {Tuning{}, Tuning{{"a", "b <c, 1>"}, {"end ", "end 1"}}}) {
    write_tuning(path_, kDevice, tuning);
    EXPECT_EQ(read_tuning(path_, kDevice), tuning);
  }
  // Nothing stays beside it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(DepthwiseTuningTest, a_file_that_cannot_be_written_is_an_error) {
  EXPECT_THROW(write_tuning(folder_ / "none" / "tuning", kDevice, {}), Error);
  std::filesystem::create_directory(path_);
  EXPECT_THROW(write_tuning(path_, kDevice, {}), Error);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(DepthwiseTuningTest, a_damaged_file_is_not_used) {
  write_tuning(path_, kDevice, {{"problem", "plan"}});
  const std::string whole = contents(path_);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    replace_contents(path_, damaged);
    EXPECT_NE(complaint(), "") << "with byte " << i << " changed";
    replace_contents(path_, whole.substr(0, i));
    EXPECT_NE(complaint(), "") << "of " << i << " bytes";
  }
  replace_contents(path_, whole + "\n");
  EXPECT_NE(complaint(), "");
  replace_contents(path_, whole);
  EXPECT_EQ(complaint(), "");
}

TEST_F(DepthwiseTuningTest, another_gpu_or_version_is_not_used) {
  write_tuning(path_, kDevice, {{"problem", "plan"}});
  EXPECT_NE(complaint("A GPU 900").find("A GPU 9000"), std::string::npos) << complaint("A GPU 900");
  // As another version would write it, with the checksum of its bytes.
  replace_contents(path_, "lamella tuning 1\nversion 0.0.9\ndevice A GPU 9000\nend f945385f516b4c5e\n");
  EXPECT_NE(complaint().find("version 0.0.9"), std::string::npos) << complaint();
}

TEST_F(DepthwiseTuningTest, a_file_that_cannot_be_used_is_one_warning) {
  std::vector<std::string> messages;
  set_log_sink([&](LogLevel, const std::string& message) { messages.push_back(message); });
  EXPECT_TRUE(tuning_from_environment(kDevice).empty());
  EXPECT_TRUE(messages.empty());
  setenv("LAMELLA_TUNING", path_.c_str(), 1);
  EXPECT_TRUE(tuning_from_environment(kDevice).empty());
  EXPECT_EQ(messages.size(), 1U);
  write_tuning(path_, kDevice, {{"problem", "plan"}});
  EXPECT_EQ(tuning_from_environment(kDevice).size(), 1U);
  EXPECT_EQ(messages.size(), 1U);
  set_log_sink({});
}

TEST_F(DepthwiseTuningTest, the_measured_plan_comes_first) {
  const Problem problem = some_problem();
  const std::vector<Plan> plans = plans_for(problem);
  ASSERT_GT(plans.size(), 2U);
  const std::vector<Plan> tuned = plans_to_try(problem, {{text_of(problem), text_of(plans[2])}});
  ASSERT_EQ(tuned.size(), plans.size());
  EXPECT_EQ(text_of(tuned[0]), text_of(plans[2]));
  EXPECT_EQ(text_of(tuned[1]), text_of(plans[0]));
  for (const Tuning& other : {Tuning{}, Tuning{{text_of(problem), "unknown"}},
                              Tuning{{text_of(some_problem(Pass::Input)), text_of(plans[2])}}})
    EXPECT_EQ(text_of(plans_to_try(problem, other)[0]), text_of(plans[0]));
}

/// The problem that text_of() gives this text for.
Problem problem_of(const std::string& text) {
  Problem p;
  Conv2dGeometry& g = p.geometry;
  std::array<char, 16> pass{}, type{}, format{};
  int end = 0;
  const int read = std::sscanf(text.c_str(),
                               "%15s %15s %15s %" SCNd64 "x%" SCNd64 "x%" SCNd64 "x%" SCNd64 " to %" SCNd64
                               "x%" SCNd64 "x%" SCNd64 " k%" SCNd64 "x%" SCNd64 " s%" SCNd64 "x%" SCNd64
                               " p%" SCNd64 "x%" SCNd64 " d%" SCNd64 "x%" SCNd64 " aligned %d,%d%n",
                               pass.data(), type.data(), format.data(), &g.batch, &g.in_channels, &g.in.h,
                               &g.in.w, &g.out_channels, &g.out.h, &g.out.w, &g.kernel.h, &g.kernel.w,
                               &g.stride.h, &g.stride.w, &g.padding.h, &g.padding.w, &g.dilation.h,
                               &g.dilation.w, &p.input_alignment, &p.output_alignment, &end);
  EXPECT_EQ(read, 20) << text;
  g.groups = g.in_channels;
  for (const Pass each : {Pass::Forward, Pass::Input, Pass::Weight, Pass::Both}) {
    p.pass = each;
    if (text_of(p).starts_with(pass.data())) break;
  }
  p.dtype = type.data() == std::string("float32") ? float32 : bfloat16;
  p.channels_last = format.data() == std::string("nhwc");
  std::istringstream rest(text.substr(static_cast<std::size_t>(end)));
  for (std::string word; rest >> word;) {
    if (word == "transforms") p.transforms = true;
    if (word == "hardswish") p.hardswish = true;
    if (word == "statistics") p.hook = Hook::Statistics;
    if (word == "norm_sums") p.hook = Hook::NormSums;
    if (word == "boxes") p.boxes = true;
    if (word == "exact_taps") p.exact_taps = true;
  }
  return p;
}

TEST_F(DepthwiseTuningTest, the_shipped_choices_are_plans_of_this_version) {
  EXPECT_TRUE(shipped_tuning(kDevice).empty());
  const Tuning shipped = shipped_tuning("NVIDIA H200");
  EXPECT_FALSE(shipped.empty());
  for (const auto& [text, measured] : shipped) {
    const Problem problem = problem_of(text);
    ASSERT_EQ(text_of(problem), text);
    const std::vector<Plan> plans = plans_to_try(problem, shipped);
    if (measured == kTwoPasses)
      EXPECT_TRUE(plans.empty()) << text;
    else
      EXPECT_TRUE(!plans.empty() && text_of(plans[0]) == measured) << text << ": " << measured;
  }
}

TEST_F(DepthwiseTuningTest, choices_hold_for_other_batches_and_float16) {
  Problem problem = some_problem();
  problem.dtype = bfloat16;
  const std::vector<Plan> plans = plans_for(problem);
  ASSERT_GT(plans.size(), 2U);
  const Tuning tuning = extend({{text_of(problem), text_of(plans[2])}});
  problem.geometry.batch = 9;
  EXPECT_EQ(plans_to_try(problem, tuning)[0].kernel, plans[2].kernel);
  EXPECT_EQ(plans_to_try(problem, tuning)[0].what, plans[2].what);
  problem.dtype = float16;
  const Plan half = plans_to_try(problem, tuning)[0];
  EXPECT_EQ(half.what, plans[2].what);
  EXPECT_NE(half.kernel.find("Float16"), std::string::npos);
}

TEST_F(DepthwiseTuningTest, the_nearest_batch_decides) {
  Problem problem = some_problem();
  Tuning tuning;
  for (const auto& [batch, plan] : {std::pair{1, "one"}, std::pair{8, "eight"}, std::pair{256, "many"}}) {
    problem.geometry.batch = batch;
    tuning[text_of(problem)] = plan;
  }
  Problem other = problem;
  other.geometry.dilation = Size2(2);
  tuning[text_of(other)] = "of another problem";
  using Names = std::vector<std::string>;
  const auto measured = [&](std::int64_t batch) {
    problem.geometry.batch = batch;
    return measured_for(text_of(problem), tuning);
  };
  EXPECT_EQ(measured(1), (Names{"one", "eight", "many"}));
  EXPECT_EQ(measured(2), (Names{"one", "eight", "many"}));
  EXPECT_EQ(measured(20), (Names{"eight", "many", "one"}));
  EXPECT_EQ(measured(64), (Names{"many", "eight", "one"}));
  EXPECT_EQ(measured(1000), (Names{"many", "eight", "one"}));
  problem.geometry.kernel = Size2(5);
  EXPECT_TRUE(measured(8).empty());
  EXPECT_TRUE(measured_for("nothing", tuning).empty());
}

TEST_F(DepthwiseTuningTest, a_large_batch_does_not_decide_for_a_small_problem) {
  Problem problem = some_problem();
  problem.channels_last = true;
  problem.geometry.batch = 256;
  const auto chosen = [&](std::int64_t batch, const Tuning& tuning) {
    problem.geometry.batch = batch;
    return plans_to_try(problem, tuning).front().family;
  };
  ASSERT_EQ(chosen(1, {}), Plan::Family::Direct);
  problem.geometry.batch = 256;
  const Tuning large{{text_of(problem), text_of(plans_for(problem).front())}};
  EXPECT_EQ(chosen(1, large), Plan::Family::Direct);
  problem.geometry.batch = 1;
  const std::vector<Plan> plans = plans_for(problem);
  const auto other = std::find_if(plans.begin(), plans.end(),
                                  [](const Plan& plan) { return plan.family != Plan::Family::Direct; });
  ASSERT_NE(other, plans.end());
  const Tuning small{{text_of(problem), text_of(*other)}};
  EXPECT_EQ(chosen(1, small), other->family);
  EXPECT_EQ(chosen(2, small), other->family);
}

TEST_F(DepthwiseTuningTest, a_direct_plan_does_not_decide_for_a_larger_batch) {
  Problem problem = some_problem();
  problem.geometry.batch = 1;
  const std::string one = text_of(problem);
  for (const std::int64_t batch : {2, 20}) {
    problem.geometry.batch = batch;
    const std::vector<Plan> plans = plans_for(problem);
    const auto last = std::find_if(plans.rbegin(), plans.rend(),
                                   [](const Plan& plan) { return plan.family == Plan::Family::Direct; });
    ASSERT_NE(last, plans.rend());
    ASSERT_NE(text_of(*last), text_of(plans.front()));
    const Plan first = plans_to_try(problem, {{one, text_of(*last)}})[0];
    EXPECT_EQ(text_of(first), text_of(batch == 2 ? *last : plans.front()));
  }
}

TEST_F(DepthwiseTuningTest, two_passes_may_be_what_was_measured) {
  const Problem both = some_problem(Pass::Both);
  EXPECT_TRUE(plans_to_try(both, {{text_of(both), kTwoPasses}}).empty());
  const std::vector<Plan> plans = plans_for(both);
  ASSERT_FALSE(plans.empty());
  EXPECT_EQ(text_of(plans_to_try(both, {{text_of(both), text_of(plans.back())}})[0]), text_of(plans.back()));
}

}  // namespace
}  // namespace lamella::test
