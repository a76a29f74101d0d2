#include "lamella/models/mobilenet_v2.h"

#include <algorithm>

#include "lamella/layers/modules/dropout.h"
#include "lamella/layers/modules/linear.h"
#include "models/common.h"

namespace lamella::models {

namespace {

/// Table 2 of the paper: expansion, channels, blocks, stride of the first block.
struct Stage {
  std::int64_t expansion, channels, blocks, stride;
};
constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                             {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
constexpr std::int64_t kBlocks = 17;

Sequential make_features(const MobileNetV2Options& options, std::int64_t last) {
  Sequential features;
  std::int64_t in = make_divisible(32 * options.width);
  features.push_back(ConvNormActivation(options.in_channels, in, {.stride = options.small_stem ? 1 : 2}));
  std::int64_t block = 0;
  for (std::size_t s = 0; s < std::size(kStages); ++s) {
    const std::int64_t out = make_divisible(static_cast<double>(kStages[s].channels) * options.width);
    for (std::int64_t b = 0; b < kStages[s].blocks; ++b, ++block) {
      const bool keep_size = b > 0 || (options.small_stem && s == 1);
      features.push_back(
          InvertedResidual(in, out,
                           {.expanded = in * kStages[s].expansion,
                            .stride = keep_size ? 1 : kStages[s].stride,
                            .drop_path = options.drop_path * static_cast<double>(block) / (kBlocks - 1)}));
      in = out;
    }
  }
  features.push_back(ConvNormActivation(in, last, {.kernel = 1}));
  return features;
}

}  // namespace

MobileNetV2::MobileNetV2(const MobileNetV2Options& options) : Module("MobileNetV2") {
  detail::check_options("mobilenet_v2", options);
  detail::check_drop_path("mobilenet_v2", options.drop_path);
  const std::int64_t last = make_divisible(1280 * std::max(1.0, options.width));
  features_ = make_features(options, last);
  classifier_ = Sequential(Dropout(options.dropout), Linear(last, options.classes));
  add("features", features_);
  add("classifier", classifier_);
  detail::initialize_as_torchvision(*this);
}

Tensor MobileNetV2::forward(const Tensor& x) {
  detail::check_images("mobilenet_v2", x, features_.at<ConvNormActivation>(0).conv().weight().size(1));
  return classifier_(detail::pool_to_vector(features_(x)));
}

MobileNetV2 mobilenet_v2(const MobileNetV2Options& options) { return MobileNetV2(options); }

}  // namespace lamella::models
