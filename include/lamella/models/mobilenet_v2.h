#pragma once

#include <cstdint>

#include "lamella/layers/blocks.h"
#include "lamella/layers/sequential.h"

namespace lamella::models {

/// How a MobileNetV2 is built. Making it throws ShapeError unless classes, in_channels >= 1, width > 0,
/// dropout and drop_path in [0, 1].
struct MobileNetV2Options {
  std::int64_t classes = 1000;   ///< outputs
  double width = 1;              ///< multiplies every channel count; results are rounded by make_divisible()
  double dropout = 0.2;          ///< before the classifier
  std::int64_t in_channels = 3;  ///< channels of the images
  bool small_stem = false;  ///< for images of 32 pixels or so: the stem and the first strided block keep the
                            ///< size, so that the last map is 1/8 of the image, not 1/32
  double drop_path = 0;     ///< probability for the last block; it rises linearly from 0 at the first
};

/// MobileNetV2 (arXiv 1801.04381) as torchvision's mobilenet_v2: [N,in_channels,H,W] to [N,classes], any H
/// and W. Its state_dict has torchvision's names (features.N.…, classifier.1.…). Convolutions start
/// Kaiming-normal by fan_out, the classifier normal with deviation 0.01, bias 0. The last convolution never
/// has fewer than 1280 channels.
class LAMELLA_API MobileNetV2 : public Module {
 public:
  /// Throws ShapeError for an option out of range: see MobileNetV2Options.
  explicit MobileNetV2(const MobileNetV2Options& options = {});
  Tensor forward(const Tensor& x) override;

 private:
  Sequential features_;
  Sequential classifier_;
};

/// MobileNetV2(options).
LAMELLA_API MobileNetV2 mobilenet_v2(const MobileNetV2Options& options = {});

}  // namespace lamella::models
