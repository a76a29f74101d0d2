#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lamella::detail {

/// The whole of a regular file. Throws IoError naming the path: missing, not a regular file, unreadable,
/// above `limit` bytes, or cut while it was read.
std::vector<std::uint8_t> read_file(const std::filesystem::path& path,
                                    std::uint64_t limit = std::uint64_t{1} << 40);

/// A regular file, read at any place.
class InputFile {
 public:
  /// Mapped: by way of the page cache's own memory, where the file system can, so that nothing is held twice.
  /// Each read looks at the length first; only a file that is cut short during the copy itself ends the
  /// program (SIGBUS).
  enum class Access : std::uint8_t { Copied, Mapped };
  /// Opens it without ever waiting, as opening a named pipe would. Throws IoError naming the path: missing,
  /// not a regular file, unreadable.
  explicit InputFile(const std::filesystem::path& path, Access access = Access::Copied);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Its length when it was opened.
  std::uint64_t bytes() const { return bytes_; }
  /// `bytes` of them from `offset` on. Throws IoError naming the path where the file ends before or cannot be
  /// read.
  void read(std::uint64_t offset, void* to, std::uint64_t bytes) const;

 private:
  std::string path_;
  int file_ = -1;
  std::uint64_t bytes_ = 0;
  const char* mapped_ = nullptr;
};

/// Writes a file so that a reader sees the old content or the new, never a part: into a temporary file in the
/// same folder, which commit() syncs and renames. Without commit() the destructor removes it and the old file
/// stays. Every failure, a full disk too, throws IoError naming the path.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends.
  void write(const void* data, std::size_t bytes);
  /// Replaces bytes written earlier.
  void rewrite(std::uint64_t offset, const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* what, int error) const;
  void remove_temporary() noexcept;

  std::filesystem::path path_;
  std::string temporary_;
  int file_ = -1;
};

}  // namespace lamella::detail
