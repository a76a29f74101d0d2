#pragma once

#include <algorithm>
#include <cstdint>

#include "lamella/layers/conv_geometry.h"

/// What the passes of a convolution share: which pixels meet, and how the work is cut.
namespace lamella::cuda {

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t a, std::int64_t step) { return divide_up(a, step) * step; }

/// One side of a convolution, the target, reads windows of the other, the source: target pixel (a, b) and tap
/// (i, j) meet source pixel (start.h + a · step.h + i · tap_step.h, start.w + b · step.w + j · tap_step.w),
/// zero outside. Forward, the target is the output; backward it is the input, or every s-th of its pixels.
struct ConvWindows {
  std::int64_t channels = 0;  ///< of the source, in all groups
  std::int64_t groups = 1;
  Size2 source;  ///< height, width
  Size2 grid;    ///< target pixels
  Size2 taps;
  Size2 step{1};
  Size2 start;        ///< may be negative
  Size2 tap_step{1};  ///< may be negative

  std::int64_t group_channels() const { return channels / groups; }
  /// Products that add up to one number of the target.
  std::int64_t inputs() const { return group_channels() * taps.h * taps.w; }
  /// True if target pixel and source pixel are the same.
  bool is_identity() const {
    return taps == Size2(1) && step == Size2(1) && start == Size2(0) && grid == source;
  }
};

inline ConvWindows forward_windows(const Conv2dGeometry& g) {
  return {g.in_channels, g.groups, g.in, g.out, g.kernel, g.stride, {-g.padding.h, -g.padding.w}, g.dilation};
}

/// A rectangle of target pixels of some images: all pixels if there are several images, whole rows if there
/// are several rows.
struct ConvBlock {
  std::int64_t image, images, row, rows, column, columns;

  /// Per image.
  std::int64_t pixels() const { return rows * columns; }
};

/// Cuts the pixels of `batch` images into blocks of at most `most` pixels, of nearly equal size.
class ConvBlocks {
 public:
  ConvBlocks(std::int64_t batch, Size2 grid, std::int64_t most) : batch_(batch), grid_(grid) {
    // Images are a batch of products; cuBLAS takes 65535 or more.
    constexpr std::int64_t kMostImages = 1 << 15;
    const std::int64_t pixels = grid.h * grid.w;
    const auto even = [](std::int64_t size, std::int64_t part) {
      return divide_up(size, divide_up(size, std::clamp<std::int64_t>(part, 1, size)));
    };
    images_ = even(batch, std::min(most / pixels, kMostImages));
    rows_ = even(grid.h, most / grid.w);
    columns_ = even(grid.w, most);
  }
  /// No other has more images or more pixels per image.
  ConvBlock first() const { return {0, images_, 0, rows_, 0, columns_}; }

  template <class Body>
  void for_each(const Body& body) const {
    for (std::int64_t n = 0; n < batch_; n += images_)
      for (std::int64_t a = 0; a < grid_.h; a += rows_)
        for (std::int64_t b = 0; b < grid_.w; b += columns_)
          body(ConvBlock{n, std::min(images_, batch_ - n), a, std::min(rows_, grid_.h - a), b,
                         std::min(columns_, grid_.w - b)});
  }

 private:
  std::int64_t batch_;
  Size2 grid_;
  std::int64_t images_ = 1, rows_ = 1, columns_ = 1;
};

}  // namespace lamella::cuda
