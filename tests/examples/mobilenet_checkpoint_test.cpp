#include <gmock/gmock.h>

#include <map>

#include "lamella/io/safetensors.h"
#include "program.h"
#include "tests/support/temp_folder.h"

// The files that a training leaves: which ones, that it goes on from each, and that nothing that goes wrong
// costs one.
namespace lamella::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class MobileNetCheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override { make_small_dataset(images_); }

  /// Trains a tiny network: 3 steps an epoch.
  Outcome train(std::vector<std::string> more = {}, const RunConditions& conditions = {}) const {
    std::vector<std::string> all = {"train", "--data",    images_, "--checkpoint", net_, "--width",
                                    "0.1",   "--epochs",  "3",     "--batch",      "8",  "--lr",
                                    "0.01",  "--ema",     "0.9",   "--flip",       "0",  "--device",
                                    "cpu",   "--dropout", "0.3"};
    all.insert(all.end(), more.begin(), more.end());
    return mobilenet(all, conditions);
  }
  Outcome resume(const fs::path& path, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"train", "--resume", "--checkpoint", path});
    return mobilenet(more);
  }
  /// "3 of epoch 2" from a checkpoint's metadata, both counted from 0.
  static std::string position(const fs::path& path) {
    const std::string text = io::load_safetensors_file(path).metadata.at("position");
    const auto number = [&](const std::string& name) {
      const std::size_t at = text.find('"' + name + "\":");
      EXPECT_NE(at, std::string::npos) << text;
      return std::to_string(std::atoll(text.c_str() + at + name.size() + 3));
    };
    return number("batches") + " of epoch " + number("epoch") + ", best " + number("best_epoch");
  }
  std::map<std::string, std::vector<std::uint8_t>> all_files() const {
    std::map<std::string, std::vector<std::uint8_t>> files;
    for (const auto& entry : fs::directory_iterator(folder_))
      if (entry.path().extension() != ".toml") files[entry.path().filename()] = get_file(entry.path());
    return files;
  }
  /// Neither command takes `path` for a checkpoint, and both say why in one line.
  void expect_refused(const fs::path& path, const std::string& message) const {
    const auto before = get_file(path);
    for (const Outcome& outcome : {mobilenet({"eval", "--checkpoint", path}), resume(path)}) {
      EXPECT_EQ(outcome.status, 1) << outcome;
      EXPECT_THAT(outcome.error, HasSubstr("error: "));
      EXPECT_THAT(outcome.error, HasSubstr(path.string()));
      EXPECT_THAT(outcome.error, HasSubstr(message));
    }
    EXPECT_EQ(get_file(path), before);
  }

  TempFolder temp_;
  const fs::path images_ = temp_ / "images", folder_ = temp_ / "nets",
                 net_ = temp_ / "nets" / "net.safetensors";

 private:
  const bool made_ = fs::create_directories(folder_);
};

TEST_F(MobileNetCheckpointTest, keeps_the_last_ones_and_the_best) {
  ASSERT_EQ(train().status, 0);
  EXPECT_EQ(count_entries(folder_), 2u);  // and its options
  const auto plain = get_file(net_);
  const Outcome outcome = train({"--checkpoint-every", "2", "--keep", "4", "--keep-best"});
  ASSERT_EQ(outcome.status, 0) << outcome;
  EXPECT_EQ(get_file(net_), plain) << "what is kept changes nothing";
  EXPECT_EQ(count_entries(folder_), 6u);

  // Of 9 steps every second was saved, and every epoch's end.
  const auto beside = [&](const std::string& what) { return folder_ / ("net." + what + ".safetensors"); };
  EXPECT_THAT(position(net_), HasSubstr("0 of epoch 3, "));
  EXPECT_THAT(position(beside("1")), HasSubstr("2 of epoch 2, "));
  EXPECT_THAT(position(beside("2")), HasSubstr("0 of epoch 2, "));
  EXPECT_THAT(position(beside("3")), HasSubstr("3 of epoch 1, "));
  const std::string best = position(net_).substr(std::string("0 of epoch 3, best ").size());
  EXPECT_EQ(position(beside("best")), "0 of epoch " + best + ", best " + best);

  // Each goes on to the same bits.
  for (const char* which : {"1", "2", "3", "best"}) {
    EXPECT_EQ(mobilenet({"eval", "--checkpoint", beside(which)}).status, 0) << which;
    const Outcome resumed = resume(beside(which));
    ASSERT_EQ(resumed.status, 0) << resumed;
    EXPECT_EQ(get_file(beside(which)), plain) << which;
  }
}

