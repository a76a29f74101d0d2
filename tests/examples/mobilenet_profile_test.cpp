#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "program.h"
#include "tests/support/temp_folder.h"

namespace lamella::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(MobileNetProfileTest, train_and_eval_say_where_time_and_memory_go) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const std::vector<std::string> train{
      "train",   "--data", temp / "images", "--checkpoint", temp / "net", "--width", "0.1", "--epochs", "1",
      "--batch", "8",      "--device",      "cpu"};
  std::vector<std::string> profiled = train;
  profiled.insert(profiled.end(), {"--profile", temp / "profile", "--profile-steps", "4"});
  const Outcome outcome = mobilenet(profiled);
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.out, HasSubstr("4 steps on cpu"));
  EXPECT_THAT(outcome.out,
              ContainsRegex("\ndepthwise_conv2d +gradient +depthwise_conv2d_backward +17 +[0-9.]+"));
  EXPECT_THAT(outcome.out, ContainsRegex("\nSGD +update +sgd_step"));
  EXPECT_THAT(outcome.out, ContainsRegex("\nactivations +[0-9.]+ [KM]iB\n"));
  EXPECT_THAT(outcome.out, ContainsRegex("\nparameters +[0-9.]+ [KM]iB\n"));
  EXPECT_FALSE(std::filesystem::exists(temp / "net"));  // it is no training
  EXPECT_FALSE(std::filesystem::exists(temp / "net.toml"));
  EXPECT_THAT(outcome.out, HasSubstr(text_of(temp / "profile/operators.txt")));
  EXPECT_THAT(outcome.out, HasSubstr(text_of(temp / "profile/memory.txt")));
  const auto trace = nlohmann::json::parse(text_of(temp / "profile/trace.json"));
  EXPECT_GT(trace.at("traceEvents").size(), 1000U);

  ASSERT_EQ(mobilenet(train).status, 0);
  const Outcome eval = mobilenet({"eval", "--checkpoint", temp / "net", "--batch", "8", "--profile",
                                  temp / "profile", "--profile-steps", "2", "--device", "cpu"});
  EXPECT_EQ(eval.status, 2) << eval;  // there is no --batch
  const Outcome tested = mobilenet({"eval", "--checkpoint", temp / "net", "--profile", temp / "profile",
                                    "--profile-steps", "2", "--device", "cpu"});
  ASSERT_EQ(tested.status, 0) << tested;
  EXPECT_THAT(tested.out, HasSubstr("2 steps on cpu"));
  EXPECT_THAT(tested.out, Not(HasSubstr(" gradient ")));
  EXPECT_THAT(tested.out, Not(HasSubstr("accuracy")));
}

TEST(MobileNetProfileTest, refuses_what_it_cannot_do) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const auto profile = [&](const std::string& folder, const std::string& steps) {
    return mobilenet({"train", "--data", temp / "images", "--checkpoint", temp / "net", "--device", "cpu",
                      "--profile", folder, "--profile-steps", steps});
  };
  Outcome outcome = profile(temp / "profile", "0");
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("profile-steps is 0, must be 1 or more"));
  std::ofstream(temp / "file") << "no folder";
  outcome = profile(temp / "file", "1");
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("profile: cannot make the folder"));
  EXPECT_EQ(mobilenet({"train", "--data", temp / "images", "--profile-steps", "1"}).status, 2);
}

}  // namespace
}  // namespace lamella::test
