#pragma once

#include <optional>

#include "lamella/core/export.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/tensor/tensor.h"

namespace lamella {

/// How max_pool2d() walks over its input; a single number serves height and width.
struct MaxPool2dOptions {
  Size2 kernel = {};                 ///< must be given
  std::optional<Size2> stride = {};  ///< by default the kernel's size
  Size2 padding = 0;                 ///< at most half the kernel; never wins
  Size2 dilation = 1;                ///< distance between the taps of a window
  bool ceil_mode = false;  ///< also windows that reach beyond the padded input, if they begin inside it
};

/// Largest element of each window of [N,C,H,W]; output sizes as in conv_output_size(). NaN wins over numbers,
/// and of equal elements the first gets the gradient. A window that dilation lets miss the input altogether
/// gives −∞. The output has the input's type and memory format; an empty batch is allowed. Throws ShapeError
/// where the input has not four axes, a size or padding does not fit, or the window is larger than the padded
/// input; DTypeError unless floating, Error for an undefined input.
LAMELLA_API Tensor max_pool2d(const Tensor& x, const MaxPool2dOptions& options);

/// How avg_pool2d() walks over its input.
struct AvgPool2dOptions {
  Size2 kernel = {};                 ///< must be given
  std::optional<Size2> stride = {};  ///< by default the kernel's size
  Size2 padding = 0;                 ///< zeros on each side, at most half the kernel
  bool ceil_mode = false;            ///< as in max_pool2d()
  /// Divide by the window's size with its padding; else by what it covers of the input.
  bool count_include_pad = true;
};

/// Mean of each window of [N,C,H,W]; the part of a ceil_mode window beyond the padding never counts.
/// Otherwise as max_pool2d().
LAMELLA_API Tensor avg_pool2d(const Tensor& x, const AvgPool2dOptions& options);

/// Means of windows that divide [N,C,H,W] into output.h × output.w parts: row i covers rows floor(i·H/h) …
/// ceil((i+1)·H/h) − 1, columns likewise (windows overlap where the sizes do not divide; the input may be
/// smaller than the output). {1, 1}, or 1: the mean of each channel. Throws ShapeError unless the input has
/// four axes, with H and W at least 1, and the output sizes are at least 1; DTypeError unless floating.
LAMELLA_API Tensor adaptive_avg_pool2d(const Tensor& x, Size2 output);

}  // namespace lamella
