#include <gmock/gmock.h>

#include <cmath>

#include "lamella/io/safetensors.h"
#include "program.h"
#include "tests/support/temp_folder.h"

// --accumulate: several batches make one step, as a batch so many times larger would.
namespace lamella::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class MobileNetAccumulateTest : public ::testing::Test {
 protected:
  void SetUp() override { make_small_dataset(images_); }  // 24 images to train on

  /// Trains with everything that counts steps.
  Outcome train(const fs::path& net, std::vector<std::string> more,
                const RunConditions& conditions = {}) const {
    std::vector<std::string> all = {"train",
                                    "--data",
                                    images_,
                                    "--checkpoint",
                                    net,
                                    "--csv",
                                    net.string() + ".csv",
                                    "--width",
                                    "0.1",
                                    "--lr",
                                    "0.1",
                                    "--epochs",
                                    "4",
                                    "--schedule",
                                    "one-cycle",
                                    "--ema",
                                    "0.9",
                                    "--clip-grad-norm",
                                    "0.05",
                                    "--label-smoothing",
                                    "0.1",
                                    "--device",
                                    "cpu",
                                    "--threads",
                                    "1"};
    all.insert(all.end(), more.begin(), more.end());
    return mobilenet(all, conditions);
  }
  /// The same, without what depends on the batch that an image is in: norms keep their statistics where their
  /// parameters are frozen. It starts from a network that has features to go by.
  void train_alike(const std::string& name, std::vector<std::string> more) const {
    const auto base = temp_ / "base";
    if (!std::filesystem::exists(base)) {
      const Outcome outcome = train(base, {"--epochs", "10", "--batch", "8", "--lr", "0.01"});
      ASSERT_EQ(outcome.status, 0) << outcome;
    }
    more.insert(more.end(), {"--init", base, "--freeze", "features.*", "--dropout", "0"});
    const Outcome outcome = train(temp_ / name, more);
    ASSERT_EQ(outcome.status, 0) << outcome;
  }
  /// Of all tensors, weights, averages, momentum and schedule, beside the largest number of each.
  double difference(const std::string& a, const std::string& b) const {
    const StateDict x = io::load_safetensors(temp_ / a), y = io::load_safetensors(temp_ / b);
    EXPECT_EQ(x.size(), y.size());
    double worst = 0;
    for (const auto& [name, tensor] : x) {
      const auto left = tensor.to_vector<double>(), right = y.at(name).to_vector<double>();
      EXPECT_EQ(left.size(), right.size()) << name;
      double largest = 1e-12, apart = 0;
      for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
        largest = std::max(largest, std::abs(left[i]));
        apart = std::max(apart, std::abs(left[i] - right[i]));
      }
      worst = std::max(worst, apart / largest);
    }
    return worst;
  }
  static std::string recipe(const fs::path& net) {
    return io::load_safetensors_file(net).metadata.at("recipe");
  }

  TempFolder temp_;
  const fs::path images_ = temp_ / "images";
};

TEST_F(MobileNetAccumulateTest, does_what_a_larger_batch_does) {
  constexpr double kRounding = 2e-5;
  train_alike("start", {"--batch", "24", "--lr", "0"});
  train_alike("24", {"--batch", "24"});
  train_alike("3x8", {"--batch", "8", "--accumulate", "3"});
  EXPECT_GT(difference("start", "24"), 0.01) << "it learns";
  EXPECT_LT(difference("24", "3x8"), kRounding);
  EXPECT_THAT(recipe(temp_ / "3x8"), HasSubstr("\"accumulate\":3"));
  // Images that make no whole batch are left out, and batches that make no whole step.
  train_alike("16", {"--batch", "16"});
  train_alike("4x4", {"--batch", "4", "--accumulate", "4"});
  train_alike("2x8", {"--batch", "8", "--accumulate", "2"});
  EXPECT_GT(difference("24", "16"), 0.001);
  EXPECT_LT(difference("16", "4x4"), kRounding);
  EXPECT_LT(difference("16", "2x8"), kRounding);
  // Where an epoch has fewer, all of them make a step.
  train_alike("9x8", {"--batch", "8", "--accumulate", "9"});
  EXPECT_LT(difference("24", "9x8"), kRounding);
}

TEST_F(MobileNetAccumulateTest, does_it_with_a_scaled_loss) {
  const std::vector<std::string> half = {"--precision", "float16"};
  auto large = half, small = half;
  large.insert(large.end(), {"--batch", "24"});
  small.insert(small.end(), {"--batch", "8", "--accumulate", "3"});
  train_alike("24", large);
  train_alike("3x8", small);
  EXPECT_LT(difference("24", "3x8"), 5e-3);
  train_alike("16", {"--precision", "float16", "--batch", "16"});
  EXPECT_GT(difference("24", "16"), 2e-2);
}

TEST_F(MobileNetAccumulateTest, goes_on_wherever_a_checkpoint_was_written) {
  // Six batches an epoch, of which four make steps: of two at a time there are three, of four one.
  for (const char* accumulate : {"2", "4"}) {
    const fs::path folder = temp_ / accumulate, net = folder / "net.safetensors";
    fs::create_directories(folder);
    const std::vector<std::string> options = {
        "--batch", "4",    "--accumulate", accumulate, "--precision",        "float16", "--dropout", "0.3",
        "--lr",    "0.01", "--epochs",     "3",        "--checkpoint-every", "1",       "--keep",    "30"};
    const Outcome whole = train(net, options);
    ASSERT_EQ(whole.status, 0) << whole;
    const auto bits = get_file(net);
    int kept = 0;
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with("net.") || !name.ends_with(".safetensors") || entry.path() == net) continue;
      ++kept;
      const Outcome resumed =
          mobilenet({"train", "--resume", "--checkpoint", entry.path(), "--threads", "1"});
      ASSERT_EQ(resumed.status, 0) << resumed;
      EXPECT_EQ(get_file(entry.path()), bits) << name;
    }
    // After each step, and at the end of each epoch once more.
    EXPECT_EQ(kept, accumulate[0] == '2' ? 3 * 3 + 3 - 1 : 3 * 1 + 3 - 1);
  }
}

TEST_F(MobileNetAccumulateTest, an_interrupt_waits_for_the_step) {
  const std::vector<std::string> options = {"--batch",  "4",  "--accumulate", "3",
                                            "--epochs", "60", "--lr",         "0.001"};
  ASSERT_EQ(train(temp_ / "whole", options).status, 0);
  const Outcome stopped = train(temp_ / "parts", options, {.interrupt_after = "epoch 2/60"});
  ASSERT_EQ(stopped.status, 130) << stopped;
  const Outcome resumed = mobilenet({"train", "--resume", "--checkpoint", temp_ / "parts", "--threads", "1"});
  ASSERT_EQ(resumed.status, 0) << resumed;
  EXPECT_EQ(get_file(temp_ / "parts"), get_file(temp_ / "whole"));
}

TEST_F(MobileNetAccumulateTest, refuses_what_is_no_number_of_batches) {
  for (const char* number : {"0", "-1"}) {
    const Outcome outcome = train(temp_ / "net", {"--accumulate", number});
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error,
                HasSubstr("accumulate is " + std::string(number) + ", must be between 1 and "));
  }
}

}  // namespace
}  // namespace lamella::test
