#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "tests/fuzz/targets.h"
#include "tests/support/temp_folder.h"

// What the fuzzing targets begin with, and what they once found, with any compiler: each file of the corpus,
// cut and damaged. A finding ends the program.
namespace lamella::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path kCorpus = LAMELLA_SOURCE_DIR "/tests/fuzz/corpus";

void replay(const std::string& target, const std::function<bool(Bytes)>& run) {
  std::size_t files = 0, taken = 0;
  for (const auto& entry : fs::directory_iterator(kCorpus / target)) {
    SCOPED_TRACE(entry.path());
    const auto bytes = test::get_file(entry.path());
    ASSERT_NO_THROW(taken += run(bytes));
    ++files;
    // Larger ones would take long; their beginnings, which say what they are, are damaged all the same.
    constexpr std::size_t kMost = 200;
    const std::vector<std::uint8_t> rest(
        bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), kMost)), bytes.end());
    const std::vector<std::uint8_t> begin(bytes.begin(),
                                          bytes.end() - static_cast<std::ptrdiff_t>(rest.size()));
    test::for_each_truncation(begin, [&](const auto& cut) { ASSERT_NO_THROW(run(cut)); });
    test::for_each_damage(begin, [&](auto damaged, std::size_t) {
      damaged.insert(damaged.end(), rest.begin(), rest.end());
      ASSERT_NO_THROW(run(damaged));
    });
  }
  EXPECT_GE(files, 3u) << kCorpus / target;
  EXPECT_GE(2 * taken + 1, files) << "few of them are what they should be";
}

TEST(FuzzReplayTest, safetensors) { replay("safetensors", safetensors); }
TEST(FuzzReplayTest, npy) { replay("npy", npy); }
TEST(FuzzReplayTest, idx) { replay("idx", idx); }
TEST(FuzzReplayTest, cifar) { replay("cifar", cifar); }
TEST(FuzzReplayTest, jpeg) { replay("jpeg", jpeg); }
TEST(FuzzReplayTest, png) { replay("png", png); }
TEST(FuzzReplayTest, recipe) { replay("recipe", recipe); }
TEST(FuzzReplayTest, options_file) { replay("options_file", options_file); }

TEST(FuzzReplayTest, every_corpus_has_a_target) {
  std::set<std::string> folders;
  for (const auto& entry : fs::directory_iterator(kCorpus)) folders.insert(entry.path().filename());
  EXPECT_EQ(folders, (std::set<std::string>{"cifar", "idx", "jpeg", "npy", "options_file", "png", "recipe",
                                            "safetensors"}));
}

}  // namespace
}  // namespace lamella::fuzz
