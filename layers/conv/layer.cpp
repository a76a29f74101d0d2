#include "layers/conv/layer.h"

#include <cmath>

#include "core/check.h"
#include "lamella/layers/init.h"
#include "lamella/tensor/create.h"
#include "layers/module/format.h"

namespace lamella::detail {

void check_conv_layer(const char* layer, std::int64_t in, std::int64_t out, Size2 kernel,
                      const Conv2dLayerOptions& options) {
  const Size2 stride = options.stride, padding = options.padding, dilation = options.dilation;
  const std::int64_t groups = options.groups;
  LAMELLA_CHECK(ShapeError, in >= 1 && out >= 1 && kernel.h >= 1 && kernel.w >= 1, layer, ": ", in,
                " input channels, ", out, " output channels, kernel ", pair_text(kernel),
                "; all must be 1 or more");
  LAMELLA_CHECK(ShapeError, stride.h >= 1 && stride.w >= 1 && dilation.h >= 1 && dilation.w >= 1, layer,
                ": stride ", pair_text(stride), ", dilation ", pair_text(dilation),
                "; all must be 1 or more");
  LAMELLA_CHECK(ShapeError, padding.h >= 0 && padding.w >= 0, layer, ": padding ", pair_text(padding),
                " is negative");
  LAMELLA_CHECK(ShapeError, groups >= 1 && in % groups == 0 && out % groups == 0, layer, ": ", groups,
                " groups do not divide ", in, " input and ", out, " output channels");
  LAMELLA_CHECK(ShapeError, !options.same_padding || (padding == Size2(0) && stride == Size2(1)), layer,
                ": same_padding goes with padding 0 and stride 1, got padding ", pair_text(padding),
                ", stride ", pair_text(stride));
}

Tensor initial_conv_weight(std::int64_t out, std::int64_t in_per_group, Size2 kernel) {
  return init::kaiming_uniform_(empty({out, in_per_group, kernel.h, kernel.w}), {.a = std::sqrt(5.0)});
}

Tensor initial_conv_bias(const Tensor& weight) {
  const double bound = 1 / std::sqrt(static_cast<double>(init::fans(weight.shape()).in));
  return init::uniform_(empty({weight.size(0)}), -bound, bound);
}

std::string conv_layer_settings(const Tensor& weight, const Conv2dLayerOptions& options) {
  std::string text = concat(weight.size(1) * options.groups, ", ", weight.size(0),
                            ", kernel_size=", pair_text({weight.size(2), weight.size(3)}),
                            ", stride=", pair_text(options.stride));
  if (options.same_padding) text += ", padding=same";
  if (options.padding != Size2(0)) text += ", padding=" + pair_text(options.padding);
  if (options.dilation != Size2(1)) text += ", dilation=" + pair_text(options.dilation);
  if (options.groups != 1) text += concat(", groups=", options.groups);
  if (!options.bias) text += ", bias=False";
  return text;
}

}  // namespace lamella::detail
