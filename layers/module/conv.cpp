#include "lamella/layers/modules/conv.h"

#include <cmath>

#include "core/check.h"
#include "lamella/layers/conv.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "lamella/layers/init.h"
#include "lamella/tensor/create.h"
#include "layers/module/format.h"

namespace lamella {

using detail::pair_text;

namespace {

void check_sizes(const char* name, std::int64_t in, std::int64_t out, Size2 kernel, Size2 stride,
                 Size2 padding, Size2 dilation, std::int64_t groups, bool same_padding) {
  LAMELLA_CHECK(ShapeError, in >= 1 && out >= 1 && kernel.h >= 1 && kernel.w >= 1, name, ": ", in,
                " input channels, ", out, " output channels, kernel ", pair_text(kernel),
                "; all must be 1 or more");
  LAMELLA_CHECK(ShapeError, stride.h >= 1 && stride.w >= 1 && dilation.h >= 1 && dilation.w >= 1, name,
                ": stride ", pair_text(stride), ", dilation ", pair_text(dilation),
                "; all must be 1 or more");
  LAMELLA_CHECK(ShapeError, padding.h >= 0 && padding.w >= 0, name, ": padding ", pair_text(padding),
                " is negative");
  LAMELLA_CHECK(ShapeError, groups >= 1 && in % groups == 0 && out % groups == 0, name, ": ", groups,
                " groups do not divide ", in, " input and ", out, " output channels");
  LAMELLA_CHECK(ShapeError, !same_padding || (padding == Size2(0) && stride == Size2(1)), name,
                ": same_padding goes with padding 0 and stride 1, got padding ", pair_text(padding),
                ", stride ", pair_text(stride));
}

Tensor initial_weight(std::int64_t out, std::int64_t in_per_group, Size2 kernel) {
  return init::kaiming_uniform_(empty({out, in_per_group, kernel.h, kernel.w}), {.a = std::sqrt(5.0)});
}

Tensor initial_bias(const Tensor& weight) {
  const double bound = 1 / std::sqrt(static_cast<double>(init::fans(weight.shape()).in));
  return init::uniform_(empty({weight.size(0)}), -bound, bound);
}

std::string settings_of(std::int64_t in, std::int64_t out, const Tensor& weight,
                        const Conv2dLayerOptions& options) {
  std::string text =
      detail::concat(in, ", ", out, ", kernel_size=", pair_text({weight.size(2), weight.size(3)}),
                     ", stride=", pair_text(options.stride));
  if (options.same_padding) text += ", padding=same";
  if (options.padding != Size2(0)) text += ", padding=" + pair_text(options.padding);
  if (options.dilation != Size2(1)) text += ", dilation=" + pair_text(options.dilation);
  if (options.groups != 1) text += detail::concat(", groups=", options.groups);
  if (!options.bias) text += ", bias=False";
  return text;
}

}  // namespace

Conv2d::Conv2d(std::int64_t in, std::int64_t out, Size2 kernel, const Conv2dLayerOptions& options)
    : Module("Conv2d"), options_(options) {
  check_sizes("Conv2d", in, out, kernel, options.stride, options.padding, options.dilation, options.groups,
              options.same_padding);
  weight_ = add_parameter("weight", initial_weight(out, in / options.groups, kernel));
  if (options.bias) bias_ = add_parameter("bias", initial_bias(weight_));
}

Tensor Conv2d::forward(const Tensor& x) {
  return conv2d(x, weight_, bias_,
                {.stride = options_.stride,
                 .padding = options_.padding,
                 .dilation = options_.dilation,
                 .groups = options_.groups,
                 .same_padding = options_.same_padding});
}

std::string Conv2d::settings() const {
  return settings_of(weight_->size(1) * options_.groups, weight_->size(0), weight_, options_);
}

DepthwiseConv2d::DepthwiseConv2d(std::int64_t channels, Size2 kernel,
                                 const DepthwiseConv2dLayerOptions& options)
    : Module("DepthwiseConv2d"), options_(options) {
  LAMELLA_CHECK(ShapeError, options.multiplier >= 1, "DepthwiseConv2d: channel multiplier ",
                options.multiplier, "; it must be 1 or more");
  check_sizes("DepthwiseConv2d", channels, channels * options.multiplier, kernel, options.stride,
              options.padding, options.dilation, channels, options.same_padding);
  weight_ = add_parameter("weight", initial_weight(channels * options.multiplier, 1, kernel));
  if (options.bias) bias_ = add_parameter("bias", initial_bias(weight_));
}

Tensor DepthwiseConv2d::forward(const Tensor& x) {
  return depthwise_conv2d(x, weight_, bias_,
                          {.stride = options_.stride,
                           .padding = options_.padding,
                           .dilation = options_.dilation,
                           .same_padding = options_.same_padding});
}

std::string DepthwiseConv2d::settings() const {
  const std::int64_t channels = weight_->size(0) / options_.multiplier;
  return settings_of(channels, weight_->size(0), weight_,
                     {.stride = options_.stride,
                      .padding = options_.padding,
                      .dilation = options_.dilation,
                      .groups = channels,
                      .same_padding = options_.same_padding,
                      .bias = options_.bias});
}

}  // namespace lamella
