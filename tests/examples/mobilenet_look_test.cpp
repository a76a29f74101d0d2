#include <gmock/gmock.h>

#include "program.h"
#include "tests/support/temp_folder.h"

// The commands that look at something: info, summary, eval.
namespace lamella::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(MobileNetLookTest, info_tells_what_there_is) {
  const Outcome outcome = mobilenet({"info"});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.out, HasSubstr("version    lamella 0."));
  for (const char* line :
       {"\ncompiler +[A-Z]", "\nflags ", "\nCPU ", "\nCUDA ", "\nlibraries +spdlog [0-9]",
        "\nthreads +[0-9]+\n", "\nGPUs +([1-9][0-9]*|0 [(].+[)])\n", "\ndevice +(cpu|cuda:0)\n"})
    EXPECT_THAT(outcome.out, ContainsRegex(line));
}

TEST(MobileNetLookTest, summary_lists_the_layers) {
  const Outcome outcome = mobilenet({"summary"});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.out, HasSubstr("MobileNetV2\nlayer "));
  EXPECT_THAT(outcome.out,
              ContainsRegex("\nfeatures.0.0 +Conv2d +\\[1,32,112,112\\] +864 +10,838,016 +1,605,632\n"));
  EXPECT_THAT(outcome.out,
              ContainsRegex("\nclassifier.1 +Linear +\\[1,1000\\] +1,281,000 +1,280,000 +4,000\n"));
  EXPECT_THAT(outcome.out, ContainsRegex("\ntotal +3,504,872 +300,774,272 "));

  const Outcome small = mobilenet({"summary", "--model", "v3-small", "--width", "0.1", "--image-size", "32",
                                   "--classes", "7", "--channels", "1", "--batch", "2"});
  ASSERT_EQ(small.status, 0) << small;
  EXPECT_THAT(small.out, HasSubstr("[2,7]"));
  EXPECT_THAT(small.out, HasSubstr("\ninput [2,1,32,32]; "));
}

TEST(MobileNetLookTest, summary_refuses_what_is_no_network) {
  const auto expect = [](const std::string& option, const std::string& value, const std::string& message) {
    const Outcome outcome = mobilenet({"summary", option, value});
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr("error: " + message));
  };
  expect("--model", "v9", "model is 'v9'");
  expect("--classes", "0", "classes is 0, must be between 1 and 1000000");
  expect("--channels", "-1", "channels is -1");
  expect("--batch", "0", "batch is 0");
  expect("--image-size", "-3", "image_size is -3");
  EXPECT_EQ(mobilenet({"summary", "--model", "v1", "--checkpoint", "net"}).status, 2);
}

TEST(MobileNetLookTest, eval_and_summary_of_a_saved_network) {
  const TempFolder temp;
  make_small_dataset(temp / "images");
  const std::string net = temp / "net";
  ASSERT_EQ(mobilenet({"train", "--data", temp / "images", "--checkpoint", net, "--width", "0.1", "--epochs",
                       "1", "--batch", "8", "--device", "cpu"})
                .status,
            0);
  const Outcome tested = mobilenet({"eval", "--checkpoint", net});
  ASSERT_EQ(tested.status, 0) << tested;
  EXPECT_THAT(tested.out, HasSubstr("class  images    recall  precision\nbars        3  "));
  EXPECT_THAT(tested.out, ContainsRegex("\nlight +3 +[0-9.]+ % +([0-9.]+ %|-)\n"));
  EXPECT_THAT(tested.out, ContainsRegex("\ntop-2 accuracy [0-9.]+ % \\([0-9] of 9\\)\naccuracy "));
  EXPECT_THAT(tested.out, Not(HasSubstr("actual")));
  const Outcome matrix = mobilenet({"eval", "--checkpoint", net, "--confusion"});
  EXPECT_THAT(matrix.out, HasSubstr("actual"));
  EXPECT_THAT(matrix.out, HasSubstr(tested.out));

  const Outcome summary = mobilenet({"summary", "--checkpoint", net});
  ASSERT_EQ(summary.status, 0) << summary;
  EXPECT_THAT(summary.out, HasSubstr("[1,3]"));
  EXPECT_THAT(summary.out, HasSubstr("\ninput [1,3,8,8]; "));
}

}  // namespace
}  // namespace lamella::test
