#include "layers/conv/cuda/weight_gradient.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "core/workspace.h"
#include "layers/conv/cuda/columns.h"
#include "layers/conv/cuda/results.h"
#include "tensor/kernels/gemm.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GradientWrite;
using detail::TensorView;
using detail::Workspace;

namespace {

constexpr std::int64_t kColumnBytes = 64 << 20;  // of a block
constexpr std::int64_t kPartialBytes = 16 << 20;
constexpr std::int64_t kMostNumbers = 1 << 30;  // of an operand of one product
// Blocks of threads that keep a GPU busy, and the numbers that one computes, about.
constexpr std::int64_t kWantedTiles = 512, kTile = 128;
// Of a slice: pixels that one product adds up. Multiples of the second begin at sixteen bytes.
constexpr std::int64_t kLeastLength = 256, kAligned = 8;

std::int64_t bytes_of(DType dtype) { return static_cast<std::int64_t>(size_of(dtype)); }
const void* at(const void* data, std::int64_t offset, DType dtype) {
  return static_cast<const std::byte*>(data) + offset * bytes_of(dtype);
}

/// `pixels` pixels in about `wanted` slices of equal length, and a rest: none where a few slices less avoid
/// it.
struct Slices {
  std::int64_t length, count;
  Slices(std::int64_t pixels, std::int64_t wanted) {
    const std::int64_t most = std::clamp<std::int64_t>(pixels / kLeastLength, 1, wanted);
    for (count = most; count > most * 3 / 4; --count) {
      length = pixels / count;
      if (length * count == pixels && length % kAligned == 0) return;
    }
    length = std::min(pixels, round_up(divide_up(pixels, most), kAligned));
    count = pixels / length;
  }
};

class WeightGradient {
 public:
  WeightGradient(const Conv2dGeometry& g, const ConstTensorView& grad_output, const ConstTensorView& input,
                 bool channels_last)
      : w_(forward_windows(g)),
        grad_(grad_output),
        input_(input),
        channels_last_(channels_last),
        outputs_(g.out_channels),
        group_outputs_(g.out_channels / g.groups),
        dtype_(input.dtype),
        sum_(dtype_ == DType::Float64 ? DType::Float64 : DType::Float32) {
    if (!w_.is_identity()) columns_.emplace(w_, channels_last, dtype_);
    inputs_ = columns_ ? columns_->length : w_.inputs();
    part_ = outputs_ * inputs_;
    tiles_ = divide_up(group_outputs_, kTile) * divide_up(inputs_, kTile) * w_.groups;
    most_parts_ = std::max<std::int64_t>(1, kPartialBytes / (part_ * bytes_of(sum_)));
  }

  void run(const TensorView& grad_weight, GradientWrite write) {
    const Device device = grad_weight.device;
    const ConvBlocks blocks(input_.shape[0], w_.grid, block_pixels());
    const ConvBlock first = blocks.first();
    const std::int64_t parts = count_parts(first);
    const Workspace columns(device, columns_ ? columns_->bytes(first) : 0);
    const Workspace partial(device, parts * part_ * bytes_of(sum_));
    partial_ = partial.as<std::byte>();
    blocks.for_each([&](const ConvBlock& block) {
      if (columns_) gather_columns(*columns_, block, input_, columns.as<void>());
      if (channels_last_)
        add_pixels(block, columns.as<void>());
      else
        add_planes(block, columns.as<void>());
    });
    const std::int64_t across = w_.taps.w, taps = w_.taps.h * across, channels = w_.group_channels();
    const Strides strides =
        channels_last_ ? Strides{inputs_, 1, across * channels, channels} : Strides{inputs_, taps, across, 1};
    add_partial_sums({partial_, sum_, parts, part_, strides}, grad_weight, write);
  }

 private:
  std::int64_t block_pixels() const {
    const std::int64_t most = kMostNumbers / std::max(outputs_, w_.channels);
    std::int64_t pixels = columns_ ? std::min(most, kColumnBytes / columns_->pixel_bytes()) : most;
    // In planes, every image of a block has a part of its own.
    if (!channels_last_) pixels = std::min(pixels, most_parts_ * w_.grid.h * w_.grid.w);
    return std::max<std::int64_t>(pixels, 1);
  }

  /// How many parts the first block fills; no block fills more. Sets how the blocks are sliced.
  std::int64_t count_parts(const ConvBlock& block) {
    const std::int64_t wanted = std::clamp<std::int64_t>(kWantedTiles / tiles_, 1, most_parts_);
    if (channels_last_) {
      const Slices slices(block.images * block.pixels(), wanted);
      length_ = slices.length;
      return slices.count;
    }
    by_image_ = tiles_ * block.images >= kWantedTiles / 4;
    if (by_image_) return block.images;
    const Slices slices(block.pixels(), wanted);
    length_ = slices.length;
    return slices.count;
  }

  /// Once the first block's first product has filled all parts, others are added.
  Gemm product(std::int64_t pixels) const {
    Gemm g;
    g.m = group_outputs_;
    g.n = inputs_;
    g.k = pixels;
    g.c_dtype = sum_;
    g.c_row = inputs_;
    g.c_column = 1;
    g.write = started_ ? GradientWrite::Accumulate : GradientWrite::Overwrite;
    return g;
  }
  void* part(std::int64_t index, std::int64_t group = 0) const {
    return partial_ + (index * part_ + group * group_outputs_ * inputs_) * bytes_of(sum_);
  }

