#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lamella/core/export.h"
#include "lamella/layers/conv_geometry.h"
#include "lamella/layers/module.h"
#include "lamella/layers/modules/conv.h"
#include "lamella/layers/modules/norm.h"
#include "lamella/layers/sequential.h"

/// @file
/// What MobileNets are built of. Parameter names are those of torchvision's and timm's blocks of their
/// kind.
namespace lamella {

/// An activation between layers of a block.
enum class Activation : std::uint8_t { None, ReLU, ReLU6, Hardswish, Hardsigmoid, Sigmoid, SiLU };
/// "ReLU6", …
LAMELLA_API const char* name(Activation activation);
/// activation(x); x itself for None. Throws as the activation does.
LAMELLA_API Tensor activate(const Tensor& x, Activation activation);

/// The nearest multiple of `divisor`, not below `divisor`, and not more than 10 % below `channels`: how
/// MobileNets round the channels of a width (arXiv 1801.04381 and its published code). Throws ShapeError
/// unless 0 < channels < 1e9 and divisor >= 1.
LAMELLA_API std::int64_t make_divisible(double channels, std::int64_t divisor = 8);

/// How a ConvNormActivation is built.
struct ConvNormOptions {
  std::int64_t kernel = 3;                    ///< odd; padding keeps the size at stride 1
  std::int64_t stride = 1;                    ///< of the convolution
  std::int64_t dilation = 1;                  ///< distance between its taps
  std::int64_t groups = 1;                    ///< as in Conv2dOptions
  Activation activation = Activation::ReLU6;  ///< after the norm; None: nothing
  BatchNorm2dOptions norm = {};               ///< of the normalisation
};

/// Convolution without bias, batch normalisation, activation: named "0", "1", "2" as in torchvision.
class LAMELLA_API ConvNormActivation : public Module {
 public:
  /// From `in` to `out` channels. Throws ShapeError for an even kernel and whatever Conv2d and BatchNorm2d
  /// refuse.
  ConvNormActivation(std::int64_t in, std::int64_t out, const ConvNormOptions& options = {});
  Tensor forward(const Tensor& x) override;

  /// The convolution.
  Conv2d& conv() { return conv_; }
  /// The normalisation.
  BatchNorm2d& norm() { return norm_; }

 private:
  Activation activation_;
  Conv2d conv_;
  BatchNorm2d norm_;
};

/// How a SqueezeExcite is built.
struct SqueezeExciteOptions {
  Activation activation = Activation::ReLU;  ///< between the two products
  /// Makes the factors; Sigmoid in the paper, Hardsigmoid in MobileNetV3.
  Activation gate = Activation::Hardsigmoid;
};

/// Squeeze-and-Excitation (arXiv 1709.01507): each channel times a factor computed from the means of all
/// channels, through `squeezed` hidden ones. 1x1 convolutions with bias named "fc1" and "fc2", as in
/// torchvision.
class LAMELLA_API SqueezeExcite : public Module {
 public:
  /// Throws ShapeError unless both numbers are at least 1.
  SqueezeExcite(std::int64_t channels, std::int64_t squeezed, const SqueezeExciteOptions& options = {});
  Tensor forward(const Tensor& x) override;
  std::string settings() const override;

 private:
  SqueezeExciteOptions options_;
  Conv2d fc1_;
  Conv2d fc2_;
};

/// Names inside an InvertedResidual.
enum class BlockNames : std::uint8_t {
  MobileNetV2,  ///< torchvision's V2: conv.0.0 …, the projection's convolution and norm last in "conv"
  MobileNetV3   ///< torchvision's V3: block.0.0 …, the projection one more ConvNormActivation in "block"
};

/// How an InvertedResidual is built.
struct InvertedResidualOptions {
  /// Channels in the middle; 0: six times the input's. Equal to the input's: no expansion.
  std::int64_t expanded = 0;
  std::int64_t kernel = 3;    ///< of the depthwise convolution; odd
  std::int64_t stride = 1;    ///< of the depthwise convolution
  std::int64_t dilation = 1;  ///< of the depthwise convolution
  std::int64_t squeezed = 0;  ///< hidden channels of a SqueezeExcite after the depthwise convolution; 0: none
  Activation activation = Activation::ReLU6;  ///< after the expansion and the depthwise convolution
  BatchNorm2dOptions norm = {};               ///< of all normalisations
  double drop_path = 0;  ///< probability of dropping the branch in training, where there is a shortcut
  BlockNames names = BlockNames::MobileNetV2;  ///< of the parameters
};

/// The block of MobileNetV2 and V3 (arXiv 1801.04381, 1905.02244): 1x1 expansion, depthwise convolution, 1x1
/// projection without activation; the input is added where stride is 1 and channels agree.
class LAMELLA_API InvertedResidual : public Module {
 public:
  /// From `in` to `out` channels. Throws ShapeError for an even kernel, negative channel counts, drop_path
  /// outside [0, 1], and whatever Conv2d and BatchNorm2d refuse.
  InvertedResidual(std::int64_t in, std::int64_t out, const InvertedResidualOptions& options = {});
  Tensor forward(const Tensor& x) override;
  /// True if the input is added.
  bool has_shortcut() const { return shortcut_; }

 private:
  bool shortcut_;
  double drop_path_;
  Sequential branch_;
};

/// How a DepthwiseSeparable is built.
struct DepthwiseSeparableOptions {
  std::int64_t kernel = 3;                    ///< of the depthwise convolution; odd
  std::int64_t stride = 1;                    ///< of the depthwise convolution
  Activation activation = Activation::ReLU6;  ///< after each normalisation
  BatchNorm2dOptions norm = {};               ///< of both normalisations
};

/// The block of MobileNetV1 (arXiv 1704.04861): depthwise convolution, 1x1 convolution, each with batch
/// normalisation and activation. Named conv_dw, bn1, conv_pw, bn2, as in timm.
class LAMELLA_API DepthwiseSeparable : public Module {
 public:
  /// From `in` to `out` channels. Throws ShapeError for an even kernel and whatever Conv2d and BatchNorm2d
  /// refuse.
  DepthwiseSeparable(std::int64_t in, std::int64_t out, const DepthwiseSeparableOptions& options = {});
  Tensor forward(const Tensor& x) override;

 private:
  Activation activation_;
  Conv2d conv_dw_;
  BatchNorm2d bn1_;
  Conv2d conv_pw_;
  BatchNorm2d bn2_;
};

}  // namespace lamella
