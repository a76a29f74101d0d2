#pragma once

#include <string>
#include <string_view>

namespace lamella::detail {

/// A name or text from a file, as a message may have it: without what steers a terminal (control characters
/// become '?'), and cut behind 200 bytes.
inline std::string shown(std::string_view text) {
  constexpr std::size_t kMost = 200;
  std::string result;
  for (std::size_t i = 0; i < text.size() && i < kMost; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F steer terminals, too; in UTF-8 they are 0xc2 and a byte below 0xa0.
    const bool is_c1 = byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (is_c1) ++i;
    result += is_c1 || byte < 0x20 || byte == 0x7f ? '?' : text[i];
  }
  if (text.size() <= kMost) return result;
  // Not within a character of several bytes.
  while (!result.empty() && (static_cast<unsigned char>(result.back()) & 0xc0) == 0x80) result.pop_back();
  if (!result.empty() && static_cast<unsigned char>(result.back()) >= 0xc0) result.pop_back();
  return result + "...";
}

}  // namespace lamella::detail
