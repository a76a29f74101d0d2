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
