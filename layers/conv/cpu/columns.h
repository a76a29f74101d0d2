#pragma once

#include <cstdint>

#include "lamella/layers/conv_geometry.h"

namespace lamella::cpu {

/// What each of a few output rows of one image reads, laid out as a matrix: `channels` neighbouring input
/// channels of output rows first … last - 1. Channels-last images give [pixel][tap][channel], others
/// [channel][tap][pixel].
struct ColumnBlock {
  Conv2dGeometry geometry;
  bool channels_last = false;
  std::int64_t channels = 0;
  std::int64_t first = 0, last = 0;

  std::int64_t taps() const { return geometry.kernel.h * geometry.kernel.w; }
  std::int64_t pixels() const { return (last - first) * geometry.out.w; }
  std::int64_t size() const { return pixels() * taps() * channels; }
};

/// `image` is the first pixel of the first of the block's channels. S is a storage type, T what it is
/// computed in.
template <class S, class T>
void gather_columns(const ColumnBlock& block, const S* image, T* columns);

/// The other way round: adds every element to the pixel it was read from, in a fixed order. `image` has the
/// geometry's layout, with `pixel_step` elements between channels-last pixels.
template <class T>
void scatter_columns(const ColumnBlock& block, const T* columns, T* image, std::int64_t pixel_step);

}  // namespace lamella::cpu
