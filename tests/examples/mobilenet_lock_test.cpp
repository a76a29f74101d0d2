#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "tests/support/temp_folder.h"

// Two processes and one checkpoint, and what processes leave that are killed.
namespace lamella::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class MobileNetLockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    make_small_dataset(images_);
    fs::create_directories(folder_);
  }

  std::vector<std::string> training(const fs::path& net, std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"train", "--data",   images_, "--checkpoint", net,    "--width",
                                    "0.1",   "--epochs", "2",     "--lr",         "0.01", "--batch",
                                    "8",     "--device", "cpu",   "--keep",       "3",    "--keep-best"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  TempFolder temp_;
  const fs::path images_ = temp_ / "images", folder_ = temp_ / "nets",
                 net_ = temp_ / "nets" / "net.safetensors";
};

TEST_F(MobileNetLockTest, removes_what_killed_writers_left_whoever_has_their_numbers_now) {
  // No process has so large a number; the test's own is that of a living one, which does not train.
  std::vector<std::string> left;
  for (const std::string& number : {std::string("2000000000"), std::to_string(::getpid())})
    for (const char* what : {"-0", "-spare"}) left.push_back(net_.string() + ".tmp-" + number + what);
  left.push_back(net_.string() + ".toml.tmp-new");
  left.push_back(net_.string() + ".lock");
  for (const std::string& path : left) put_file(path, {});
  const std::string others = net_.string() + ".tmp-backup";
  put_file(others, {});
  const Outcome outcome = mobilenet(training(net_));
  ASSERT_EQ(outcome.status, 0) << outcome;
  for (const std::string& path : left) EXPECT_FALSE(fs::exists(path)) << path;
  EXPECT_TRUE(fs::exists(others));
}

TEST_F(MobileNetLockTest, goes_on_where_one_of_the_same_number_was_killed) {
  ASSERT_EQ(mobilenet(training(net_)).status, 0);
  const auto whole = get_file(net_);
  // In a container every process may be number 1. Killed between its steps, one leaves a second name of the
  // newest checkpoint, and the beginning of the next.
  const auto leave = [&] {
    const std::string begin = net_.string() + ".tmp-" + std::to_string(::getpid());
    if (::link(net_.c_str(), (begin + "-spare").c_str()) != 0) ::_exit(125);
    for (int i = 0; i < 150; ++i) put_file(begin + '-' + std::to_string(i), {});
  };
  const Outcome outcome = mobilenet(training(net_), {.first = leave});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_EQ(get_file(net_), whole);
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
}

TEST_F(MobileNetLockTest, refuses_a_second_process) {
  const auto expect_refused = [&](const std::vector<std::string>& arguments) {
    const Outcome outcome = mobilenet(arguments);
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr("error: train: process "));
    EXPECT_THAT(outcome.error, HasSubstr(" is training to " + net_.string()));
    EXPECT_THAT(outcome.error, HasSubstr("wait for it, or name another file"));
  };
  const fs::path link = temp_ / "link.safetensors";
  fs::create_symlink(net_, link);
  const std::string writing = net_.string() + ".tmp-2000000000-0";
  bool asked = false;
  const auto second = [&] {
    asked = true;
    put_file(writing, {});  // as if the first were writing it
    expect_refused(training(net_));
    expect_refused(training(link));
    expect_refused({"train", "--resume", "--checkpoint", net_});
    EXPECT_TRUE(fs::exists(writing));
    // Reading is free, and so are other files in the folder.
    EXPECT_EQ(mobilenet({"eval", "--checkpoint", net_}).status, 0);
    EXPECT_EQ(mobilenet({"train", "--resume", "--checkpoint", net_, "--profile", temp_ / "profile"}).status,
              0);
    const Outcome other = mobilenet(training(folder_ / "other.safetensors"));
    EXPECT_EQ(other.status, 0) << other;
  };
  const Outcome first = mobilenet(training(net_, {"--epochs", "200", "--lr", "0.001"}),
                                  {.interrupt_after = "epoch 2/", .then = second});
  ASSERT_EQ(first.status, 130) << first;
  EXPECT_TRUE(asked);
  const Outcome next = mobilenet(training(net_));
  EXPECT_EQ(next.status, 0) << next;
  EXPECT_FALSE(fs::exists(net_.string() + ".lock"));
}

TEST_F(MobileNetLockTest, leaves_a_file_alone_that_is_no_lock) {
  const std::string lock = net_.string() + ".lock", text = "a file of mine";
  put_file(lock, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  const Outcome outcome = mobilenet(training(net_));
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr(lock + " is there and no lock"));
  EXPECT_EQ(get_file(lock).size(), text.size());
}

TEST_F(MobileNetLockTest, keeps_any_number_of_checkpoints) {
  const Outcome outcome = mobilenet(training(net_, {"--keep", "2000000000", "--checkpoint-every", "1"}));
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_TRUE(fs::exists(folder_ / "net.7.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "net.8.safetensors"));
}

TEST_F(MobileNetLockTest, options_are_there_before_the_first_checkpoint) {
  const Outcome outcome = mobilenet(training(net_), {.largest_file = 50000});
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_FALSE(fs::exists(net_));
  const Outcome again = mobilenet({"train", "--config", net_.string() + ".toml"});
  EXPECT_EQ(again.status, 0) << again;
  EXPECT_TRUE(fs::exists(net_));
}

TEST_F(MobileNetLockTest, old_options_stay_where_the_new_cannot_be_written) {
  ASSERT_EQ(mobilenet(training(net_)).status, 0);
  const fs::path options = net_.string() + ".toml";
  const auto before = get_file(options);
  const Outcome outcome = mobilenet(training(net_, {"--seed", "7"}), {.largest_file = 100});
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr(options.string() + ": cannot be written: "));
  EXPECT_EQ(get_file(options), before);
  EXPECT_EQ(mobilenet({"train", "--resume", "--config", options}).status, 0);
}

}  // namespace
}  // namespace lamella::test
