#pragma once

#include <cstdint>
#include <filesystem>

#include "data/folder_scan.h"
#include "io/mapped_file.h"
#include "lamella/core/error.h"
#include "lamella/data/image.h"

namespace lamella::data::detail {

/// The file of a cache cannot be read or written; the images themselves may be sound.
class CacheError : public IoError {
 public:
  using IoError::IoError;
};

/// The images of a folder, decoded, in one file:
///
///     header           CacheHeader
///     pixels           of each image, one after the other
///     entries          CacheEntry for each image, at table_offset (a multiple of 8)
///     names            of the classes, each with a zero byte behind it
///
/// All numbers are little-endian.
class ImageCache {
 public:
  /// Opens `path`, or builds it if it is missing, stale or damaged. Throws IoError if an image is corrupt or
  /// `path` is some other file, which is left alone; CacheError if it cannot be read or written.
  static ImageCache open_or_build(const std::filesystem::path& path, const FolderScan& scan);

  Image image(std::int64_t index) const;

 private:
  lamella::detail::MappedFile file_;
  std::uint64_t table_offset_ = 0;
};

struct CacheHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t checksum;  ///< CRC-32 of all that follows the header, then of the header with 0 here
  std::uint64_t fingerprint;
  std::uint64_t images;
  std::uint64_t classes;
  std::uint64_t table_offset;
  std::uint64_t names_bytes;
  std::uint64_t file_bytes;
};
static_assert(sizeof(CacheHeader) == 64);

struct CacheEntry {
  std::uint64_t offset;
  std::uint32_t height;
  std::uint32_t width;
  std::uint32_t label;
  std::uint32_t reserved;
};
static_assert(sizeof(CacheEntry) == 24);

}  // namespace lamella::data::detail
