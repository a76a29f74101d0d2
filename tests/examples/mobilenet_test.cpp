#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "lamella/io/safetensors.h"
#include "program.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

/// Arguments that train a tiny network on `data`, then `more`.
std::vector<std::string> train(const std::string& data, const std::filesystem::path& checkpoint,
                               std::vector<std::string> more = {}) {
  std::vector<std::string> all = {
      "train", "--data", data,   "--checkpoint", checkpoint, "--width", "0.1", "--epochs", "3",  "--batch",
      "8",     "--lr",   "0.05", "--ema",        "0.9",      "--flip",  "0",   "--device", "cpu"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

class MobileNetTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder();
    make_small_dataset(*folder_ / "images");
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string images() { return *folder_ / "images"; }

  TempFolder temp_;

 private:
  static TempFolder* folder_;
};
TempFolder* MobileNetTest::folder_ = nullptr;

TEST_F(MobileNetTest, trains_tests_and_predicts) {
  const auto checkpoint = temp_ / "net.safetensors";
  const Outcome trained =
      mobilenet(train(images(), checkpoint, {"--epochs", "30", "--lr", "0.01", "--crop-padding", "0"}));
  ASSERT_EQ(trained.status, 0) << trained;
  EXPECT_THAT(trained.error, HasSubstr("epoch 30/30 24/24  loss "));
  EXPECT_THAT(trained.error, Not(HasSubstr("\r")));

  const Outcome tested = mobilenet({"eval", "--checkpoint", checkpoint});
  ASSERT_EQ(tested.status, 0) << tested;
  // The saved network does as well as the trained one did.
  const std::string before = "epoch 30/30: test ";
  const std::size_t last = trained.out.find(before);
  ASSERT_NE(last, std::string::npos) << trained;
  const std::string line =
      trained.out.substr(last + before.size(), trained.out.find('\n', last) - last - before.size());
  EXPECT_THAT(line, HasSubstr(" of 9), loss "));
  EXPECT_THAT(tested.out, HasSubstr(line + '\n'));
  EXPECT_THAT(tested.out, HasSubstr("\nbars "));

  // Another size, another kind of file.
  const auto picture = temp_ / "dark.jpg";
  put_file(picture, encode_jpeg(data::Image(20, 30, 3, 25)));
  const Outcome predicted = mobilenet({"predict", "--checkpoint", checkpoint, "--top", "1", "--draw",
                                       images() + "/test/bars/image0.png", picture});
  ASSERT_EQ(predicted.status, 0) << predicted;
  EXPECT_THAT(predicted.out, ContainsRegex("image0.png: (bars|dark|light) [0-9.]+ %\n"));
  EXPECT_THAT(predicted.out, ContainsRegex("dark.jpg: (bars|dark|light) [0-9.]+ %\n"));
  EXPECT_THAT(predicted.out, HasSubstr("\n%%%%%%%%"));  // a light bar
}

TEST_F(MobileNetTest, gives_the_same_bits_for_any_number_of_threads_and_workers) {
  const auto one = temp_ / "one", two = temp_ / "two";
  ASSERT_EQ(mobilenet(train(images(), one, {"--threads", "1", "--workers", "0"})).status, 0);
  ASSERT_EQ(mobilenet(train(images(), two, {"--threads", "2", "--workers", "3"})).status, 0);
  EXPECT_EQ(get_file(one), get_file(two));
}

TEST_F(MobileNetTest, goes_on_after_an_interruption_as_if_there_had_been_none) {
  const auto whole = temp_ / "whole", resumed = temp_ / "resumed";
  // In float16 the scale of the loss goes on, too.
  // The rate is small, because these images hardly differ and a large one ends in NaN by chance.
  const std::vector<std::string> long_run = {"--epochs",  "60",      "--lr", "0.001",       "--schedule",
                                             "one-cycle", "--mixup", "0.2",  "--precision", "float16"};
  ASSERT_EQ(mobilenet(train(images(), whole, long_run)).status, 0);

  const Outcome stopped = mobilenet(train(images(), resumed, long_run), {.interrupt_after = "epoch 2/60:"});
  ASSERT_EQ(stopped.status, 130) << stopped;
  EXPECT_THAT(stopped.out, HasSubstr("stopped; go on with: lamella-mobilenet train --resume --checkpoint " +
                                     resumed.string()));
  EXPECT_NE(get_file(whole), get_file(resumed));

  const Outcome finished = mobilenet({"train", "--resume", "--checkpoint", resumed});
  ASSERT_EQ(finished.status, 0) << finished;
  EXPECT_THAT(finished.out, Not(HasSubstr("epoch 1/60:")));
  EXPECT_EQ(get_file(whole), get_file(resumed));
}

TEST_F(MobileNetTest, smooths_labels) {
  const auto sharp = temp_ / "sharp", smooth = temp_ / "smooth";
  ASSERT_EQ(mobilenet(train(images(), sharp)).status, 0);
  ASSERT_EQ(mobilenet(train(images(), smooth, {"--label-smoothing", "0.5"})).status, 0);
  const std::string weight = "network.classifier.1.weight";
  EXPECT_NE(io::load_safetensors(sharp).at(weight).to_vector<float>(),
            io::load_safetensors(smooth).at(weight).to_vector<float>());
}

TEST_F(MobileNetTest, reads_a_recipe_that_options_override) {
  const auto recipe = temp_ / "recipe.json";
  const std::string text =
      R"({"model": "v3-small", "width": 0.2, "epochs": 1, "optimizer": "rmsprop", "lr": 0.001})";
  put_file(recipe, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  const auto checkpoint = temp_ / "net";
  const Outcome outcome = mobilenet({"train", "--epochs", "2", "--data", images(), "--checkpoint", checkpoint,
                                     "--recipe", recipe, "--lr", "0.002"});
  ASSERT_EQ(outcome.status, 0) << outcome;
  const std::string saved = io::load_safetensors_file(checkpoint).metadata.at("recipe");
  EXPECT_THAT(saved, HasSubstr(R"("model":"v3-small")"));
  EXPECT_THAT(saved, HasSubstr(R"("epochs":2)"));
  EXPECT_THAT(saved, HasSubstr(R"("lr":0.002)"));
  EXPECT_THAT(outcome.out, HasSubstr("epoch 2/2:"));
}

/// The lines of a text file.
std::vector<std::string> lines_of(const std::filesystem::path& path) {
  const auto bytes = get_file(path);
  std::istringstream text(std::string(bytes.begin(), bytes.end()));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

TEST_F(MobileNetTest, writes_a_curve_that_goes_on_with_the_training) {
  const auto net = temp_ / "net", csv = temp_ / "curve.csv";
  const Outcome stopped = mobilenet(train(images(), net, {"--epochs", "60", "--lr", "0.001", "--csv", csv}),
                                    {.interrupt_after = "epoch 2/60:"});
  ASSERT_EQ(stopped.status, 130) << stopped;
  auto before = lines_of(csv);
  ASSERT_GE(before.size(), 3u);
  EXPECT_EQ(before[0], "epoch,train_loss,test_accuracy,seconds,test_loss,learning_rate,images");
  for (std::size_t i = 1; i < before.size(); ++i)
    EXPECT_THAT(before[i],
                MatchesRegex(std::to_string(i) + ",[0-9]+\\.[0-9]{6},[01]\\.[0-9]{6},[0-9]+\\.[0-9]{3}" +
                             ",[0-9]+\\.[0-9]{6},[0-9.e-]+,24"));
  EXPECT_THAT(stopped.out, HasSubstr("epoch 2/60: test accuracy "));

  // The first as an earlier version wrote it.
  std::size_t comma = 0;
  for (int column = 0; column < 4; ++column) comma = before[1].find(',', comma + 1);
  before[1].resize(comma);
  {
    std::ofstream file(csv);
    for (const std::string& line : before) file << line << '\n';
  }
  before[1] += ",,,";
  // As if the line of an epoch had been written, but not its checkpoint.
  const std::string late = "60,1.000000,0.500000,1.000\n";
  std::ofstream(csv, std::ios::app) << late;
  const Outcome resumed = mobilenet({"train", "--resume", "--checkpoint", net, "--csv", csv});
  ASSERT_EQ(resumed.status, 0) << resumed;
  const auto after = lines_of(csv);
  ASSERT_EQ(after.size(), 61u);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
  for (std::size_t i = 1; i < after.size(); ++i) EXPECT_THAT(after[i], StartsWith(std::to_string(i) + ","));

  ASSERT_EQ(mobilenet(train(images(), net, {"--epochs", "1", "--csv", csv})).status, 0);
  EXPECT_EQ(lines_of(csv).size(), 2u);  // another training, another curve
}

TEST_F(MobileNetTest, computes_in_other_types_and_formats) {
  // Without steps of the weights the running statistics say what forward computed.
  const auto statistics = [&](const std::string& name, std::vector<std::string> options) {
    options.insert(options.end(), {"--epochs", "1", "--lr", "0"});
    const Outcome outcome = mobilenet(train(images(), temp_ / name, options));
    EXPECT_EQ(outcome.status, 0) << outcome;
    EXPECT_EQ(mobilenet({"eval", "--checkpoint", temp_ / name}).status, 0);
    const Tensor variance = io::load_safetensors(temp_ / name).at("network.features.1.conv.2.running_var");
    EXPECT_EQ(variance.dtype(), DType::Float32);
    return variance.to_vector<double>();
  };
  using ::testing::DoubleNear;
  using ::testing::Pointwise;
  const auto usual = statistics("usual", {});
  EXPECT_EQ(statistics("same", {"--memory-format", "channels_last", "--precision", "float32"}), usual);
  EXPECT_EQ(statistics("tf32", {"--precision", "tf32"}), usual);  // on a CPU
  EXPECT_THAT(statistics("planar", {"--memory-format", "contiguous"}), Pointwise(DoubleNear(1e-5), usual));
  const auto mixed = statistics("mixed", {"--precision", "bfloat16"});
  EXPECT_NE(mixed, usual);
  EXPECT_THAT(mixed, Pointwise(DoubleNear(2e-2), usual));
  const auto half = statistics("half", {"--precision", "float16"});
  EXPECT_NE(half, usual);
  EXPECT_THAT(half, Pointwise(DoubleNear(2e-2), usual));
  const double scale = io::load_safetensors(temp_ / "half").at("scaler.scale").item();
  EXPECT_GE(scale, 1);
  EXPECT_LE(scale, 65536);
  EXPECT_EQ(std::exp2(std::round(std::log2(scale))), scale);
}

TEST_F(MobileNetTest, reads_checkpoints_of_earlier_versions) {
  const auto now = temp_ / "now", old = temp_ / "old";
  ASSERT_EQ(mobilenet(train(images(), now)).status, 0);
  io::SafetensorsFile file = io::load_safetensors_file(now);
  std::string& recipe = file.metadata["recipe"];
  for (const std::string setting : {R"("memory_format":"channels_last",)", R"("precision":"float32",)"}) {
    ASSERT_NE(recipe.find(setting), std::string::npos) << recipe;
    recipe.erase(recipe.find(setting), setting.size());
  }
  // What the first format lacked.
  file.metadata.at("lamella.mobilenet") = "1";
  std::string& position = file.metadata.at("position");
  const std::size_t random = position.find(R"("random":)");
  ASSERT_NE(random, std::string::npos) << position;
  position = R"({"epoch":3,"batches":0,)" + position.substr(random);
  io::save_safetensors(old, file.tensors, file.metadata);
  EXPECT_EQ(mobilenet({"eval", "--checkpoint", old}).out, mobilenet({"eval", "--checkpoint", now}).out);
  ASSERT_EQ(mobilenet({"train", "--resume", "--checkpoint", old}).status, 0);
}

TEST_F(MobileNetTest, takes_the_recipes_that_come_with_it) {
  std::size_t recipes = 0;
  for (const auto& file :
       std::filesystem::directory_iterator(LAMELLA_SOURCE_DIR "/examples/mobilenet/recipes")) {
    ++recipes;
    // A cutout made for 32 pixels would leave nothing of these images: batches without any variance explode.
    const Outcome outcome =
        mobilenet({"train", "--recipe", file.path(), "--data", images(), "--checkpoint", temp_ / "net",
                   "--width", "0.1", "--epochs", "1", "--batch", "8", "--cutout", "4"});
    EXPECT_EQ(outcome.status, 0) << file.path() << outcome;
  }
  EXPECT_GE(recipes, 1u);
}

TEST_F(MobileNetTest, trains_every_model_with_every_optimizer) {
  for (const auto& [model, optimizer] : {std::pair{"v1", "adam"}, {"v2", "adamw"}, {"v3-large", "rmsprop"}}) {
    const Outcome outcome =
        mobilenet(train(images(), temp_ / model,
                        {"--model", model, "--optimizer", optimizer, "--epochs", "1", "--lr", "0.001",
                         "--clip-grad-norm", "1", "--warmup-epochs", "0.5"}));
    EXPECT_EQ(outcome.status, 0) << model << ' ' << outcome;
    EXPECT_EQ(mobilenet({"eval", "--checkpoint", temp_ / model}).status, 0) << model;
  }
}

}  // namespace
}  // namespace lamella::test
