#include "lamella/data/image_folder.h"

#include <optional>
#include <string>

#include "core/check.h"
#include "data/folder_scan.h"
#include "data/image_cache.h"
#include "lamella/core/log.h"

namespace lamella::data {
namespace {

class ImageFolder final : public Dataset {
 public:
  ImageFolder(const std::filesystem::path& path, const ImageFolderOptions& options)
      : scan_(detail::scan_folder(path)) {
    if (!options.decode_once) return;
    if (!options.cache.empty()) {
      cache_ = detail::ImageCache::open_or_build(options.cache, scan_);
      return;
    }
    // "train/" and "." have no name of their own to put the ending behind.
    std::filesystem::path cache = std::filesystem::absolute(path).lexically_normal();
    if (!cache.has_filename()) cache = cache.parent_path();
    cache += ".lamella-cache";
    try {
      cache_ = detail::ImageCache::open_or_build(cache, scan_);
    } catch (const detail::CacheError& error) {
      // Nobody asked for a file in this very place: on a read-only medium all is well without it.
      log_message(LogLevel::Warning,
                  std::string("images are decoded each time they are used: ") + error.what());
    }
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(scan_.files.size()); }
  const std::vector<std::string>& classes() const override { return scan_.classes; }
  Example get(std::int64_t index) const override {
    Example example;
    example.label = label(index);
    example.image = cache_ ? cache_->image(index) : read_image(scan_.path(index));
    return example;
  }
  std::int64_t label(std::int64_t index) const override {
    LAMELLA_CHECK(ShapeError, index >= 0 && index < size(), "image_folder: example ", index, " of ", size(),
                  "; must be in [0, ", size(), ")");
    return scan_.files[static_cast<std::size_t>(index)].label;
  }
  std::string describe(std::int64_t index) const override {
    return index >= 0 && index < size() ? scan_.path(index).string() : Dataset::describe(index);
  }

 private:
  detail::FolderScan scan_;
  std::optional<detail::ImageCache> cache_;
};

}  // namespace

DatasetPtr image_folder(const std::filesystem::path& path, const ImageFolderOptions& options) {
  return std::make_shared<ImageFolder>(path, options);
}

}  // namespace lamella::data
