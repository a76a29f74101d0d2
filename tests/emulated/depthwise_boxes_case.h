#pragma once

#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_hankel_boxes.h"
#include "layers/depthwise_conv2d/cuda/cut_toeplitz_boxes.h"

/// What the tests of boxes share: their problems, their tiles as numbers, and tensors as the emulated copy
/// engine is told of them.
namespace lamella::depthwise::checks {

// Of sixteen bits: a pixel is whole in sixteen bytes.
constexpr int kBoxChannels = 8;
constexpr Layout kBoxLayout{true, kBoxChannels, kBoxChannels},
    kDenseLayout{true, kBoxChannels, kBoxChannels, false};

/// Problems for items of so many images, with a multiple of so many channels.
inline Wanted want_boxes(const KernelSizes& kernel, int images, int channels = kBoxChannels) {
  Wanted wanted{kernel};
  wanted.channels = channels;
  if (images > 1) wanted.most_images = 2 * images + 3;
  return wanted;
}
/// One of a map of `size` rows and columns with as much padding as keeps them, for a kernel of odd sizes; 0:
/// any.
inline Geometry draw_map(Draw& draw, Wanted wanted, int size) {
  if (size == 0) return draw_geometry(draw, wanted);
  wanted.spread_h = wanted.spread_w = 1, wanted.may_reach_beyond = false;
  wanted.padding_h = wanted.kernel.kernel_h / 2, wanted.padding_w = wanted.kernel.kernel_w / 2;
  Geometry g = draw_geometry(draw, wanted);
  g.h = g.w = size;
  g.out_h = (size - 1) / g.stride_h + 1, g.out_w = (size - 1) / g.stride_w + 1;
  return g;
}

template <class Tile>
constexpr BoxTileSizes kBoxSizes{Tile::kColumns,      Tile::kBlocks,  Tile::kRows,  Tile::kChannels,
                                 Tile::kWarpChannels, Tile::kTapRows, Tile::kPages, Tile::kWhole,
                                 Tile::kBoxColumns,   Tile::kImages,  Tile::kByRows};
template <class Tile>
constexpr ToeplitzTileSizes kToeplitzSizes{Tile::kTiles,    Tile::kRows,       Tile::kHigh,
                                           Tile::kWide,     Tile::kAcross,     Tile::kGroups / Tile::kAcross,
                                           Tile::kChannels, Tile::kPageRows,   Tile::kPages,
                                           Tile::kWhole,    Tile::kBoxColumns, Tile::kAsks};
template <class Tile>
constexpr HankelTileSizes kHankelSizes{Tile::kColumns, Tile::kBlocks, Tile::kShiftRows, Tile::kXBlocks,
                                       Tile::kGBlocks, Tile::kLead,   Tile::kChannels,  Tile::kPages,
                                       Tile::kWhole,   Tile::kKeeps,  Tile::kImages,    Tile::kLate};

/// What run.cpp tells the real one: of so many images, rows, columns and channels, with a box to move at a
/// time. Numbers have so many bytes; those of four lie in a box as they come, as do odd eights of channels.
inline EmulatedTensor box_tensor(const Pixels& pixels, int images, int rows, int columns, int channels,
                                 const BoxSizes& box, int number = 2) {
  EmulatedTensor made;
  made.data = static_cast<unsigned char*>(pixels.data);
  if (box.by_rows) {
    constexpr int kNumber = kPieceUnit;
    made.number = kNumber;
    const std::int64_t row_bytes = std::int64_t{columns} * channels * number;
    const std::int64_t of_rows[4] = {row_bytes / kNumber, 1, rows, images};
    const std::int64_t apart[4] = {kNumber, row_bytes, pixels.row * number, pixels.image * number};
    std::copy_n(of_rows, 4, made.sizes), std::copy_n(apart, 4, made.strides);
    made.box[0] = row_piece_bytes(box.pixels * box.channels * number) / kNumber;
    made.box[1] = made.box[2] = made.box[3] = 1;
    return made;
  }
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

/// The tensors of a problem, with its boxes.
struct BoxTensors {
  EmulatedTensor x, y, dx;

  /// Says where they are; they must stay there.
  void tell(BoxWork& boxes, const Geometry& g, const BoxPlan& plan, int number = 2) {
    const PixelWork& work = boxes.work;
    x = box_tensor(work.x, g.batch, g.h, g.w, g.channels, plan.x, number);
    y = box_tensor(work.y, g.batch, g.out_h, g.out_w, g.channels * g.repeat, plan.y, number);
    dx = box_tensor(work.dx, g.batch, g.h, g.w, g.channels, plan.dx, number);
    boxes.x.opaque[0] = reinterpret_cast<std::uintptr_t>(&x);
    boxes.y.opaque[0] = reinterpret_cast<std::uintptr_t>(&y);
    boxes.dx.opaque[0] = reinterpret_cast<std::uintptr_t>(&dx);
  }
};

}  // namespace lamella::depthwise::checks
