#include "core/check.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "layers/conv/layer.h"

namespace lamella {

namespace {

/// The same layer as a convolution with groups.
Conv2dLayerOptions as_conv2d(const DepthwiseConv2dLayerOptions& options, std::int64_t channels) {
  return {.stride = options.stride,
          .padding = options.padding,
          .dilation = options.dilation,
          .groups = channels,
          .same_padding = options.same_padding,
          .bias = options.bias};
}

}  // namespace

DepthwiseConv2d::DepthwiseConv2d(std::int64_t channels, Size2 kernel,
                                 const DepthwiseConv2dLayerOptions& options)
    : Module("DepthwiseConv2d"), options_(options) {
  LAMELLA_CHECK(ShapeError, options.multiplier >= 1, "DepthwiseConv2d: channel multiplier ",
                options.multiplier, "; it must be 1 or more");
  const std::int64_t out = channels * options.multiplier;
  detail::check_conv_layer("DepthwiseConv2d", channels, out, kernel, as_conv2d(options, channels));
  weight_ = add_parameter("weight", detail::initial_conv_weight(out, 1, kernel));
  if (options.bias) bias_ = add_parameter("bias", detail::initial_conv_bias(weight_));
}

Tensor DepthwiseConv2d::forward(const Tensor& x) {
  return depthwise_conv2d(x, weight_, bias_,
                          {.stride = options_.stride,
                           .padding = options_.padding,
                           .dilation = options_.dilation,
                           .same_padding = options_.same_padding});
}

std::string DepthwiseConv2d::settings() const {
  return detail::conv_layer_settings(weight_, as_conv2d(options_, weight_->size(0) / options_.multiplier));
}

}  // namespace lamella
