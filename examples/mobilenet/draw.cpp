#include "draw.h"

#include <algorithm>

#include "text.h"

namespace lm = lamella;

namespace {

constexpr char kShades[] = " .:-=+*#%@";
constexpr int kGap = 2;

int brightness(const lm::data::Image& image, int y, int x) {
  const std::uint8_t* pixel = image.row(y) + static_cast<std::ptrdiff_t>(x) * image.channels;
  if (image.channels == 1) return pixel[0];
  return (299 * pixel[0] + 587 * pixel[1] + 114 * pixel[2]) / 1000;
}

/// A character is about twice as high as wide: each pixel becomes two.
std::vector<std::string> lines_of(const lm::data::Image& image, int brightest) {
  std::vector<std::string> lines;
  constexpr int kLast = static_cast<int>(sizeof kShades) - 2;
  for (int y = 0; y < image.height; ++y) {
    std::string line;
    for (int x = 0; x < image.width; ++x) {
      const int shade = std::min(kLast, brightness(image, y, x) * (kLast + 1) / (brightest + 1));
      line.append(2, kShades[shade]);
    }
    lines.push_back(line);
  }
  return lines;
}

}  // namespace

std::string draw(const std::vector<Picture>& pictures, int brightest, int columns) {
  std::string text;
  std::size_t next = 0;
  while (next < pictures.size()) {
    std::vector<std::string> rows;
    std::string captions;
    std::size_t at = 0;  // column where the next picture begins
    for (; next < pictures.size(); ++next) {
      lm::data::Image image = pictures[next].image;
      if (const int widest = columns / 4; image.width > widest)
        image = lm::data::resize(image, std::max(1, image.height * widest / image.width), widest);
      const std::vector<std::string> lines = lines_of(image, brightest);
      const std::size_t width =
          std::max(static_cast<std::size_t>(2 * image.width), ::columns(pictures[next].caption));
      if (at > 0 && at + width > static_cast<std::size_t>(columns)) break;
      rows.resize(std::max(rows.size(), lines.size()));
      for (std::size_t y = 0; y < rows.size(); ++y) {
        rows[y].resize(at, ' ');
        if (y < lines.size()) rows[y] += lines[y];
      }
      captions = padded(captions, at);
      captions += pictures[next].caption;
      at += width + kGap;
    }
    rows.push_back(captions);
    for (std::string& row : rows) {
      row.erase(row.find_last_not_of(' ') + 1);
      text += row + '\n';
    }
    text += '\n';
  }
  return text;
}
