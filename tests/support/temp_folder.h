#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

namespace lamella::test {

/// A new empty folder, removed with all it holds at the end.
class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> counter{0};
    path_ = std::filesystem::path(::testing::TempDir()) /
            ("lamella-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1)));
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Writes a file, and the folders above it where they are missing.
inline void put_file(const std::filesystem::path& path, std::span<const std::uint8_t> bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("test: cannot write " + path.string());
}

inline std::vector<std::uint8_t> get_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("test: cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// How many entries a folder has.
inline std::size_t count_entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

/// Calls check(bytes) with every proper beginning of `bytes`.
template <class Check>
void for_each_truncation(const std::vector<std::uint8_t>& bytes, Check&& check) {
  for (std::size_t length = 0; length < bytes.size(); ++length)
    check(std::vector<std::uint8_t>(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)));
}

/// Calls check(bytes, position) with each byte changed in several ways, one at a time.
template <class Check>
void for_each_damage(const std::vector<std::uint8_t>& bytes, Check&& check) {
  for (std::size_t position = 0; position < bytes.size(); ++position)
    for (const int flip : {0x01, 0x10, 0x80, 0xff}) {
      auto damaged = bytes;
      damaged[position] = static_cast<std::uint8_t>(damaged[position] ^ flip);
      check(damaged, position);
    }
}

/// Whether `run` throws `Type` with a message that holds `part`.
template <class Type, class Run>
::testing::AssertionResult throws_with(Run&& run, const std::string& part) {
  try {
    run();
  } catch (const Type& error) {
    if (std::string(error.what()).find(part) != std::string::npos) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "its message: " << error.what() << "\nlacks: " << part;
  }
  return ::testing::AssertionFailure() << "it threw nothing";
}

}  // namespace lamella::test

/// The statement must throw `Type` with a message that holds `part`.
#define EXPECT_THROW_WITH(statement, Type, part) \
  EXPECT_TRUE(::lamella::test::throws_with<Type>([&] { statement; }, part)) << #statement
