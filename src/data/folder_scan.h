#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lamella::data::detail {

/// What an image folder holds, before any image is read.
struct FolderScan {
  std::filesystem::path root;
  std::vector<std::string> classes;
  struct File {
    std::string name;  ///< within its class's folder
    std::uint32_t label = 0;
  };
  std::vector<File> files;

  std::filesystem::path path(std::int64_t index) const {
    const File& file = files[static_cast<std::size_t>(index)];
    return root / classes[file.label] / file.name;
  }
};

/// See image_folder().
FolderScan scan_folder(const std::filesystem::path& root);

/// A number for names, sizes and times of modification of all files: another one means that something
/// changed.
std::uint64_t fingerprint(const FolderScan& scan);

}  // namespace lamella::data::detail
