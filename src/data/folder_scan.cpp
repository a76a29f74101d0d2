#include "data/folder_scan.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string_view>
#include <system_error>

#include "core/check.h"
#include "core/shown.h"
#include "lamella/core/log.h"

namespace lamella::data::detail {
namespace {

namespace fs = std::filesystem;

/// In small letters.
std::string ending(const fs::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return extension;
}

bool is_image_name(const fs::path& path) {
  const std::string extension = ending(path);
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

bool is_hidden(const fs::path& path) { return path.filename().native().starts_with('.'); }

std::vector<std::string> class_folders(const fs::path& root, bool& images_here) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (is_hidden(entry.path())) continue;
    if (entry.is_directory()) {
      names.push_back(entry.path().filename().string());
    } else if (is_image_name(entry.path())) {
      images_here = true;
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Files that are no images by their names: how many of each ending.
using PassedOver = std::map<std::string, std::int64_t>;

/// Whoever has photographs in a format that is not read must not wonder where they are.
void tell(const PassedOver& passed_over, const fs::path& root) {
  constexpr std::size_t kNamed = 5;
  std::int64_t all = 0;
  std::size_t named = 0;
  std::string list;
  for (const auto& [extension, count] : passed_over) {
    all += count;
    if (++named > kNamed) continue;
    list += lamella::detail::concat(named == 1 ? "" : ", ",
                                    extension.empty() ? "no ending" : lamella::detail::shown(extension), " (",
                                    count, ')');
  }
  if (named > kNamed) list += ", …";
  if (all > 0)
    log_message(LogLevel::Info, lamella::detail::concat("image_folder: ", all, all == 1 ? " file" : " files",
                                                        " in ", lamella::detail::shown(root.string()),
                                                        " passed over, not .jpg, .jpeg or .png: ", list));
}

std::vector<std::string> image_files(const fs::path& folder, PassedOver& passed_over) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (is_hidden(entry.path()) || entry.is_directory()) continue;
    if (!is_image_name(entry.path())) {
      ++passed_over[ending(entry.path())];
      continue;
    }
    LAMELLA_CHECK(
        IoError, entry.is_regular_file(), "image_folder: ", entry.path().string(),
        entry.is_symlink() ? " is a symbolic link that leads to no file" : " is not a regular file");
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// FNV-1a, 64 bits.
class Hash {
 public:
  void add(std::string_view text) {
    for (const char c : text) value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    add(text.size());
  }
  void add(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8)
      value_ = (value_ ^ ((number >> shift) & 0xff)) * 0x100000001b3u;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

FolderScan scan_folder(const fs::path& root) {
  FolderScan scan;
  scan.root = root;
  try {
    LAMELLA_CHECK(IoError, fs::exists(root), "image_folder: there is no folder ", root.string());
    LAMELLA_CHECK(IoError, fs::is_directory(root), "image_folder: ", root.string(), " is not a folder");
    bool images_here = false;
    scan.classes = class_folders(root, images_here);
    LAMELLA_CHECK(IoError, !scan.classes.empty(), "image_folder: ", root.string(),
                  images_here ? " holds images but no folders; each class needs a folder of its own"
                              : " is empty; it must hold one folder of images for each class");
    PassedOver passed_over;
    for (std::size_t label = 0; label < scan.classes.size(); ++label) {
      auto names = image_files(root / scan.classes[label], passed_over);
      LAMELLA_CHECK(IoError, !names.empty(), "image_folder: ", (root / scan.classes[label]).string(),
                    " is empty; it must hold .jpg, .jpeg or .png files");
      for (std::string& name : names)
        scan.files.push_back({std::move(name), static_cast<std::uint32_t>(label)});
    }
    tell(passed_over, root);
  } catch (const fs::filesystem_error& error) {
    throw IoError(lamella::detail::concat("image_folder: cannot read ", error.path1().string(), ": ",
                                          error.code().message()));
  }
  return scan;
}

std::uint64_t fingerprint(const FolderScan& scan) {
  Hash hash;
  for (const std::string& name : scan.classes) hash.add(name);
  for (std::size_t i = 0; i < scan.files.size(); ++i) {
    const auto path = scan.path(static_cast<std::int64_t>(i));
    struct stat status {};
    LAMELLA_CHECK(IoError, ::stat(path.c_str(), &status) == 0, "cannot read ", path.string(), ": ",
                  std::system_category().message(errno));
    hash.add(scan.files[i].name);
    hash.add(scan.files[i].label);
    hash.add(static_cast<std::uint64_t>(status.st_size));
    hash.add(static_cast<std::uint64_t>(status.st_mtim.tv_sec));
    hash.add(static_cast<std::uint64_t>(status.st_mtim.tv_nsec));
  }
  return hash.value();
}

}  // namespace lamella::data::detail
