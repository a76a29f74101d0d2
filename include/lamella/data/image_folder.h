#pragma once

#include <filesystem>

#include "lamella/core/export.h"
#include "lamella/data/dataset.h"

namespace lamella::data {

/// How image_folder() reads its images.
struct ImageFolderOptions {
  /// Decode every image once, into a cache file of bytes that is mapped into memory (and shared by all
  /// processes that use it). It is rebuilt when the list of files, a size or a modification time has changed,
  /// or when it is damaged.
  bool decode_once = false;
  /// The cache file; empty: the folder's path with ".lamella-cache" behind it. Where that cannot be written
  /// or read, as on a read-only medium, a warning is logged and images are decoded each time.
  std::filesystem::path cache = {};
};

/// Labelled images on disk: one folder for each class, its name the class, in byte order; in it .jpg, .jpeg
/// and .png files (any case), in byte order of their names. Names that begin with a dot, other files and
/// deeper folders are passed over, and a message says how many files of which ending; symbolic links are
/// followed. Files are decoded by their content, whatever the name says; the orientation that a camera notes
/// in a JPEG file (EXIF) is not obeyed. Throws IoError naming the folder that is missing or empty, or the
/// cache file that holds something else or, where `cache` names it, cannot be written.
LAMELLA_API DatasetPtr image_folder(const std::filesystem::path& path,
                                    const ImageFolderOptions& options = {});

}  // namespace lamella::data