TEST_F(MobileNetCheckpointTest, the_best_is_the_first_of_the_highest_accuracy) {
  const auto csv = temp_ / "curve.csv";
  ASSERT_EQ(train({"--epochs", "6", "--keep-best", "--csv", csv}).status, 0);
  const auto bytes = get_file(csv);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::string line, best;
  double highest = -1;
  for (std::getline(lines, line); std::getline(lines, line);) {
    const std::size_t second = line.find(',', line.find(',') + 1);
    const double accuracy = std::atof(line.c_str() + second + 1);
    if (accuracy > highest) highest = accuracy, best = line.substr(0, line.find(','));
  }
  EXPECT_THAT(position(folder_ / "net.best.safetensors"), HasSubstr(" epoch " + best + ", best " + best));
}

TEST_F(MobileNetCheckpointTest, marks_the_best_that_a_kill_left_unmarked) {
  // As if the program had ended between the two.
  ASSERT_EQ(train({"--epochs", "1"}).status, 0);
  const fs::path best = folder_ / "net.best.safetensors";
  ASSERT_FALSE(fs::exists(best));
  ASSERT_EQ(resume(net_, {"--keep-best"}).status, 0);
  EXPECT_EQ(get_file(best), get_file(net_));
}

TEST_F(MobileNetCheckpointTest, keeps_files_beside_the_one_behind_a_link) {
  ASSERT_EQ(train({"--epochs", "1"}).status, 0);
  const fs::path link = temp_ / "link.safetensors";
  fs::create_symlink(net_, link);
  ASSERT_EQ(train({"--checkpoint", link, "--keep", "2", "--keep-best"}).status, 0);
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(position(net_).substr(0, 12), "0 of epoch 3");
  EXPECT_EQ(position(folder_ / "net.1.safetensors").substr(0, 12), "0 of epoch 2");
  EXPECT_TRUE(fs::exists(folder_ / "net.best.safetensors"));
}

TEST_F(MobileNetCheckpointTest, a_full_disk_costs_none_of_them) {
  const std::vector<std::string> options = {"--checkpoint-every", "1", "--keep", "3", "--keep-best"};
  ASSERT_EQ(train(options).status, 0);
  const auto before = all_files();
  ASSERT_EQ(before.size(), 4u);
  auto other = options;
  other.insert(other.end(), {"--seed", "7"});
  const Outcome outcome = train(other, {.largest_file = 50000});
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("error: cannot write " + net_.string() + ": "));
  EXPECT_EQ(all_files(), before);
}

TEST_F(MobileNetCheckpointTest, a_folder_that_may_only_be_read_is_told_before_training) {
  ASSERT_EQ(train().status, 0);
  const auto before = all_files();
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  const Outcome outcome = train({"--seed", "7"}, {.as_user = true});
  fs::permissions(folder_, fs::perms::owner_all);
  if (outcome.status == 126) GTEST_SKIP() << "root, who may not give up the right to write everywhere";
  EXPECT_EQ(outcome.status, 1) << outcome;
  EXPECT_THAT(outcome.error, HasSubstr("cannot save to " + net_.string() + ": no permission to write in "));
  EXPECT_THAT(outcome.out, Not(HasSubstr("epoch")));
  EXPECT_EQ(all_files(), before);
}

TEST_F(MobileNetCheckpointTest, damaged_files_are_refused) {
  ASSERT_EQ(train().status, 0);
  const auto good = get_file(net_);
  const fs::path bad = temp_ / "bad.safetensors";
  // Cut within the length, the header, the tensors, and before the last byte.
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{5}, std::size_t{1000}, good.size() / 2, good.size() - 1}) {
    put_file(bad, {good.data(), length});
    expect_refused(bad, "");
  }
  // A bit in a number of the recipe, of the position, and in two tensors.
  const std::string text(good.begin(), good.end());
  for (const std::size_t at : {text.find("\\\"lr\\\":0.01") + 10, text.find("\\\"batches\\\":") + 12,
                               good.size() / 2, good.size() - 3}) {
    auto changed = good;
    changed[at] = static_cast<std::uint8_t>(changed[at] ^ 1);
    put_file(bad, changed);
    expect_refused(bad, "its checksum is ");
  }
  // In the names of the version and the checksum.
  for (const char* name : {"lamella.mobilenet", "lamella.crc32c"}) {
    auto changed = good;
    changed[text.find(name)] = 'm';
    put_file(bad, changed);
    expect_refused(bad, "");
  }
}

