#pragma once

#include <cstdint>

#include "lamella/layers/blocks.h"
#include "lamella/layers/modules/linear.h"

/// Whole networks.
namespace lamella::models {

/// How a MobileNetV1 is built. Making it throws ShapeError unless classes, in_channels >= 1, width > 0,
/// dropout in [0, 1].
struct MobileNetV1Options {
  std::int64_t classes = 1000;   ///< outputs
  double width = 1;              ///< multiplies every channel count; results are rounded by make_divisible()
  double dropout = 0;            ///< before the classifier
  std::int64_t in_channels = 3;  ///< channels of the images
  bool small_stem = false;  ///< for images of 32 pixels or so: the stem and the first strided block keep the
                            ///< size, so that the last map is 1/8 of the image, not 1/32
};

/// MobileNetV1 (arXiv 1704.04861) as timm's mobilenetv1_100: [N,in_channels,H,W] to [N,classes], any H and W.
/// Its state_dict has timm's names (conv_stem, bn1, blocks.S.B.…, classifier). Convolutions start normal with
/// deviation √(2 / fan_out), fan_out counted per group; the classifier uniform within ±1/√classes, bias 0.
class LAMELLA_API MobileNetV1 : public Module {
 public:
  /// Throws ShapeError for an option out of range: see MobileNetV1Options.
  explicit MobileNetV1(const MobileNetV1Options& options = {});
  Tensor forward(const Tensor& x) override;

 private:
  MobileNetV1Options options_;
  Conv2d conv_stem_;
  BatchNorm2d bn1_;
  Sequential blocks_;
  Linear classifier_;
};

/// MobileNetV1(options).
LAMELLA_API MobileNetV1 mobilenet_v1(const MobileNetV1Options& options = {});

}  // namespace lamella::models
