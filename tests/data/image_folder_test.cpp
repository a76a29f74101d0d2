#include "lamella/data/image_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "data/image_cache.h"
#include "lamella/core/error.h"
#include "lamella/core/log.h"
#include "tests/data/encode.h"
#include "tests/support/temp_folder.h"

namespace lamella::data {
namespace {

namespace fs = std::filesystem;
using test::encode_jpeg;
using test::encode_png;
using test::pattern;

// Counts how often a cache is built, from the log.
class BuildCounter {
 public:
  BuildCounter() {
    set_log_sink([this](LogLevel, const std::string& text) {
      if (text.starts_with("decoding ")) ++builds_, last_ = text;
    });
  }
  ~BuildCounter() { set_log_sink({}); }
  int builds() const { return builds_; }
  const std::string& last() const { return last_; }

 private:
  int builds_ = 0;
  std::string last_;
};

void expect_same(const Dataset& a, const Dataset& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(a.classes(), b.classes());
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const Example x = a.get(i), y = b.get(i);
    EXPECT_EQ(x.label, y.label);
    EXPECT_EQ(x.image, y.image) << a.describe(i);
    EXPECT_EQ(a.describe(i), b.describe(i));
  }
}

TEST(ImageFolderTest, sorts_classes_and_files_and_passes_over_the_rest) {
  const test::TempFolder folder;
  test::put_file(folder / "dog/b.PNG", encode_png(pattern(4, 6, 1)));
  test::put_file(folder / "dog/a.jpeg", encode_jpeg(pattern(8, 8, 2)));
  test::put_file(folder / "dog/notes.txt", encode_png(pattern(4, 6, 1)));
  test::put_file(folder / "dog/.hidden.png", encode_png(pattern(4, 6, 1)));
  test::put_file(folder / "dog/deeper.png/c.png", encode_png(pattern(4, 6, 1)));
  test::put_file(folder / "Cat/10.jpg", encode_jpeg(pattern(5, 5, 3)));
  test::put_file(folder / "Cat/9.JpG", encode_png(pattern(5, 5, 4)));
  test::put_file(folder / ".git/x.png", encode_png(pattern(5, 5, 4)));
  test::put_file(folder / "README.md", {});
  test::put_file(folder / "Cat/one.webp", {});
  test::put_file(folder / "Cat/two.WEBP", {});
  std::vector<std::string> told;
  set_log_sink([&](LogLevel, const std::string& text) { told.push_back(text); });
  const DatasetPtr set = image_folder(folder.path());
  set_log_sink({});
  EXPECT_EQ(told, std::vector<std::string>{"image_folder: 3 files in " + folder.path().string() +
                                           " passed over, not .jpg, .jpeg or .png: .txt (1), .webp (2)"});
  EXPECT_EQ(set->classes(), (std::vector<std::string>{"Cat", "dog"}));
  ASSERT_EQ(set->size(), 4);
  const char* names[] = {"Cat/10.jpg", "Cat/9.JpG", "dog/a.jpeg", "dog/b.PNG"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(set->describe(i), (folder / names[i]).string());
    EXPECT_EQ(set->label(i), i / 2);
    EXPECT_EQ(set->get(i).label, i / 2);
  }
  EXPECT_EQ(set->get(1).image, pattern(5, 5, 4));
  EXPECT_EQ(set->get(3).image, pattern(4, 6, 1));
  EXPECT_THROW(set->get(4), ShapeError);
  EXPECT_THROW(set->get(-1), ShapeError);
}

TEST(ImageFolderTest, follows_symbolic_links) {
  const test::TempFolder folder;
  test::put_file(folder / "elsewhere/real/one.png", encode_png(pattern(3, 3)));
  fs::create_directories(folder / "set/plain");
  fs::create_directory_symlink(folder / "elsewhere/real", folder / "set/linked");
  fs::create_symlink(folder / "elsewhere/real/one.png", folder / "set/plain/link.png");
  const DatasetPtr set = image_folder(folder / "set");
  EXPECT_EQ(set->classes(), (std::vector<std::string>{"linked", "plain"}));
  EXPECT_EQ(set->get(0).image, set->get(1).image);
  fs::create_symlink(folder / "nowhere", folder / "set/plain/broken.png");
  EXPECT_THROW_WITH(image_folder(folder / "set"), IoError,
                    "broken.png is a symbolic link that leads to no file");
}

TEST(ImageFolderTest, names_what_is_missing_or_empty) {
  const test::TempFolder folder;
  EXPECT_THROW_WITH(image_folder(folder / "absent"), IoError, (folder / "absent").string());
  EXPECT_THROW_WITH(image_folder(folder.path()), IoError, folder.path().string() + " is empty");
  test::put_file(folder / "file.png", encode_png(pattern(3, 3)));
  EXPECT_THROW_WITH(image_folder(folder / "file.png"), IoError, "is not a folder");
  EXPECT_THROW_WITH(image_folder(folder.path()), IoError, "each class needs a folder of its own");
  fs::create_directories(folder / "cats");
  EXPECT_THROW_WITH(image_folder(folder.path()), IoError, (folder / "cats").string() + " is empty");
  test::put_file(folder / "cats/readme.txt", {});
  EXPECT_THROW_WITH(image_folder(folder.path()), IoError, (folder / "cats").string() + " is empty");
}

TEST(ImageFolderTest, names_a_corrupt_image_when_it_is_read) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a", "b"}, 2, 4, 4);
  test::put_file(folder / "set/b/1000.png", std::vector<std::uint8_t>(20, 1));
  const DatasetPtr set = image_folder(folder / "set");
  EXPECT_NO_THROW(set->get(0));
  EXPECT_THROW_WITH(set->get(2), IoError, "set/b/1000.png");
  EXPECT_THROW_WITH(image_folder(folder / "set", {.decode_once = true}), IoError, "set/b/1000.png");
  EXPECT_EQ(test::count_entries(folder.path()), 1u) << "a failed cache must leave nothing behind";
}