TEST_F(MobileNetCheckpointTest, files_of_others_are_refused) {
  ASSERT_EQ(train().status, 0);
  const io::SafetensorsFile file = io::load_safetensors_file(net_);
  const fs::path other = temp_ / "other.safetensors";
  const auto expect = [&](const std::string& key, const std::string& from, const std::string& to,
                          const std::string& message) {
    io::Metadata metadata = file.metadata;
    std::string& value = metadata.at(key);
    ASSERT_NE(value.find(from), std::string::npos) << value;
    value.replace(value.find(from), from.size(), to);
    io::save_safetensors(other, file.tensors, metadata, {.checksum = true});
    expect_refused(other, message);
  };
  expect("lamella.mobilenet", "2", "3",
         "its format is 3, and this program reads up to 2; a newer one wrote it");
  expect("lamella.mobilenet", "2", "two", "its version or its checksum cannot be read");
  expect("recipe", R"("model":"v2")", R"("model":"v1")", "");
  expect("recipe", R"("width":0.1)", R"("width":0.9)", "");
  expect("recipe", R"("lr":)", R"("later":1,"lr":)", "there is no setting 'later'");
  expect("recipe", R"("ema":0.9)", R"("ema":9)", "ema is 9, must be between 0 and 1");
  expect("position", R"("batches":0)", R"("batches":-1)", "negative");
  expect("position", R"("random":)", R"("dice":)", "random");
  // Weights alone, as PyTorch's users pass them on.
  io::save_safetensors(other, file.tensors);
  expect_refused(other, R"(its metadata has no "lamella.mobilenet")");
  // A network without what its optimizer kept.
  StateDict fewer;
  for (const auto& [name, tensor] : file.tensors)
    if (!name.starts_with("optimizer.")) fewer.set(name, tensor);
  io::save_safetensors(other, fewer, file.metadata, {.checksum = true});
  const Outcome resumed = resume(other);
  EXPECT_EQ(resumed.status, 1) << resumed;
  EXPECT_THAT(resumed.error, HasSubstr(other.string() + " does not fit the training that it describes: "));
}

TEST_F(MobileNetCheckpointTest, goes_on_with_the_same_images_only) {
  ASSERT_EQ(train().status, 0);
  const auto before = get_file(net_);
  const auto expect = [&](const fs::path& data, const std::string& message) {
    const Outcome outcome = resume(net_, {"--data", data});
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr("train: " + net_.string() + " cannot go on with " + data.string() +
                                         ", which has " + message + " of " + images_.string()));
    EXPECT_EQ(get_file(net_), before);
  };
  const auto changed = [&](const std::string& name) {
    make_small_dataset(temp_ / name);
    return temp_ / name;
  };
  const fs::path fewer = changed("fewer"), renamed = changed("renamed"), shorter = changed("shorter");
  for (const char* part : {"train", "test"}) {
    fs::remove_all(fewer / part / "dark");
    fs::rename(renamed / part / "dark", renamed / part / "black");
  }
  fs::remove(shorter / "train" / "dark" / "image0.png");
  expect(fewer, "2 classes; it was trained on 3");
  expect(renamed, "the class black; it was trained on dark");
  expect(shorter, "23 images to train on; it was trained on 24");
  EXPECT_EQ(resume(net_, {"--data", changed("same")}).status, 0);
}

TEST_F(MobileNetCheckpointTest, options_out_of_range) {
  const auto expect = [&](const std::string& option, const std::string& value, const std::string& message) {
    const Outcome outcome = train({option, value});
    EXPECT_EQ(outcome.status, 1) << outcome;
    EXPECT_THAT(outcome.error, HasSubstr("error: " + message));
    EXPECT_FALSE(fs::exists(net_));
  };
  expect("--keep", "0", "keep is 0, must be at least 1");
  expect("--checkpoint-every", "-1", "checkpoint-every is -1, must be 0 or more");
}

}  // namespace
}  // namespace lamella::test
