#pragma once

#include <array>
#include <vector>

#include "lamella/data/transforms.h"

namespace lamella::data::detail {

/// The 256 numbers of each channel that Normalize gives, or of all channels where they are the same.
class NormalizeTable {
 public:
  /// Throws Error naming `op` for numbers that cannot be meant.
  NormalizeTable(const char* op, const Normalize& normalize);
  /// Writes channels * height * width numbers, planes one after the other or (ChannelsLast) pixel by pixel.
  /// Throws ShapeError if the table is for another number of channels.
  void convert(const Image& image, MemoryFormat format, float* out) const;

 private:
  std::vector<std::array<float, 256>> channels_;
};

}  // namespace lamella::data::detail
