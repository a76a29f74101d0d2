#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "lamella/io/safetensors.h"
#include "lamella/tensor/create.h"
#include "program.h"
#include "tests/support/temp_folder.h"

// train --init and --freeze.
namespace lamella::test {
namespace {

using ::testing::FloatEq;
using ::testing::HasSubstr;
using ::testing::Pointwise;

/// A tiny network of three classes, and images of two other sets of classes.
class MobileNetFineTuneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    make_small_dataset(temp_ / "three");
    make_small_dataset(temp_ / "two");
    for (const char* part : {"train", "test"}) std::filesystem::remove_all(temp_ / "two" / part / "light");
    const Outcome outcome = train("three", "base", {"--ema", "0.5"});
    ASSERT_EQ(outcome.status, 0) << outcome;
  }
  Outcome train(const std::string& images, const std::string& checkpoint,
                const std::vector<std::string>& more, const RunConditions& conditions = {}) {
    std::vector<std::string> all = {"train",
                                    "--data",
                                    temp_ / images,
                                    "--checkpoint",
                                    temp_ / checkpoint,
                                    "--width",
                                    "0.1",
                                    "--epochs",
                                    "2",
                                    "--batch",
                                    "8",
                                    "--device",
                                    "cpu",
                                    "--flip",
                                    "0"};
    all.insert(all.end(), more.begin(), more.end());
    return mobilenet(all, conditions);
  }
  void expect_error(const std::vector<std::string>& options, const std::string& message, int status = 1) {
    const Outcome outcome = train("two", "wrong", options);
    EXPECT_EQ(outcome.status, status) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr(message));
    EXPECT_FALSE(std::filesystem::exists(temp_ / "wrong"));
  }
  StateDict tensors(const std::string& file) { return io::load_safetensors(temp_ / file); }

  TempFolder temp_;
};

std::vector<double> numbers(const StateDict& dict, const std::string& name) {
  return dict.at(name).to_vector<double>();
}

TEST_F(MobileNetFineTuneTest, starts_from_a_checkpoint_but_for_the_classifier) {
  const Outcome outcome = train("two", "net", {"--init", temp_ / "base", "--lr", "0"});
  ASSERT_EQ(outcome.status, 0) << outcome;
  const StateDict base = tensors("base"), net = tensors("net");
  const auto all = std::count_if(net.begin(), net.end(),
                                 [](const auto& entry) { return entry.first.starts_with("network."); });
  EXPECT_THAT(outcome.error,
              HasSubstr("init: " + std::to_string(all - 2) + " of the network's " + std::to_string(all) +
                        " tensors are from " + (temp_ / "base").string()));
  EXPECT_THAT(outcome.error,
              HasSubstr("init: 0 missing, 0 unexpected, 2 of another shape\n"
                        "  another shape: classifier.1.weight is [3,1280], must be [2,1280]\n"));
  for (const char* name : {"features.0.0.weight", "features.18.0.weight", "features.18.1.bias"})
    EXPECT_EQ(numbers(net, std::string("network.") + name), numbers(base, std::string("ema.module.") + name));
}

TEST_F(MobileNetFineTuneTest, starts_from_plain_weights_as_PyTorch_saves_them) {
  StateDict plain;
  for (const auto& [name, tensor] : tensors("base"))
    if (name.starts_with("network.") && name != "network.features.0.1.running_var")
      plain.set(name.substr(8), tensor.to(float64));
  plain.set("extra", ones({3}));
  io::save_safetensors(temp_ / "plain", plain);
  const Outcome outcome = train("three", "net", {"--init", temp_ / "plain", "--lr", "0"});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("init: 1 missing, 1 unexpected, 0 of another shape\n"
                                       "  missing: features.0.1.running_var\n"
                                       "  unexpected: extra\n"));
  const StateDict base = tensors("base"), net = tensors("net");
  for (const char* name : {"network.features.0.0.weight", "network.classifier.1.weight"})
    EXPECT_EQ(numbers(net, name), numbers(base, name));
}

TEST_F(MobileNetFineTuneTest, what_is_frozen_keeps_its_bits) {
  const std::vector<std::string> options = {
      "--init",        temp_ / "base", "--freeze", "features.?.*",     "--freeze",
      "features.1?.*", "--ema",        "0.9",      "--clip-grad-norm", "1"};
  const Outcome outcome = train("two", "net", options);
  ASSERT_EQ(outcome.status, 0) << outcome;
  const StateDict base = tensors("base"), net = tensors("net");
  std::size_t frozen = 0;
  for (const auto& [name, tensor] : base) {
    const std::string prefix = "ema.module.features.";
    if (!name.starts_with(prefix)) continue;
    ++frozen;
    const std::string inner = name.substr(std::string("ema.module.").size());
    EXPECT_EQ(numbers(net, "network." + inner), numbers(base, name)) << inner;
    EXPECT_THAT(numbers(net, name), Pointwise(FloatEq(), numbers(base, name))) << inner;  // averages round
  }
  EXPECT_GT(frozen, 200u);
  ASSERT_EQ(train("two", "start", {"--init", temp_ / "base", "--lr", "0"}).status, 0);
  EXPECT_NE(numbers(net, "network.classifier.1.weight"),
            numbers(tensors("start"), "network.classifier.1.weight"));
  EXPECT_EQ(mobilenet({"eval", "--checkpoint", temp_ / "net"}).status, 0);

  // Also without --init, and gone on with after an interruption.
  const std::vector<std::string> long_run = {"--freeze", "features.*", "--epochs", "40"};
  ASSERT_EQ(train("two", "whole", long_run).status, 0);
  ASSERT_EQ(train("two", "resumed", long_run, {.interrupt_after = "epoch 2/40:"}).status, 130);
  ASSERT_EQ(mobilenet({"train", "--resume", "--checkpoint", temp_ / "resumed"}).status, 0);
  EXPECT_EQ(get_file(temp_ / "resumed"), get_file(temp_ / "whole"));
}

