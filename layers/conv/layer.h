#pragma once

#include <string>

#include "lamella/layers/modules/conv.h"

/// What Conv2d and DepthwiseConv2d share.
namespace lamella::detail {

/// Throws ShapeError naming `layer` unless a convolution can be built like this.
void check_conv_layer(const char* layer, std::int64_t in, std::int64_t out, Size2 kernel,
                      const Conv2dLayerOptions& options);

/// A weight of Kaiming-uniform numbers with a = √5, and a bias within ±1/√fan_in of it, as PyTorch starts
/// them.
Tensor initial_conv_weight(std::int64_t out, std::int64_t in_per_group, Size2 kernel);
Tensor initial_conv_bias(const Tensor& weight);

/// As PyTorch prints it.
std::string conv_layer_settings(const Tensor& weight, const Conv2dLayerOptions& options);

}  // namespace lamella::detail
