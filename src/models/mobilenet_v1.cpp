#include "lamella/models/mobilenet_v1.h"

#include <cmath>
#include <string>

#include "lamella/layers/dropout.h"
#include "lamella/layers/init.h"
#include "layers/module/conv_norm_activate.h"
#include "models/common.h"

namespace lamella::models {

namespace {

/// The five stages of table 1: channels, blocks, stride of the first block.
struct Stage {
  std::int64_t channels, blocks, stride;
};
constexpr Stage kStages[] = {{64, 1, 1}, {128, 2, 2}, {256, 2, 2}, {512, 6, 2}, {1024, 2, 2}};
constexpr std::int64_t kStem = 32;

const MobileNetV1Options& checked(const MobileNetV1Options& options) {
  detail::check_options("mobilenet_v1", options);
  return options;
}

Sequential make_blocks(const MobileNetV1Options& options) {
  Sequential stages;
  std::int64_t in = make_divisible(kStem * options.width);
  for (std::size_t s = 0; s < std::size(kStages); ++s) {
    const std::int64_t out = make_divisible(static_cast<double>(kStages[s].channels) * options.width);
    Sequential stage;
    for (std::int64_t b = 0; b < kStages[s].blocks; ++b) {
      const bool keep_size = b > 0 || (options.small_stem && s == 1);
      stage.push_back(DepthwiseSeparable(in, out, {.stride = keep_size ? 1 : kStages[s].stride}));
      in = out;
    }
    stages.push_back(stage);
  }
  return stages;
}

}  // namespace

MobileNetV1::MobileNetV1(const MobileNetV1Options& options)
    : Module("MobileNetV1"),
      options_(checked(options)),
      conv_stem_(options.in_channels, make_divisible(kStem * options.width), 3,
                 {.stride = options.small_stem ? 1 : 2, .padding = 1, .bias = false}),
      bn1_(make_divisible(kStem * options.width)),
      blocks_(make_blocks(options)),
      classifier_(make_divisible(static_cast<double>(kStages[4].channels) * options.width), options.classes) {
  add("conv_stem", conv_stem_);
  add("bn1", bn1_);
  add("blocks", blocks_);
  add("classifier", classifier_);
  apply([](const std::string&, Module& module) {
    const auto* conv = dynamic_cast<const Conv2d*>(&module);
    if (conv == nullptr) return;
    const double fan_out = static_cast<double>(init::fans(conv->weight().shape()).out) /
                           static_cast<double>(conv->options().groups);
    init::normal_(conv->weight(), 0, std::sqrt(2 / fan_out));
  });
  const double bound = 1 / std::sqrt(static_cast<double>(options.classes));
  init::uniform_(classifier_.weight(), -bound, bound);
  init::zeros_(classifier_.bias());
}

Tensor MobileNetV1::forward(const Tensor& x) {
  detail::check_images("mobilenet_v1", x, options_.in_channels);
  const Tensor stem = lamella::detail::conv_norm_activate(conv_stem_, bn1_, x, Activation::ReLU6);
  const Tensor features = blocks_(stem);
  const Tensor pooled = detail::pool_to_vector(features);
  return classifier_(options_.dropout > 0 ? dropout(pooled, options_.dropout, is_training()) : pooled);
}

MobileNetV1 mobilenet_v1(const MobileNetV1Options& options) { return MobileNetV1(options); }

}  // namespace lamella::models