TEST(ImageCacheTest, holds_the_same_images) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a", "b", "c"}, 100, 9, 7);
  test::put_file(folder / "set/b/larger.jpg", encode_jpeg(pattern(40, 31)));
  const DatasetPtr plain = image_folder(folder / "set");
  BuildCounter counter;
  const DatasetPtr built = image_folder(folder / "set", {.decode_once = true});
  EXPECT_EQ(counter.builds(), 1);
  EXPECT_TRUE(fs::exists(folder / "set.lamella-cache"));
  expect_same(*plain, *built);
  const DatasetPtr found = image_folder(folder / "set/", {.decode_once = true});
  EXPECT_EQ(counter.builds(), 1);
  expect_same(*plain, *found);
  image_folder(folder / "set", {.decode_once = true, .cache = folder / "other.cache"});
  EXPECT_EQ(counter.builds(), 2);
  EXPECT_EQ(test::get_file(folder / "other.cache"), test::get_file(folder / "set.lamella-cache"));
  EXPECT_EQ(test::count_entries(folder.path()), 3u);
}

TEST(ImageCacheTest, is_rebuilt_when_the_images_change) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a", "b"}, 3, 5, 5);
  BuildCounter counter;
  const auto open = [&] { return image_folder(folder / "set", {.decode_once = true}); };
  const auto check = [&](int builds) {
    const DatasetPtr cached = open();
    EXPECT_EQ(counter.builds(), builds) << counter.last();
    expect_same(*image_folder(folder / "set"), *cached);
  };
  check(1);
  check(1);
  const auto file = folder / "set/a/1001.png";
  const auto time = fs::last_write_time(file);
  test::put_file(file, encode_png(pattern(6, 6, 99)));  // another size
  fs::last_write_time(file, time);
  check(2);
  fs::last_write_time(file, time + std::chrono::seconds(1));
  check(3);
  fs::last_write_time(file, time + std::chrono::milliseconds(1001));
  check(4);
  fs::rename(file, folder / "set/a/1009.png");
  check(5);
  fs::rename(folder / "set/a", folder / "set/z");
  check(6);
  fs::remove(folder / "set/b/1000.png");
  check(7);
  test::put_file(folder / "set/c/new.png", encode_png(pattern(5, 5)));
  check(8);
  check(8);
}

TEST(ImageCacheTest, is_rebuilt_when_damaged) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a", "b"}, 2, 3, 3);
  const auto cache = folder / "set.lamella-cache";
  const auto open = [&] { return image_folder(folder / "set", {.decode_once = true}); };
  open();
  const auto right = test::get_file(cache);
  const DatasetPtr plain = image_folder(folder / "set");
  BuildCounter counter;
  int damages = 0;
  const auto check = [&](const std::vector<std::uint8_t>& bytes) {
    test::put_file(cache, bytes);
    expect_same(*plain, *open());
    EXPECT_EQ(counter.builds(), ++damages) << counter.last();
    EXPECT_EQ(test::get_file(cache), right);
  };
  // Not the first eight: without them it is no cache of ours. Not all lengths: each build waits for the disk.
  for (std::size_t i = 8; i < right.size(); ++i) {
    auto damaged = right;
    damaged[i] = static_cast<std::uint8_t>(damaged[i] ^ (1 << i % 8));
    check(damaged);
  }
  for (std::size_t length = 8; length < right.size(); length += 5)
    check({right.begin(), right.begin() + static_cast<std::ptrdiff_t>(length)});
  check({});
}

