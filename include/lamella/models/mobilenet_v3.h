#pragma once

#include <cstdint>

#include "lamella/layers/blocks.h"
#include "lamella/layers/sequential.h"

namespace lamella::models {

/// The two networks of the paper.
enum class MobileNetV3Size : std::uint8_t { Small, Large };

/// How a MobileNetV3 is built. Making it throws ShapeError unless classes, in_channels >= 1, width > 0,
/// dropout and drop_path in [0, 1].
struct MobileNetV3Options {
  std::int64_t classes = 1000;   ///< outputs
  double width = 1;              ///< multiplies every channel count; results are rounded by make_divisible()
  double dropout = 0.2;          ///< before the last layer
  std::int64_t in_channels = 3;  ///< channels of the images
  bool small_stem = false;  ///< for images of 32 pixels or so: the stem and the first strided block keep the
                            ///< size, so that the last map is 1/8 of the image, not 1/32
  double drop_path = 0;     ///< probability for the last block; it rises linearly from 0 at the first
};

/// MobileNetV3 (arXiv 1905.02244) as torchvision's mobilenet_v3_small and mobilenet_v3_large:
/// [N,in_channels,H,W] to [N,classes], any H and W. Its state_dict has torchvision's names (features.N.…,
/// classifier.0.…, classifier.3.…). Batch normalisation has eps 0.001 and momentum 0.01. Convolutions start
/// Kaiming-normal by fan_out with bias 0, the classifier normal with deviation 0.01, bias 0.
class LAMELLA_API MobileNetV3 : public Module {
 public:
  /// Throws ShapeError for an option out of range: see MobileNetV3Options.
  explicit MobileNetV3(MobileNetV3Size size, const MobileNetV3Options& options = {});
  Tensor forward(const Tensor& x) override;

 private:
  Sequential features_;
  Sequential classifier_;
};

/// MobileNetV3(MobileNetV3Size::Small, options).
LAMELLA_API MobileNetV3 mobilenet_v3_small(const MobileNetV3Options& options = {});
/// MobileNetV3(MobileNetV3Size::Large, options).
LAMELLA_API MobileNetV3 mobilenet_v3_large(const MobileNetV3Options& options = {});

}  // namespace lamella::models
