#include "layers/conv/cuda/convolve.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "core/workspace.h"
#include "layers/conv/cuda/columns.h"
#include "layers/conv/cuda/results.h"
#include "tensor/kernels/copy.h"
#include "tensor/kernels/gemm.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::Gemm;
using detail::GemmOperand;
using detail::GradientWrite;
using detail::TensorView;
using detail::Workspace;

namespace {

// Bytes that a block needs beside the operands. The first is small enough to stay in the second-level cache
// between two passes, but a block should also have numbers enough to occupy a GPU.
constexpr std::int64_t kWantedBytes = 32 << 20, kMostBytes = 128 << 20, kWantedNumbers = 4 << 20;
// Of an operand of one product, where nothing else bounds it.
constexpr std::int64_t kMostNumbers = 1 << 30;

std::int64_t bytes_of(DType dtype) { return static_cast<std::int64_t>(size_of(dtype)); }

const void* at(const void* data, std::int64_t offset, DType dtype) {
  return static_cast<const std::byte*>(data) + offset * bytes_of(dtype);
}
void* at(void* data, std::int64_t offset, DType dtype) {
  return static_cast<std::byte*>(data) + offset * bytes_of(dtype);
}

/// The weight as matrices [target channels × length], one per group, the terms in the order of the columns:
/// itself where it lies so, else a copy.
class WeightMatrix {
 public:
  WeightMatrix(const ConstTensorView& weight, bool channels_last, std::int64_t length)
      : operand_{weight.data, weight.dtype, weight.strides[1], 1, {weight.strides[0]}},
        memory_(weight.device, bytes_of(weight.dtype) * (copies(weight, channels_last, length)
                                                             ? weight.shape[0] * weight.shape[1] * length
                                                             : 0)) {
    if (weight.shape[3] == 1 && weight.shape[4] == 1) operand_.column = weight.strides[2];
    if (memory_.as<void>() == nullptr) return;
    const Shape& shape = weight.shape;
    TensorView dense{
        memory_.as<void>(), {shape[0] * shape[1], length}, {length, 1}, weight.dtype, weight.device};
    if (length > shape[2] * shape[3] * shape[4]) fill(dense, 0);
    dense.shape = shape;
    dense.strides = matrix_strides(shape, channels_last, length);
    copy(weight, dense, GradientWrite::Overwrite);
    operand_ = {dense.data, dense.dtype, length, 1, {shape[1] * length}};
  }
  const GemmOperand& operand() const { return operand_; }

 private:
  static Strides matrix_strides(const Shape& shape, bool channels_last, std::int64_t length) {
    const std::int64_t taps = shape[3] * shape[4], across = shape[4];
    if (channels_last) return {shape[1] * length, length, 1, across * shape[2], shape[2]};
    return {shape[1] * length, length, taps, across, 1};
  }
  static bool copies(const ConstTensorView& weight, bool channels_last, std::int64_t length) {
    const Shape& shape = weight.shape;
    if (length > shape[2] * shape[3] * shape[4]) return true;
    const auto is_row = [&](int axis) { return shape[axis] == 1 || weight.strides[axis] == 1; };
    if (shape[3] == 1 && shape[4] == 1) return !is_row(1) && !is_row(2);
    const Strides wanted = matrix_strides(shape, channels_last, length);
    for (int axis = 0; axis < shape.size(); ++axis)
      if (shape[axis] != 1 && weight.strides[axis] != wanted[axis]) return true;
    return false;
  }

  GemmOperand operand_;
  Workspace memory_;
};

GemmOperand transposed(GemmOperand x) {
  std::swap(x.row, x.column);
  return x;
}

class Convolver {
 public:
  explicit Convolver(const Convolution& c)
      : c_(c),
        w_(c.windows),
        channels_(c.weight.shape[0] * c.weight.shape[1]),
        group_channels_(c.weight.shape[1]),
        work_(c.weight.dtype == c.source.dtype ? c.source.dtype : DType::Float32),
        sum_(work_ == DType::Float64 ? DType::Float64 : DType::Float32),
        direct_(c.target_is_dense && c.target.dtype == work_ && (c.bias.data == nullptr || work_ == sum_)) {
    if (!w_.is_identity() || c.source.dtype != work_) columns_.emplace(w_, c.channels_last, work_);
  }

  void run() {
    const WeightMatrix weight(c_.weight, c_.channels_last, columns_ ? columns_->length : w_.inputs());
    const ConvBlocks blocks(c_.source.shape[0], w_.grid, block_pixels());
    const ConvBlock first = blocks.first();
    const Device device = c_.target.device;
    const Workspace columns(device, columns_ ? columns_->bytes(first) : 0);
    const Workspace sums(device, direct_ ? 0 : first.images * first.pixels() * channels_ * bytes_of(sum_));
    blocks.for_each([&](const ConvBlock& block) {
      if (columns_) gather_columns(*columns_, block, c_.source, columns.as<void>());
      const TensorView target = target_of(block), result = direct_ ? target : sums_of(block, sums.as<void>());
      if (c_.channels_last)
        multiply_pixels(block, columns.as<void>(), weight.operand(), result);
      else
        multiply_planes(block, columns.as<void>(), weight.operand(), result);
      if (!direct_ || c_.bias.data != nullptr) store_sums(result, c_.bias, target, c_.write);
    });
  }

