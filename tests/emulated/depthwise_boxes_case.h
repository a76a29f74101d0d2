#pragma once

#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_boxes.h"

/// Tensors of channels side by side as the emulated copy engine is told of them.
namespace lamella::depthwise::checks {

/// What run.cpp tells the real one: of so many images, rows, columns and channels, with a box to move at a
/// time. Numbers have so many bytes; those of four lie in a box as they come, as do odd eights of channels.
inline EmulatedTensor box_tensor(const Pixels& pixels, int images, int rows, int columns, int channels,
                                 const BoxSizes& box, int number = 2) {
  EmulatedTensor made;
  made.data = static_cast<unsigned char*>(pixels.data);
  made.number = number;
  const std::int64_t sizes[4] = {channels, columns, rows, images};
  const std::int64_t strides[4] = {number, pixels.pixel * number, pixels.row * number, pixels.image * number};
  const int extents[4] = {box.channels, box.pixels, box.rows, box.images};
  const int steps[4] = {1, box.pixel_step, box.row_step, 1};
  std::copy_n(sizes, 4, made.sizes), std::copy_n(strides, 4, made.strides);
  std::copy_n(extents, 4, made.box), std::copy_n(steps, 4, made.steps);
  const int eights = box.channels / 8;
  made.swizzle = number == 4 || eights % 2 == 1 ? 0 : eights - 1;
  return made;
}

}  // namespace lamella::depthwise::checks
