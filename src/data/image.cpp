#include "lamella/data/image.h"

#include <algorithm>
#include <array>

#include "core/check.h"
#include "io/file.h"

namespace lamella::data {
namespace {

constexpr std::array<std::uint8_t, 3> kJpegStart{0xff, 0xd8, 0xff};
constexpr std::array<std::uint8_t, 8> kPngStart{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
// An image file larger than the pixels it may have, uncompressed at 16 bits, is no image.
constexpr std::uint64_t kMaxFileBytes = static_cast<std::uint64_t>(kMaxPixels) * 8;

template <std::size_t N>
bool starts_with(std::span<const std::uint8_t> bytes, const std::array<std::uint8_t, N>& start) {
  return bytes.size() >= N && std::equal(start.begin(), start.end(), bytes.begin());
}

}  // namespace

Image::Image(int height, int width, int channels, std::uint8_t value)
    : height(height), width(width), channels(channels) {
  LAMELLA_CHECK(ShapeError, height >= 1 && width >= 1 && (channels == 1 || channels == 3), "Image: size ",
                height, "x", width, " with ", channels,
                " channels; sizes must be at least 1, channels 1 or 3");
  pixels.assign(static_cast<std::size_t>(height) * row_bytes(), value);
}

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& source) {
  if (starts_with(bytes, kJpegStart)) return decode_jpeg(bytes, source);
  if (starts_with(bytes, kPngStart)) return decode_png(bytes, source);
  throw IoError(detail::concat(source, bytes.empty() ? ": the file is empty" : ": neither JPEG nor PNG"));
}

Image read_image(const std::filesystem::path& path) {
  return decode_image(detail::read_file(path, kMaxFileBytes), path.string());
}

}  // namespace lamella::data
