#include "core/check.h"
#include "lamella/layers/modules/pool.h"
#include "layers/module/format.h"

namespace lamella {

using detail::pair_text;

Tensor MaxPool2d::forward(const Tensor& x) { return max_pool2d(x, options_); }

std::string MaxPool2d::settings() const {
  return detail::concat("kernel_size=", pair_text(options_.kernel),
                        ", stride=", pair_text(options_.stride.value_or(options_.kernel)),
                        ", padding=", pair_text(options_.padding),
                        ", dilation=", pair_text(options_.dilation),
                        ", ceil_mode=", options_.ceil_mode ? "True" : "False");
}

Tensor AvgPool2d::forward(const Tensor& x) { return avg_pool2d(x, options_); }

std::string AvgPool2d::settings() const {
  return detail::concat("kernel_size=", pair_text(options_.kernel),
                        ", stride=", pair_text(options_.stride.value_or(options_.kernel)),
                        ", padding=", pair_text(options_.padding));
}

Tensor AdaptiveAvgPool2d::forward(const Tensor& x) { return adaptive_avg_pool2d(x, output_); }

std::string AdaptiveAvgPool2d::settings() const { return "output_size=" + pair_text(output_); }

}  // namespace lamella
