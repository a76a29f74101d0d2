#include "lamella/layers/conv.h"
#include "layers/conv/layer.h"

namespace lamella {

Conv2d::Conv2d(std::int64_t in, std::int64_t out, Size2 kernel, const Conv2dLayerOptions& options)
    : Module("Conv2d"), options_(options) {
  detail::check_conv_layer("Conv2d", in, out, kernel, options);
  weight_ = add_parameter("weight", detail::initial_conv_weight(out, in / options.groups, kernel));
  if (options.bias) bias_ = add_parameter("bias", detail::initial_conv_bias(weight_));
}

Tensor Conv2d::forward(const Tensor& x) {
  return conv2d(x, weight_, bias_,
                {.stride = options_.stride,
                 .padding = options_.padding,
                 .dilation = options_.dilation,
                 .groups = options_.groups,
                 .same_padding = options_.same_padding});
}

std::string Conv2d::settings() const { return detail::conv_layer_settings(weight_, options_); }

}  // namespace lamella