TEST(ImageCacheTest, does_not_trust_numbers_under_a_right_checksum) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a"}, 2, 3, 3);
  const auto cache = folder / "set.lamella-cache";
  const auto open = [&] { return image_folder(folder / "set", {.decode_once = true}); };
  open();
  const auto right = test::get_file(cache);
  const auto crc = [](std::uint32_t value, const std::uint8_t* data, std::size_t count) {
    value = ~value;
    for (std::size_t i = 0; i < count; ++i) {
      value ^= data[i];
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0xedb88320u : 0u);
    }
    return ~value;
  };
  const auto sign = [&](std::vector<std::uint8_t>& bytes) {
    if (bytes.size() < 64) throw std::runtime_error("test: no header");
    std::memset(bytes.data() + offsetof(detail::CacheHeader, checksum), 0, 4);
    const std::uint32_t body = crc(0, bytes.data() + 64, bytes.size() - 64),
                        all = crc(body, bytes.data(), 64);
    std::memcpy(bytes.data() + offsetof(detail::CacheHeader, checksum), &all, 4);
  };
  auto signed_again = right;
  sign(signed_again);
  ASSERT_EQ(signed_again, right);
  detail::CacheHeader header;
  std::memcpy(&header, right.data(), sizeof header);
  BuildCounter counter;
  int changes = 0;
  // Every byte of the header's numbers and of the entries set to 255, signed anew: rebuilt, never read out of
  // bounds.
  for (std::size_t i = 8; i < right.size(); ++i) {
    if (i >= 64 && i < header.table_offset) continue;
    if (i >= offsetof(detail::CacheHeader, checksum) && i < offsetof(detail::CacheHeader, fingerprint))
      continue;
    auto changed = right;
    if (changed[i] == 0xff) continue;
    changed[i] = 0xff;
    sign(changed);
    test::put_file(cache, changed);
    const DatasetPtr set = open();
    for (std::int64_t k = 0; k < set->size(); ++k) set->get(k);
    changes += 1;
  }
  // Only the reserved field (and an offset into other pixels, which 255 does not make here) means nothing.
  EXPECT_EQ(counter.builds(), changes - 2 * 4);
}

TEST(ImageCacheTest, does_without_where_there_can_be_none) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a", "b"}, 2, 3, 3);
  const DatasetPtr plain = image_folder(folder / "set");
  const auto cache = folder / "set.lamella-cache";
  fs::create_directories(cache / "taken");  // as good as a read-only medium, for root too
  std::vector<std::string> warnings;
  set_log_sink([&](LogLevel level, const std::string& text) {
    if (level == LogLevel::Warning) warnings.push_back(text);
  });
  expect_same(*plain, *image_folder(folder / "set", {.decode_once = true}));
  set_log_sink({});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_TRUE(warnings[0].starts_with("images are decoded each time they are used: ")) << warnings[0];
  EXPECT_NE(warnings[0].find(cache.string()), std::string::npos) << warnings[0];
  EXPECT_TRUE(fs::exists(cache / "taken"));
  EXPECT_EQ(test::count_entries(folder.path()), 2u);
  // Where it was asked for, it must be.
  EXPECT_THROW_WITH(image_folder(folder / "set", {.decode_once = true, .cache = cache}), IoError,
                    cache.string());
  // A corrupt image is no fault of the cache.
  fs::remove_all(cache);
  test::put_file(folder / "set/b/cut.png", std::vector<std::uint8_t>(20, 1));
  EXPECT_THROW_WITH(image_folder(folder / "set", {.decode_once = true}), IoError, "set/b/cut.png");
}

TEST(ImageCacheTest, leaves_other_files_alone) {
  const test::TempFolder folder;
  test::make_image_folder(folder / "set", {"a"}, 1, 3, 3);
  const auto photo = encode_png(pattern(3, 3));
  test::put_file(folder / "photo.png", photo);
  EXPECT_THROW_WITH(image_folder(folder / "set", {.decode_once = true, .cache = folder / "photo.png"}),
                    IoError, "photo.png is not a cache");
  EXPECT_EQ(test::get_file(folder / "photo.png"), photo);
  EXPECT_THROW_WITH(image_folder(folder / "set", {.decode_once = true, .cache = folder / "no/such/folder/c"}),
                    IoError, "no/such/folder/c");
}

}  // namespace
}  // namespace lamella::data
