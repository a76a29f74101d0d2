#include "layers/depthwise_conv2d/cuda/maps.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "core/cuda/copy_engine.h"

namespace lamella::cuda::depthwise {

using detail::ConstTensorView;
using detail::cuda::TensorBox;
using lamella::depthwise::BoxSizes;
using lamella::depthwise::ImageRuns;
using lamella::depthwise::TensorMap;

bool describe(const ConstTensorView& view, const BoxSizes& box, TensorMap& map) {
  constexpr std::uint64_t kLargestStride = std::uint64_t{1} << 40, kLargestSize = std::uint64_t{1} << 32;
  constexpr std::uint32_t kRank = TensorBox::kAxes;
  const std::uint64_t number = size_of(view.dtype);
  TensorBox to{.data = view.data, .dtype = view.dtype, .by_eight_bytes = box.by_rows};
  constexpr std::array<int, kRank> kAxes{1, 3, 2, 0};
  for (std::uint32_t i = 0; i < kRank; ++i) to.sizes[i] = static_cast<std::uint64_t>(view.shape[kAxes[i]]);
  for (std::uint32_t i = 1; i < kRank; ++i) {
    // Of an axis of one, any stride will do.
    std::uint64_t stride = static_cast<std::uint64_t>(view.strides[kAxes[i]]) * number;
    if (to.sizes[i] == 1) stride = (to.sizes[0] * number + 15) / 16 * 16;
    if (view.strides[kAxes[i]] <= 0 || stride >= kLargestStride || stride % 16 != 0) return false;
    to.strides[i - 1] = stride;
  }
  for (const std::uint64_t size : to.sizes)
    if (size == 0 || size > kLargestSize) return false;
  if (box.by_rows) {
    // A row's numbers become the first axis; that of pixels is left as one.
    constexpr std::uint64_t kUnit = lamella::depthwise::kPieceUnit;
    if (to.sizes[1] != 1 && to.strides[0] != to.sizes[0] * number) return false;
    const std::uint64_t bytes = to.sizes[0] * to.sizes[1] * number;
    // Places in a row are 32-bit numbers, also those in a tile that the row's end is in.
    constexpr std::uint64_t kMostUnits = std::uint64_t{1} << 30;
    if (bytes / kUnit > kMostUnits) return false;
    to.sizes[0] = bytes / kUnit, to.sizes[1] = 1;
    to.strides[0] = bytes;
    for (std::uint32_t i = 1; i + 1 < kRank; ++i) {
      if (to.sizes[i + 1] == 1) to.strides[i] = std::max(to.strides[i], bytes);
      if (to.strides[i] < bytes) return false;  // rows that overlap
    }
    const int row_bytes = box.pixels * box.channels * static_cast<int>(number);
    to.extents = {static_cast<std::uint32_t>(lamella::depthwise::row_piece_bytes(row_bytes) / kUnit), 1, 1,
                  1};
    return detail::cuda::encode_map(to, &map);
  }
  const auto extent = [](int count, int step) { return static_cast<std::uint32_t>((count - 1) * step + 1); };
  to.extents = {static_cast<std::uint32_t>(box.channels), extent(box.pixels, box.pixel_step),
                extent(box.rows, box.row_step), static_cast<std::uint32_t>(box.images)};
  to.steps = {1, static_cast<std::uint32_t>(box.pixel_step), static_cast<std::uint32_t>(box.row_step), 1};
  return detail::cuda::encode_map(to, &map);
}

bool describe(const ConstTensorView& view, const ImageRuns& runs, TensorMap& map) {
  constexpr std::uint64_t kUnit = lamella::depthwise::kPieceUnit;
  const auto bytes = static_cast<std::uint64_t>(view.shape[1] * view.shape[2] * view.shape[3]) *
                     static_cast<std::uint64_t>(size_of(view.dtype));
  // Places in an image are 32-bit numbers.
  constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 31;
  if (bytes >= kMostBytes || view.shape[0] > std::int64_t{std::numeric_limits<int>::max()}) return false;
  TensorBox to{.data = view.data, .dtype = view.dtype, .by_eight_bytes = true};
  to.sizes = {bytes / kUnit, 1, 1, static_cast<std::uint64_t>(view.shape[0])};
  to.strides = {bytes, bytes, bytes};
  to.extents = {static_cast<std::uint32_t>(runs.bytes) / static_cast<std::uint32_t>(kUnit), 1, 1,
                static_cast<std::uint32_t>(runs.images)};
  return detail::cuda::encode_map(to, &map);
}

}  // namespace lamella::cuda::depthwise
