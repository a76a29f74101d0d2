#include "html.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text.h"

namespace lm = lamella;

std::string escape(const std::string& text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const std::size_t length = character_length(text, at);
    if (c == '&')
      result += "&amp;";
    else if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '"')
      result += "&quot;";
    else if (c == '\'')
      result += "&#39;";
    else if (length == 0 || (is_control(text, at, length) && c != '\n' && c != '\t'))  // not allowed in HTML
      result += "\ufffd";
    else
      result.append(text, at, length);
    at += std::max<std::size_t>(1, length);
  }
  return result;
}

std::string number(double value, const char* format) {
  if (!std::isfinite(value)) return "–";
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

namespace {

std::string base64(const std::string& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string result;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    unsigned three = 0;
    for (std::size_t k = i; k < i + 3; ++k)
      three = three << 8 | (k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      result += i + k <= bytes.size() ? kDigits[three >> (18 - 6 * k) & 63] : '=';
  }
  return result;
}

}  // namespace

std::string data_uri(const lm::data::Image& image, double brightest) {
  lm::data::Image shown = image;
  for (std::uint8_t& byte : shown.pixels)
    byte = static_cast<std::uint8_t>(std::lround(std::min(255.0, byte * 255.0 / brightest)));
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(shown.width);
  png.height = static_cast<png_uint_32>(shown.height);
  png.format = shown.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  const auto row = static_cast<png_int_32>(shown.row_bytes());
  std::string bytes;
  png_alloc_size_t size = 0;
  bool written = png_image_write_to_memory(&png, nullptr, &size, 0, shown.pixels.data(), row, nullptr) != 0;
  bytes.resize(size);
  written = written &&
            png_image_write_to_memory(&png, bytes.data(), &size, 0, shown.pixels.data(), row, nullptr) != 0;
  if (!written) throw lm::Error(std::string("an image cannot be made a PNG file: ") + png.message);
  bytes.resize(size);
  return "data:image/png;base64," + base64(bytes);
}