  void add_pixels(const ConvBlock& block, const void* columns) {
    const std::int64_t pixels = block.images * block.pixels(), whole = pixels / length_;
    if (whole > 0) add_pixel_slices(block, columns, 0, length_, whole);
    started_ = true;
    if (whole * length_ < pixels)
      add_pixel_slices(block, columns, whole * length_, pixels - whole * length_, 1);
  }

  /// [outputs × pixels] · [pixels × inputs] for `count` slices of a block from pixel `from` on.
  void add_pixel_slices(const ConvBlock& block, const void* columns, std::int64_t from, std::int64_t length,
                        std::int64_t count) {
    const std::int64_t pixel = (block.image * w_.grid.h + block.row) * w_.grid.w + block.column + from;
    const std::int64_t row = w_.groups * inputs_;
    const void* const windows =
        columns_ ? at(columns, from * row, dtype_) : at(input_.data, pixel * row, dtype_);
    const void* const grad = at(grad_.data, pixel * outputs_, dtype_);
    Gemm g = product(length);
    if (w_.groups == 1) {
      g.batch = {count};
      g.a = {grad, dtype_, 1, outputs_, {length * outputs_}};
      g.b = {windows, dtype_, row, 1, {length * row}};
      g.c = part(0);
      g.c_batch = {part_};
      gemm(g);
      return;
    }
    for (std::int64_t slice = 0; slice < count; ++slice) {
      g.batch = {w_.groups};
      g.a = {at(grad, slice * length * outputs_, dtype_), dtype_, 1, outputs_, {group_outputs_}};
      g.b = {at(windows, slice * length * row, dtype_), dtype_, row, 1, {inputs_}};
      g.c = part(slice);
      g.c_batch = {group_outputs_ * inputs_};
      gemm(g);
    }
  }

  void add_planes(const ConvBlock& block, const void* columns) {
    if (by_image_) {
      add_plane_slices(block, columns, 0, 0, block.pixels(), block.images, true);
      started_ = true;
      return;
    }
    const std::int64_t pixels = block.pixels(), whole = pixels / length_;
    for (std::int64_t image = 0; image < block.images; ++image) {
      if (whole > 0) add_plane_slices(block, columns, image, 0, length_, whole, false);
      started_ = true;
      if (whole * length_ < pixels)
        add_plane_slices(block, columns, image, whole * length_, pixels - whole * length_, 1, false);
    }
  }

  /// The same for planes: `count` images, or slices of an image, from pixel `from` of a block's image on.
  void add_plane_slices(const ConvBlock& block, const void* columns, std::int64_t image, std::int64_t from,
                        std::int64_t length, std::int64_t count, bool images) const {
    const std::int64_t plane = w_.grid.h * w_.grid.w;
    const std::int64_t pixel = block.row * w_.grid.w + block.column + from;
    const std::int64_t windows_plane = columns_ ? block.pixels() : plane;
    const std::int64_t windows_image = w_.groups * inputs_ * windows_plane;
    for (std::int64_t group = 0; group < w_.groups; ++group) {
      Gemm g = product(length);
      g.batch = {count};
      const std::int64_t output = (block.image + image) * outputs_ + group * group_outputs_;
      g.a = {at(grad_.data, output * plane + pixel, dtype_),
             dtype_,
             plane,
             1,
             {images ? outputs_ * plane : length}};
      const std::int64_t input = group * inputs_ * windows_plane;
      const void* const windows =
          columns_ ? at(columns, image * windows_image + input + from, dtype_)
                   : at(input_.data, (block.image + image) * windows_image + input + pixel, dtype_);
      g.b = {windows, dtype_, 1, windows_plane, {images ? windows_image : length}};
      g.c = part(0, group);
      g.c_batch = {part_};
      gemm(g);
    }
  }

  ConvWindows w_;
  const ConstTensorView& grad_;
  const ConstTensorView& input_;
  bool channels_last_;
  std::int64_t outputs_, group_outputs_;
  std::int64_t inputs_ = 0;  ///< of a group, with what pads columns
  DType dtype_, sum_;
  std::optional<ConvColumns> columns_;  ///< unless the input serves as it lies
  std::int64_t part_ = 0;               ///< numbers of a part: [outputs][inputs]
  std::int64_t tiles_ = 0;              ///< of a part
  std::int64_t most_parts_ = 1;
  std::int64_t length_ = 1;  ///< of a slice
  bool by_image_ = false;    ///< in planes: a part per image of a block, else per slice of an image
  bool started_ = false;
  std::byte* partial_ = nullptr;
};

}  // namespace

void convolve_weight_gradient(const Conv2dGeometry& geometry, const ConstTensorView& grad_output,
                              const ConstTensorView& input, bool channels_last, const TensorView& grad_weight,
                              GradientWrite write) {
  WeightGradient(geometry, grad_output, input, channels_last).run(grad_weight, write);
}

}  // namespace lamella::cuda
