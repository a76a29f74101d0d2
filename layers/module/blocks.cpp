#include "lamella/layers/blocks.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "lamella/layers/activation.h"
#include "lamella/layers/dropout.h"
#include "lamella/layers/modules/activation.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/reduce.h"
#include "layers/module/conv_norm_activate.h"
#include "layers/squeeze_excite/squeeze_excite.h"

namespace lamella {

const char* name(Activation activation) {
  switch (activation) {
    case Activation::None:
      return "None";
    case Activation::ReLU:
      return "ReLU";
    case Activation::ReLU6:
      return "ReLU6";
    case Activation::Hardswish:
      return "Hardswish";
    case Activation::Hardsigmoid:
      return "Hardsigmoid";
    case Activation::Sigmoid:
      return "Sigmoid";
    case Activation::SiLU:
      return "SiLU";
  }
  return "?";
}

Tensor activate(const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::None:
      return x;
    case Activation::ReLU:
      return relu(x);
    case Activation::ReLU6:
      return relu6(x);
    case Activation::Hardswish:
      return hardswish(x);
    case Activation::Hardsigmoid:
      return hardsigmoid(x);
    case Activation::Sigmoid:
      return sigmoid(x);
    case Activation::SiLU:
      return silu(x);
  }
  return x;
}

std::int64_t make_divisible(double channels, std::int64_t divisor) {
  LAMELLA_CHECK(ShapeError, channels > 0 && channels < 1e9 && divisor >= 1, "make_divisible: ", channels,
                " channels to a multiple of ", divisor);
  const double step = static_cast<double>(divisor);
  // Whole numbers first, as the published code does: it cuts channels + divisor / 2 to an integer before
  // dividing.
  const auto half_up = static_cast<std::int64_t>(channels + step / 2);
  const std::int64_t rounded = std::max(divisor, half_up / divisor * divisor);
  return static_cast<double>(rounded) < 0.9 * channels ? rounded + divisor : rounded;
}

namespace {

using detail::conv_norm_activate;

Conv2d block_conv(const char* block, std::int64_t in, std::int64_t out, std::int64_t kernel,
                  std::int64_t stride, std::int64_t dilation, std::int64_t groups) {
  LAMELLA_CHECK(ShapeError, kernel >= 1 && kernel % 2 == 1, block, ": kernel ", kernel, "; it must be odd");
  return Conv2d(in, out, kernel,
                {.stride = stride,
                 .padding = (kernel - 1) / 2 * dilation,
                 .dilation = dilation,
                 .groups = groups,
                 .bias = false});
}

/// Names the activation in the printed tree; the block itself calls activate().
struct NamedActivation final : Module {
  explicit NamedActivation(Activation activation) : Module(name(activation)), activation(activation) {}
  Tensor forward(const Tensor& x) override { return activate(x, activation); }
  Activation activation;
};

}  // namespace

// ---- ConvNormActivation ----

ConvNormActivation::ConvNormActivation(std::int64_t in, std::int64_t out, const ConvNormOptions& options)
    : Module("ConvNormActivation"),
      activation_(options.activation),
      conv_(block_conv("ConvNormActivation", in, out, options.kernel, options.stride, options.dilation,
                       options.groups)),
      norm_(out, options.norm) {
  add("0", conv_);
  add("1", norm_);
  if (activation_ != Activation::None) add("2", NamedActivation(activation_));
}

Tensor ConvNormActivation::forward(const Tensor& x) {
  return conv_norm_activate(conv_, norm_, x, activation_);
}

// ---- SqueezeExcite ----

SqueezeExcite::SqueezeExcite(std::int64_t channels, std::int64_t squeezed,
                             const SqueezeExciteOptions& options)
    : Module("SqueezeExcite"), options_(options), fc1_(channels, squeezed, 1), fc2_(squeezed, channels, 1) {
  add("fc1", fc1_);
  add("fc2", fc2_);
}

Tensor SqueezeExcite::forward(const Tensor& x) {
  const auto excitation = [&](const Tensor& means) {
    return fc2_(activate(fc1_(means), options_.activation));
  };
  if (!detail::can_squeeze(x))
    return x * activate(excitation(mean(x, {.axes = {2, 3}, .keep_axes = true})), options_.gate);
  const detail::Squeezed squeezed = detail::squeeze(x);
  const Tensor gate = excitation(squeezed.means).to(x.dtype());
  if (options_.gate == Activation::Hardsigmoid)
    return detail::excite(squeezed, gate, detail::Gate::Hardsigmoid);
  return detail::excite(squeezed, activate(gate, options_.gate));
}

std::string SqueezeExcite::settings() const {
  return detail::concat("activation=", name(options_.activation), ", gate=", name(options_.gate));
}

// ---- InvertedResidual ----

InvertedResidual::InvertedResidual(std::int64_t in, std::int64_t out, const InvertedResidualOptions& options)
    : Module("InvertedResidual"), shortcut_(options.stride == 1 && in == out), drop_path_(options.drop_path) {
  LAMELLA_CHECK(ShapeError, options.expanded >= 0 && options.squeezed >= 0,
                "InvertedResidual: ", options.expanded, " expanded and ", options.squeezed,
                " squeezed channels; neither may be negative");
  LAMELLA_CHECK(ShapeError, drop_path_ >= 0 && drop_path_ <= 1, "InvertedResidual: drop_path ", drop_path_,
                "; it must be in [0, 1]");
  const std::int64_t expanded = options.expanded == 0 ? 6 * in : options.expanded;
  if (expanded != in)
    branch_.push_back(ConvNormActivation(
        in, expanded, {.kernel = 1, .activation = options.activation, .norm = options.norm}));
  branch_.push_back(ConvNormActivation(expanded, expanded,
                                       {.kernel = options.kernel,
                                        .stride = options.stride,
                                        .dilation = options.dilation,
                                        .groups = expanded,
                                        .activation = options.activation,
                                        .norm = options.norm}));
  if (options.squeezed > 0) branch_.push_back(SqueezeExcite(expanded, options.squeezed));
  if (options.names == BlockNames::MobileNetV2) {
    branch_.push_back(Conv2d(expanded, out, 1, {.bias = false}));
    branch_.push_back(BatchNorm2d(out, options.norm));
    add("conv", branch_);
  } else {
    branch_.push_back(ConvNormActivation(
        expanded, out, {.kernel = 1, .activation = Activation::None, .norm = options.norm}));
    add("block", branch_);
  }
}

Tensor InvertedResidual::forward(const Tensor& x) {
  const Tensor y = branch_(x);
  if (!shortcut_) return y;
  return (drop_path_ > 0 ? drop_path(y, drop_path_, is_training()) : y) + x;
}

// ---- DepthwiseSeparable ----

DepthwiseSeparable::DepthwiseSeparable(std::int64_t in, std::int64_t out,
                                       const DepthwiseSeparableOptions& options)
    : Module("DepthwiseSeparable"),
      activation_(options.activation),
      conv_dw_(block_conv("DepthwiseSeparable", in, in, options.kernel, options.stride, 1, in)),
      bn1_(in, options.norm),
      conv_pw_(block_conv("DepthwiseSeparable", in, out, 1, 1, 1, 1)),
      bn2_(out, options.norm) {
  add("conv_dw", conv_dw_);
  add("bn1", bn1_);
  add("conv_pw", conv_pw_);
  add("bn2", bn2_);
}

Tensor DepthwiseSeparable::forward(const Tensor& x) {
  const Tensor y = conv_norm_activate(conv_dw_, bn1_, x, activation_);
  return conv_norm_activate(conv_pw_, bn2_, y, activation_);
}

}  // namespace lamella
