#include <gmock/gmock.h>
#include <signal.h>

#include <sstream>

#include "lamella/io/safetensors.h"
#include "program.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

// The figures of epochs: those of the whole epoch, however often it was interrupted, and those that eval
// gives.
namespace lamella::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class MobileNetCurveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    make_small_dataset(images_);
    fs::create_directories(folder_);
  }

  /// Trains a tiny network: 3 steps an epoch.
  std::vector<std::string> training(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {
        "train", "--data",  images_, "--checkpoint", net_, "--csv",     csv_,  "--lr",     "0.01", "--ema",
        "0.9",   "--width", "0.1",   "--batch",      "8",  "--dropout", "0.3", "--device", "cpu"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static std::vector<std::string> split(const std::string& text, char at) {
    std::istringstream stream(text);
    std::vector<std::string> parts;
    for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
    return parts;
  }
  /// The lines without their seconds, which must be there and positive.
  static std::vector<std::string> figures(const fs::path& csv) {
    const auto bytes = get_file(csv);
    std::vector<std::string> lines;
    for (const std::string& line : split({bytes.begin(), bytes.end()}, '\n')) {
      auto columns = split(line, ',');
      EXPECT_EQ(columns.size(), 7u) << line;
      if (columns.size() < 7) continue;
      EXPECT_TRUE(columns[0] == "epoch" || std::atof(columns[3].c_str()) > 0) << line;
      columns[3].clear();
      std::string rest;
      for (const std::string& column : columns) rest += column + ',';
      lines.push_back(rest);
    }
    return lines;
  }
  /// The program's eval must say what the last line of the curve does.
  void expect_eval_agrees(std::vector<std::string> more = {}) const {
    const std::string line = figures(csv_).back();
    const auto columns = split(line, ',');
    more.insert(more.begin(), {"eval", "--checkpoint", net_, "--device", "cpu"});
    const Outcome outcome = mobilenet(more);
    ASSERT_EQ(outcome.status, 0) << outcome;
    const std::size_t at = outcome.out.rfind("accuracy "), loss = outcome.out.rfind("loss ");
    ASSERT_NE(at, std::string::npos) << outcome;
    ASSERT_NE(loss, std::string::npos) << outcome;
    EXPECT_NEAR(std::atof(outcome.out.c_str() + at + 9), 100 * std::atof(columns[2].c_str()), 0.0051)
        << outcome;
    EXPECT_NEAR(std::atof(outcome.out.c_str() + loss + 5), std::atof(columns[4].c_str()), 0.000051)
        << outcome;
  }

  TempFolder temp_;
  const fs::path images_ = temp_ / "images", folder_ = temp_ / "nets",
                 net_ = temp_ / "nets" / "net.safetensors", csv_ = temp_ / "curve.csv";
};

TEST_F(MobileNetCurveTest, an_epoch_in_parts_has_the_figures_of_the_whole) {
  ASSERT_EQ(mobilenet(training({"--epochs", "3", "--checkpoint-every", "1", "--keep", "20"})).status, 0);
  const auto whole = figures(csv_);
  ASSERT_EQ(whole.size(), 4u);
  const auto curve = get_file(csv_);
  int within = 0, untested = 0;
  for (int i = 1; i < 12; ++i) {
    const fs::path kept = folder_ / ("net." + std::to_string(i) + ".safetensors");
    ASSERT_TRUE(fs::exists(kept)) << i;
    const std::string position = io::load_safetensors_file(kept).metadata.at("position");
    within += position.find("\"batches\":1") != std::string::npos ||
              position.find("\"batches\":2") != std::string::npos;
    untested += position.find("\"batches\":3") != std::string::npos;
    put_file(csv_, curve);  // lines of later epochs are written anew
    const Outcome resumed = mobilenet(
        {"train", "--resume", "--checkpoint", kept, "--csv", csv_, "--report", temp_ / "report.html"});
    ASSERT_EQ(resumed.status, 0) << resumed;
    EXPECT_EQ(figures(csv_), whole) << position;
  }
  EXPECT_EQ(within, 6);
  EXPECT_EQ(untested, 3);
}

TEST_F(MobileNetCurveTest, an_interrupt_changes_no_figure) {
  const std::vector<std::string> more = {"--epochs", "40", "--lr", "0.001", "--mixup", "0.2"};
  ASSERT_EQ(mobilenet(training(more)).status, 0);
  const auto whole = figures(csv_);
  // The second begins anew, with a curve of its own.
  Outcome outcome = mobilenet(training(more), {.interrupt_after = "epoch 2/40"});
  ASSERT_EQ(outcome.status, 130) << outcome;
  outcome = mobilenet({"train", "--resume", "--checkpoint", net_, "--csv", csv_},
                      {.interrupt_after = "epoch 9/40"});
  ASSERT_EQ(outcome.status, 130) << outcome;
  outcome = mobilenet({"train", "--resume", "--checkpoint", net_, "--csv", csv_});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_EQ(figures(csv_), whole);
}

TEST_F(MobileNetCurveTest, a_terminal_that_closes_is_an_interrupt) {
  // The tests themselves may run under nohup.
  Outcome outcome = mobilenet(
      training({"--epochs", "40", "--lr", "0.001"}),
      {.interrupt_after = "epoch 2/40", .signal = SIGHUP, .first = [] { ::signal(SIGHUP, SIG_DFL); }});
  ASSERT_EQ(outcome.status, 130) << outcome;
  // Unless nobody wants to hear of it, as with nohup.
  outcome = mobilenet(
      {"train", "--resume", "--checkpoint", net_, "--csv", csv_},
      {.interrupt_after = "epoch 9/40", .signal = SIGHUP, .first = [] { ::signal(SIGHUP, SIG_IGN); }});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_EQ(figures(csv_).size(), 41u);
}

TEST_F(MobileNetCurveTest, a_curve_that_cannot_be_written_does_not_cost_the_epoch) {
  ASSERT_EQ(mobilenet(training({"--epochs", "3", "--checkpoint-every", "3", "--keep", "9"})).status, 0);
  const fs::path net = folder_ / "net.4.safetensors";  // behind the first epoch
  ASSERT_THAT(io::load_safetensors_file(net).metadata.at("position"),
              HasSubstr("\"batches\":0,\"best_accuracy\""));
  // Files may grow a little more than the checkpoint is large, and so is the curve.
  std::string text =
      "epoch,train_loss,test_accuracy,seconds,test_loss,learning_rate,images\n1,1,0.5,1,1,0.01,24,";
  text += std::string(fs::file_size(net) + 50000, 'x') + '\n';
  put_file(csv_, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  const Outcome outcome = mobilenet({"train", "--resume", "--checkpoint", net, "--csv", csv_},
                                    {.largest_file = text.size() + 10});
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("error: " + csv_.string() + ": cannot be written"));
  EXPECT_THAT(io::load_safetensors_file(net).metadata.at("position"), HasSubstr("\"epoch\":2,"));
}

TEST_F(MobileNetCurveTest, another_file_is_not_taken_for_a_curve) {
  const std::string text = "dear diary\n";
  put_file(csv_, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  const Outcome outcome = mobilenet(training());
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr(csv_.string() + " is there and no curve of a training"));
  EXPECT_EQ(get_file(csv_).size(), text.size());
  EXPECT_FALSE(fs::exists(net_));
}

TEST_F(MobileNetCurveTest, eval_gives_what_training_wrote) {
  ASSERT_EQ(mobilenet(training({"--epochs", "2"})).status, 0);
  expect_eval_agrees();
  // Averages, float16 in training only, images made larger or smaller, other layouts.
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--ema", "0"},
                                               {"--precision", "float16"},
                                               {"--image-size", "12"},
                                               {"--image-size", "5"},
                                               {"--image-size", "72"},
                                               {"--memory-format", "contiguous", "--model", "v3-small"},
                                               {"--batch", "5"}}) {
    auto all = more;
    all.insert(all.end(), {"--epochs", "1"});
    const Outcome outcome = mobilenet(training(all));
    ASSERT_EQ(outcome.status, 0) << more[0] << ' ' << outcome;
    expect_eval_agrees();
  }
}

TEST_F(MobileNetCurveTest, eval_gives_what_training_wrote_of_digits) {
  ASSERT_EQ(
      mobilenet(training({"--data", "digits", "--epochs", "1", "--batch", "128", "--flip", "0"})).status, 0);
  expect_eval_agrees();
  expect_eval_agrees({"--data", "digits"});
}

}  // namespace
}  // namespace lamella::test
