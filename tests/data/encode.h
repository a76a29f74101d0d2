#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "lamella/data/image.h"

namespace lamella::test {

struct JpegOptions {
  int quality = 95;
  bool progressive = false;
  bool grey_file = false;  ///< from the first channel
  bool cmyk_file = false;  ///< ink = 255 - colour, no black; as Adobe writes it
  int restart_interval = 0;
  bool many_scans = false;  ///< one for each coefficient and bit: 568, all of them valid
};
std::vector<std::uint8_t> encode_jpeg(const data::Image& image, const JpegOptions& options = {});

/// RGB, 8 bits.
std::vector<std::uint8_t> encode_png(const data::Image& image, bool interlaced = false);

struct RawPng {
  int height = 0, width = 0;
  int color_type = 2;  ///< PNG_COLOR_TYPE_…
  int bit_depth = 8;
  bool interlaced = false;
  std::vector<std::uint8_t> rows;     ///< packed as in the file, without filter bytes
  std::vector<std::uint8_t> palette;  ///< RGB
  std::vector<std::uint8_t> palette_alpha;
};
std::vector<std::uint8_t> encode_png(const RawPng& raw);

/// Pixels from a smooth pattern that `seed` shifts.
data::Image pattern(int height, int width, int seed = 0, int channels = 3);

/// A folder of classes with `per_class` PNG images each (.jpg of high quality where `jpeg`), all `height` x
/// `width`.
void make_image_folder(const std::filesystem::path& root, const std::vector<std::string>& classes,
                       int per_class, int height, int width, bool jpeg = false);

}  // namespace lamella::test