TEST_F(MobileNetFineTuneTest, freezes_as_a_recipe_says) {
  const std::string text = R"({"freeze": ["features.*"], "lr": 0.01})";
  put_file(temp_ / "recipe.json", {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  ASSERT_EQ(train("three", "net", {"--init", temp_ / "base", "--recipe", temp_ / "recipe.json"}).status, 0);
  EXPECT_THAT(io::load_safetensors_file(temp_ / "net").metadata.at("recipe"),
              HasSubstr(R"("freeze":["features.*"])"));
  EXPECT_EQ(numbers(tensors("net"), "network.features.0.0.weight"),
            numbers(tensors("base"), "ema.module.features.0.0.weight"));
}

TEST_F(MobileNetFineTuneTest, errors) {
  expect_error({"--freeze", "feature.*"}, "freeze: no parameter of MobileNetV2 matches \"feature.*\"");
  expect_error({"--freeze", "*"}, "freeze: leaves no parameter to train");
  expect_error({"--init", temp_ / "none"}, "none");
  io::save_safetensors(temp_ / "other", {{"weight", ones({3})}});
  expect_error({"--init", temp_ / "other"},
               "other: nothing in it fits a MobileNetV2; its first tensor is weight ");
  expect_error({"--init", temp_ / "base", "--model", "v1"}, "base: nothing in it fits a MobileNetV1");
  put_file(temp_ / "text", {});
  expect_error({"--init", temp_ / "text"}, "text");
  const std::string base = temp_ / "base";
  EXPECT_EQ(mobilenet({"train", "--resume", "--checkpoint", base, "--init", base}).status, 2);
  EXPECT_EQ(mobilenet({"train", "--resume", "--checkpoint", base, "--freeze", "*"}).status, 2);
  const std::string recipe = R"({"freeze": "features.*"})";
  put_file(temp_ / "recipe.json", {reinterpret_cast<const std::uint8_t*>(recipe.data()), recipe.size()});
  expect_error({"--recipe", temp_ / "recipe.json"}, "freeze cannot be \"features.*\"");
}

/// The script of the guide, on ten classes that are copies of two.
TEST(MobileNetFineTuningScriptTest, trains_all_three_ways) {
  const TempFolder temp;
  make_small_dataset(temp / "small");
  const std::vector<std::string> classes{"airplane", "automobile", "bird",  "cat",  "deer",
                                         "dog",      "frog",       "horse", "ship", "truck"};
  for (const char* part : {"train", "test"}) {
    std::filesystem::create_directories(temp / "cifar10" / part);
    for (std::size_t i = 0; i < classes.size(); ++i)
      std::filesystem::copy(temp / "small" / part / (i % 2 == 0 ? "bars" : "dark"),
                            temp / "cifar10" / part / classes[i]);
  }
  std::ofstream(temp / "recipe.json") << R"({"width": 0.1, "epochs": 1, "batch": 8, "stem": "small"})";
  const std::string command = "EPOCHS=1 '" LAMELLA_SOURCE_DIR
                              "/examples/mobilenet/fine_tuning.sh' '" MOBILENET_PROGRAM "' '" +
                              (temp / "cifar10").string() + "' '" + (temp / "work").string() + "' '" +
                              (temp / "recipe.json").string() + "' 3 > '" + (temp / "out").string() +
                              "' 2> '" + (temp / "error").string() + "'";
  const auto text_of = [](const std::filesystem::path& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  ASSERT_EQ(std::system(command.c_str()), 0) << text_of(temp / "error");  // NOLINT(cert-env33-c)
  const std::string out = text_of(temp / "out");
  for (const char* name : {"base ", "from-nothing-3 ", "fine-tuned-3 ", "classifier-alone-3 "})
    EXPECT_THAT(out, ::testing::ContainsRegex(std::string("(^|\n)") + name +
                                              " +epoch 1/1: test accuracy [0-9.]+ % \\([0-9]+ of 15\\)"));
  // Both that start from the first network take all but its classifier.
  EXPECT_THAT(text_of(temp / "error"), HasSubstr("init: "));
}

}  // namespace
}  // namespace lamella::test
