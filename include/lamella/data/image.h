#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lamella/core/export.h"

namespace lamella::data {

/// An image of bytes, on the CPU: rows from the top, pixels from the left, the channels of a pixel side by
/// side (HWC).
struct Image {
  int height = 0;                    ///< in pixels
  int width = 0;                     ///< in pixels
  int channels = 3;                  ///< 3: red, green, blue; 1: grey
  std::vector<std::uint8_t> pixels;  ///< height * width * channels bytes

  Image() = default;
  /// All pixels `value`. Throws ShapeError for a size below 1 or channels other than 1 and 3.
  LAMELLA_API Image(int height, int width, int channels, std::uint8_t value = 0);

  /// Bytes of one row.
  std::size_t row_bytes() const {
    return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels);
  }
  /// The first byte of row y, from 0 at the top; not checked.
  const std::uint8_t* row(int y) const { return pixels.data() + static_cast<std::size_t>(y) * row_bytes(); }
  /// The same for writing.
  std::uint8_t* row(int y) { return pixels.data() + static_cast<std::size_t>(y) * row_bytes(); }
  /// Equal in size and in every byte.
  friend bool operator==(const Image&, const Image&) = default;
};

/// Largest image that is decoded, in pixels (height times width); larger ones throw IoError before memory is
/// taken.
inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;

/// A JPEG file in memory, as RGB: baseline or progressive; grey, YCbCr, RGB, CMYK or YCCK. Any warning of the
/// decoder, such as data that ends early, counts as corrupt. An orientation noted in EXIF is not applied, as
/// in torchvision. `source` names the file in errors. Throws IoError.
LAMELLA_API Image decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& source = "JPEG data");

/// A PNG file in memory, as RGB: every colour type and depth; transparency is dropped, 16-bit samples are
/// rounded to 8, gamma and colour profiles are not applied. At most 1,000,000 pixels wide. `source` names the
/// file in errors. Throws IoError.
LAMELLA_API Image decode_png(std::span<const std::uint8_t> bytes, const std::string& source = "PNG data");

/// decode_jpeg() or decode_png(), by the first bytes. Throws IoError if they fit neither, or as those do.
LAMELLA_API Image decode_image(std::span<const std::uint8_t> bytes, const std::string& source = "image data");

/// decode_image() of a file. Throws IoError naming the path that cannot be read or decoded.
LAMELLA_API Image read_image(const std::filesystem::path& path);

}  // namespace lamella::data
