#include "lamella/data/transforms.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "data/resize.h"

namespace lamella::data {
namespace {

void check_size(const char* op, int height, int width) {
  LAMELLA_CHECK(ShapeError, height >= 1 && width >= 1 && std::int64_t{height} * width <= kMaxPixels, op,
                ": size ", height, "x", width, "; must be at least 1x1 and at most ", kMaxPixels, " pixels");
}

// The part from row `top` and column `left` on; what lies outside the image is black.
Image crop(const Image& image, int top, int left, int height, int width) {
  Image result(height, width, image.channels);
  const int first_row = std::max(0, -top), last_row = std::min(height, image.height - top);
  const int first = std::max(0, -left), last = std::min(width, image.width - left);
  if (first >= last) return result;
  for (int y = first_row; y < last_row; ++y)
    std::memcpy(result.row(y) + first * image.channels, image.row(top + y) + (left + first) * image.channels,
                static_cast<std::size_t>(last - first) * static_cast<std::size_t>(image.channels));
  return result;
}

// To the nearest integer, halves to the even one, as Python's round(), which torchvision's rules are written
// in.
int round_even(double value) { return static_cast<int>(std::nearbyint(value)); }

}  // namespace

RandomCrop::RandomCrop(int height, int width, int padding)
    : height_(height), width_(width), padding_(padding) {
  check_size("RandomCrop", height, width);
  LAMELLA_CHECK(ShapeError, padding >= 0 && padding <= (1 << 20), "RandomCrop: padding ", padding,
                "; must be at least 0, at most ", 1 << 20);
}

Image RandomCrop::operator()(Image image, Random& random) const {
  const int spare_rows = image.height + 2 * padding_ - height_,
            spare_columns = image.width + 2 * padding_ - width_;
  LAMELLA_CHECK(ShapeError, spare_rows >= 0 && spare_columns >= 0, "RandomCrop: a crop of ", height_, "x",
                width_, " is larger than an image of ", image.height, "x", image.width, " with padding ",
                padding_);
  const int top = static_cast<int>(random.below(spare_rows + 1)) - padding_;
  const int left = static_cast<int>(random.below(spare_columns + 1)) - padding_;
  return crop(image, top, left, height_, width_);
}

CenterCrop::CenterCrop(int height, int width) : height_(height), width_(width) {
  check_size("CenterCrop", height, width);
}

Image CenterCrop::operator()(Image image, Random&) const {
  // A smaller image is padded first, the odd pixel at the right and below.
  const auto begin = [](int size, int wanted) {
    return size < wanted ? -((wanted - size) / 2) : round_even((size - wanted) / 2.0);
  };
  return crop(image, begin(image.height, height_), begin(image.width, width_), height_, width_);
}

Resize::Resize(int shorter_side) : height_(shorter_side), width_(0) {
  check_size("Resize", shorter_side, shorter_side);
}
Resize::Resize(int height, int width) : height_(height), width_(width) {
  check_size("Resize", height, width);
}

Image Resize::operator()(Image image, Random&) const {
  int height = height_, width = width_;
  if (width_ == 0) {
    const int shorter = std::min(image.height, image.width), longer = std::max(image.height, image.width);
    const std::int64_t other = std::int64_t{height_} * longer / shorter;
    LAMELLA_CHECK(ShapeError, other * height_ <= kMaxPixels, "Resize: an image of ", image.height, "x",
                  image.width, " with shorter side ", height_, " would have more than ", kMaxPixels,
                  " pixels");
    height = image.height <= image.width ? height_ : static_cast<int>(other);
    width = image.height <= image.width ? static_cast<int>(other) : height_;
  }
  if (height == image.height && width == image.width) return image;
  return resize(image, height, width);
}

RandomResizedCrop::RandomResizedCrop(int size, std::array<double, 2> scale, std::array<double, 2> ratio)
    : size_(size), scale_(scale), ratio_(ratio) {
  check_size("RandomResizedCrop", size, size);
  const auto is_range = [](const std::array<double, 2>& range) {
    return range[0] > 0.0 && range[0] <= range[1] && std::isfinite(range[1]);
  };
  LAMELLA_CHECK(ShapeError, is_range(scale) && is_range(ratio), "RandomResizedCrop: scale [", scale[0], ", ",
                scale[1], "] and ratio [", ratio[0], ", ", ratio[1],
                "] must be positive, the smaller number first");
}

Image RandomResizedCrop::operator()(Image image, Random& random) const {
  const int rows = image.height, columns = image.width;
  const double area = static_cast<double>(rows) * columns;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * random.uniform(scale_[0], scale_[1]);
    const double aspect = std::exp(random.uniform(std::log(ratio_[0]), std::log(ratio_[1])));
    const double wide = std::nearbyint(std::sqrt(target * aspect)),
                 high = std::nearbyint(std::sqrt(target / aspect));
    if (wide < 1.0 || wide > columns || high < 1.0 || high > rows) continue;
    const int width = static_cast<int>(wide), height = static_cast<int>(high);
    const int top = static_cast<int>(random.below(rows - height + 1));
    const int left = static_cast<int>(random.below(columns - width + 1));
    return detail::resize_region(image, top, left, height, width, size_, size_);
  }
  int height = rows, width = columns;
  const double aspect = static_cast<double>(columns) / rows;
  if (aspect < ratio_[0]) height = std::clamp(round_even(width / ratio_[0]), 1, rows);
  if (aspect > ratio_[1]) width = std::clamp(round_even(height * ratio_[1]), 1, columns);
  return detail::resize_region(image, (rows - height) / 2, (columns - width) / 2, height, width, size_,
                               size_);
}

RandomHorizontalFlip::RandomHorizontalFlip(double p) : p_(p) {
  LAMELLA_CHECK(Error, p >= 0.0 && p <= 1.0, "RandomHorizontalFlip: probability ", p, "; must be in [0, 1]");
}

Image RandomHorizontalFlip::operator()(Image image, Random& random) const {
  if (!random.chance(p_)) return image;
  const std::size_t channels = static_cast<std::size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) {
    std::uint8_t* left = image.row(y);
    std::uint8_t* right = left + image.row_bytes() - channels;
    for (; left < right; left += channels, right -= channels) std::swap_ranges(left, left + channels, right);
  }
  return image;
}

Cutout::Cutout(int size, std::vector<std::uint8_t> fill) : size_(size), fill_(std::move(fill)) {
  check_size("Cutout", size, 1);
  LAMELLA_CHECK(ShapeError, fill_.size() == 1 || fill_.size() == 3, "Cutout: a fill of ", fill_.size(),
                " bytes; must be of 1 or of 3");
}

Image Cutout::operator()(Image image, Random& random) const {
  const auto channels = static_cast<std::size_t>(image.channels);
  LAMELLA_CHECK(ShapeError, fill_.size() == 1 || fill_.size() == channels, "Cutout: a fill of ", fill_.size(),
                " bytes for an image of ", image.channels, " channels");
  const int top = static_cast<int>(random.below(image.height)) - size_ / 2;
  const int left = static_cast<int>(random.below(image.width)) - size_ / 2;
  const int bottom = std::min(image.height, top + size_), right = std::min(image.width, left + size_);
  for (int y = std::max(0, top); y < bottom; ++y)
    for (int x = std::max(0, left); x < right; ++x)
      for (std::size_t c = 0; c < channels; ++c)
        image.row(y)[static_cast<std::size_t>(x) * channels + c] = fill_[fill_.size() == 1 ? 0 : c];
  return image;
}

}  // namespace lamella::data
