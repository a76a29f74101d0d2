#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace lamella::detail {

/// A regular file mapped into memory, read-only: pages come from disk as they are read and are shared by all
/// processes. Replacing the file by a rename does no harm; cutting it short in place ends a program that
/// reads beyond.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws IoError naming the path.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::uint8_t> bytes() const { return bytes_; }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace lamella::detail