 private:
  std::int64_t block_pixels() const {
    const bool in_place = direct_ && c_.bias.data != nullptr;
    const std::int64_t bytes = (columns_ ? columns_->pixel_bytes() : 0) +
                               (direct_ ? 0 : channels_ * bytes_of(sum_)) +
                               (in_place ? channels_ * bytes_of(work_) : 0);
    const std::int64_t most = kMostNumbers / std::max(channels_, w_.channels);
    if (bytes == 0) return most;
    std::int64_t pixels =
        std::min(std::max(kWantedBytes / bytes, kWantedNumbers / channels_), kMostBytes / bytes);
    // A part of an image is not one row of memory.
    if (in_place && !columns_) pixels = std::max(pixels, w_.grid.h * w_.grid.w);
    return std::clamp<std::int64_t>(pixels, 1, std::max<std::int64_t>(most, 1));
  }

  TensorView target_of(const ConvBlock& block) const {
    const Strides& s = c_.target.strides;
    return {at(c_.target.data, block.image * s[0] + block.row * s[2] + block.column * s[3], c_.target.dtype),
            {block.images, channels_, block.rows, block.columns},
            s,
            c_.target.dtype,
            c_.target.device};
  }
  TensorView sums_of(const ConvBlock& block, void* memory) const {
    const Shape shape{block.images, channels_, block.rows, block.columns};
    const MemoryFormat format = c_.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    return {memory, shape, dense_strides(shape, format), sum_, c_.target.device};
  }

  Gemm product(const TensorView& result) const {
    Gemm g;
    g.c_dtype = result.dtype;
    g.write = direct_ ? c_.write : GradientWrite::Overwrite;
    return g;
  }

  /// [pixels × inputs] · [inputs × channels], a product per group.
  void multiply_pixels(const ConvBlock& block, const void* columns, const GemmOperand& weight,
                       const TensorView& result) const {
    Gemm g = product(result);
    g.m = block.images * block.pixels();
    g.n = group_channels_;
    g.k = columns_ ? columns_->length : w_.inputs();
    g.batch = {w_.groups};
    if (columns_) {
      g.a = {columns, work_, w_.groups * g.k, 1, {g.k}};
    } else {
      const std::int64_t pixel = (block.image * w_.grid.h + block.row) * w_.grid.w + block.column;
      g.a = {at(c_.source.data, pixel * w_.channels, work_), work_, w_.channels, 1, {g.k}};
    }
    g.b = transposed(weight);
    g.c = result.data;
    g.c_row = channels_;
    g.c_column = 1;
    g.c_batch = {group_channels_};
    gemm(g);
  }

  /// [channels × inputs] · [inputs × pixels], a product per image and group.
  void multiply_planes(const ConvBlock& block, const void* columns, const GemmOperand& weight,
                       const TensorView& result) const {
    const std::int64_t plane = w_.grid.h * w_.grid.w, pixels = block.pixels();
    const std::int64_t target_plane = direct_ ? plane : pixels;
    for (std::int64_t group = 0; group < w_.groups; ++group) {
      Gemm g = product(result);
      g.m = group_channels_;
      g.n = pixels;
      g.k = w_.inputs();
      g.batch = {block.images};
      g.a = {at(weight.data, group * weight.batch[0], weight.dtype),
             weight.dtype,
             weight.row,
             weight.column,
             {0}};
      if (columns_) {
        g.b = {at(columns, group * g.k * pixels, work_), work_, pixels, 1, {w_.groups * g.k * pixels}};
      } else {
        const std::int64_t offset = (block.image * w_.channels + group * w_.group_channels()) * plane +
                                    block.row * w_.grid.w + block.column;
        g.b = {at(c_.source.data, offset, work_), work_, plane, 1, {w_.channels * plane}};
      }
      g.c = at(result.data, group * group_channels_ * target_plane, result.dtype);
      g.c_row = target_plane;
      g.c_column = 1;
      g.c_batch = {channels_ * target_plane};
      gemm(g);
    }
  }

  const Convolution& c_;
  const ConvWindows& w_;
  std::int64_t channels_, group_channels_;  ///< of the target
  DType work_;                              ///< of the operands of products
  DType sum_;                               ///< of sums
  bool direct_;                             ///< products write the target
  std::optional<ConvColumns> columns_;      ///< unless the source serves as it lies
};

}  // namespace

void convolve(const Convolution& convolution) { Convolver(convolution).run(); }

}  // namespace lamella::cuda
