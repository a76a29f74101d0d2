#pragma once

#include <algorithm>
#include <cstdint>

#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_positions.h"

namespace lamella::depthwise::checks {

/// What run.cpp tells the copy engine of planes that positions have. Lives as long as the work that it tells.
class ImageMaps {
 public:
  ImageMaps() = default;
  ImageMaps(const ImageMaps&) = delete;
  ImageMaps& operator=(const ImageMaps&) = delete;

  /// `x_numbers`, `y_numbers`: of a plane. Without images a tensor has no map.
  void describe(PlaneWork& work, const ImageRuns& x, int x_numbers, const ImageRuns& y, int y_numbers) {
    describe(x_, work.x_images, const_cast<void*>(work.x), x, work, x_numbers);
    describe(y_, work.y_images, work.y, y, work, y_numbers);
  }

 private:
  static void describe(EmulatedTensor& tensor, TensorMap& map, void* data, const ImageRuns& runs,
                       const PlaneWork& work, int numbers) {
    if (runs.images == 0) return;
    const std::int64_t bytes = std::int64_t{work.channels} * numbers * 2;
    tensor.data = static_cast<unsigned char*>(data);
    tensor.number = kPieceUnit;
    const std::int64_t sizes[4] = {bytes / kPieceUnit, 1, 1, work.cut.images};
    const std::int64_t strides[4] = {kPieceUnit, bytes, bytes, bytes};
    const int box[4] = {runs.bytes / kPieceUnit, 1, 1, runs.images};
    std::copy_n(sizes, 4, tensor.sizes), std::copy_n(strides, 4, tensor.strides);
    std::copy_n(box, 4, tensor.box);
    map.opaque[0] = reinterpret_cast<std::uintptr_t>(&tensor);
  }

  EmulatedTensor x_, y_;
};

}  // namespace lamella::depthwise::checks
