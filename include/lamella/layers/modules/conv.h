#pragma once

#include <cstdint>

#include "lamella/layers/conv_geometry.h"
#include "lamella/layers/module.h"

namespace lamella {

/// How a Conv2d is built; names and defaults are PyTorch's.
struct Conv2dLayerOptions {
  Size2 stride = 1;         ///< distance between windows
  Size2 padding = 0;        ///< zeros on each side
  Size2 dilation = 1;       ///< distance between taps
  std::int64_t groups = 1;  ///< as in Conv2dOptions
  /// Pads so that the output has the input's size (stride 1 only); `padding` must be 0.
  bool same_padding = false;
  bool bias = true;  ///< add a learned number per output channel
};

/// Two-dimensional convolution: see conv2d(). Parameters weight [out, in / groups, kernel.h, kernel.w] and
/// bias [out]; they start as PyTorch's: Kaiming-uniform with a = √5, bias uniform within ±1/√fan_in. Throws
/// ShapeError for sizes below 1, negative padding, or channels that the groups do not divide.
class LAMELLA_API Conv2d : public Module {
 public:
  /// From `in` to `out` channels, with `kernel` taps.
  Conv2d(std::int64_t in, std::int64_t out, Size2 kernel, const Conv2dLayerOptions& options = {});
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

  /// As given.
  const Conv2dLayerOptions& options() const { return options_; }
  /// [out, in / groups, kernel.h, kernel.w].
  const Tensor& weight() const { return weight_; }
  /// [out]; undefined if there is none.
  const Tensor& bias() const { return bias_; }

 private:
  Conv2dLayerOptions options_;
  Parameter weight_;
  Parameter bias_;
};

/// How a DepthwiseConv2d is built.
struct DepthwiseConv2dLayerOptions {
  Size2 stride = 1;             ///< distance between windows
  Size2 padding = 0;            ///< zeros on each side
  Size2 dilation = 1;           ///< distance between taps
  std::int64_t multiplier = 1;  ///< output channels per input channel
  bool same_padding = false;    ///< pad so that the output has the input's size (stride 1 and padding 0 only)
  bool bias = true;             ///< add a learned number per output channel
};

/// One convolution per channel: see depthwise_conv2d(). Parameters, initialisation and results are those of
/// Conv2d(channels, channels · multiplier, kernel, {.groups = channels}) and of PyTorch's Conv2d with
/// groups = channels.
class LAMELLA_API DepthwiseConv2d : public Module {
 public:
  /// From `channels` to channels · multiplier, with `kernel` taps. Throws as Conv2d, and for a multiplier
  /// below 1.
  DepthwiseConv2d(std::int64_t channels, Size2 kernel, const DepthwiseConv2dLayerOptions& options = {});
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

  /// As given.
  const DepthwiseConv2dLayerOptions& options() const { return options_; }
  /// [channels · multiplier, 1, kernel.h, kernel.w].
  const Tensor& weight() const { return weight_; }
  /// [out]; undefined if there is none.
  const Tensor& bias() const { return bias_; }

 private:
  DepthwiseConv2dLayerOptions options_;
  Parameter weight_;
  Parameter bias_;
};

}  // namespace lamella
