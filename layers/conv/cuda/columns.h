#pragma once

#include "layers/conv/cuda/windows.h"
#include "tensor/kernels/gemm.h"
#include "tensor/view.h"

/// The windows of a source as columns of matrices.
namespace lamella::cuda {

/// How the columns of a block lie: pixel by pixel [images · pixels][groups][taps][channels of a group], the
/// last two padded with zeros to `length`, from a channels-last source; else in planes
/// [images][groups][channels of a group][taps][pixels].
struct ConvColumns {
  ConvWindows windows;
  bool channels_last = false;
  DType dtype = DType::Float32;
  std::int64_t length = 0;

  ConvColumns(const ConvWindows& windows, bool channels_last, DType dtype);
  /// Of all columns of one pixel.
  std::int64_t pixel_bytes() const;
  /// That columns of a block need.
  std::int64_t bytes(const ConvBlock& block) const;
};

/// Writes the columns of a block. The source is [N,C,H,W], dense in its format; its type is that of the
/// columns, or a half type where they are float32.
void gather_columns(const ConvColumns& columns, const ConvBlock& block, const detail::ConstTensorView& source,
                    void* to);

}  // namespace lamella::cuda
