#include "lamella/models/mobilenet_v3.h"

#include <cmath>
#include <span>

#include "lamella/layers/modules/activation.h"
#include "lamella/layers/modules/dropout.h"
#include "lamella/layers/modules/linear.h"
#include "models/common.h"

namespace lamella::models {

namespace {

constexpr Activation kRe = Activation::ReLU;
constexpr Activation kHs = Activation::Hardswish;

/// One row of tables 1 and 2 of the paper.
struct Row {
  std::int64_t kernel, expanded, out;
  bool squeeze;
  Activation activation;
  std::int64_t stride;
};
constexpr std::int64_t kStem = 16;
constexpr Row kLarge[] = {
    {3, 16, 16, false, kRe, 1},  {3, 64, 24, false, kRe, 2},  {3, 72, 24, false, kRe, 1},
    {5, 72, 40, true, kRe, 2},   {5, 120, 40, true, kRe, 1},  {5, 120, 40, true, kRe, 1},
    {3, 240, 80, false, kHs, 2}, {3, 200, 80, false, kHs, 1}, {3, 184, 80, false, kHs, 1},
    {3, 184, 80, false, kHs, 1}, {3, 480, 112, true, kHs, 1}, {3, 672, 112, true, kHs, 1},
    {5, 672, 160, true, kHs, 2}, {5, 960, 160, true, kHs, 1}, {5, 960, 160, true, kHs, 1}};
constexpr Row kSmall[] = {{3, 16, 16, true, kRe, 2},  {3, 72, 24, false, kRe, 2}, {3, 88, 24, false, kRe, 1},
                          {5, 96, 40, true, kHs, 2},  {5, 240, 40, true, kHs, 1}, {5, 240, 40, true, kHs, 1},
                          {5, 120, 48, true, kHs, 1}, {5, 144, 48, true, kHs, 1}, {5, 288, 96, true, kHs, 2},
                          {5, 576, 96, true, kHs, 1}, {5, 576, 96, true, kHs, 1}};
constexpr BatchNorm2dOptions kNorm = {.eps = 0.001, .momentum = 0.01};

std::int64_t scaled(std::int64_t channels, double width) {
  return make_divisible(static_cast<double>(channels) * width);
}

Sequential make_features(std::span<const Row> rows, const MobileNetV3Options& options) {
  Sequential features;
  std::int64_t in = scaled(kStem, options.width);
  features.push_back(ConvNormActivation(
      options.in_channels, in, {.stride = options.small_stem ? 1 : 2, .activation = kHs, .norm = kNorm}));
  bool keep_next_stride = options.small_stem;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    const std::int64_t expanded = scaled(row.expanded, options.width), out = scaled(row.out, options.width);
    std::int64_t stride = row.stride;
    if (stride > 1 && keep_next_stride) {
      stride = 1;
      keep_next_stride = false;
    }
    features.push_back(InvertedResidual(
        in, out,
        {.expanded = expanded,
         .kernel = row.kernel,
         .stride = stride,
         .squeezed = row.squeeze ? make_divisible(std::floor(static_cast<double>(expanded) / 4)) : 0,
         .activation = row.activation,
         .norm = kNorm,
         .drop_path = options.drop_path * static_cast<double>(i) / static_cast<double>(rows.size() - 1),
         .names = BlockNames::MobileNetV3}));
    in = out;
  }
  features.push_back(ConvNormActivation(in, 6 * in, {.kernel = 1, .activation = kHs, .norm = kNorm}));
  return features;
}

}  // namespace

MobileNetV3::MobileNetV3(MobileNetV3Size size, const MobileNetV3Options& options) : Module("MobileNetV3") {
  const bool small = size == MobileNetV3Size::Small;
  const char* const model = small ? "mobilenet_v3_small" : "mobilenet_v3_large";
  detail::check_options(model, options);
  detail::check_drop_path(model, options.drop_path);
  const std::span<const Row> rows = small ? std::span<const Row>(kSmall) : std::span<const Row>(kLarge);
  features_ = make_features(rows, options);
  const std::int64_t pooled = 6 * scaled(rows.back().out, options.width);
  const std::int64_t hidden = scaled(small ? 1024 : 1280, options.width);
  classifier_ = Sequential(Linear(pooled, hidden), Hardswish(), Dropout(options.dropout),
                           Linear(hidden, options.classes));
  add("features", features_);
  add("classifier", classifier_);
  detail::initialize_as_torchvision(*this);
}

Tensor MobileNetV3::forward(const Tensor& x) {
  detail::check_images("mobilenet_v3", x, features_.at<ConvNormActivation>(0).conv().weight().size(1));
  return classifier_(detail::pool_to_vector(features_(x)));
}

MobileNetV3 mobilenet_v3_small(const MobileNetV3Options& options) {
  return MobileNetV3(MobileNetV3Size::Small, options);
}
MobileNetV3 mobilenet_v3_large(const MobileNetV3Options& options) {
  return MobileNetV3(MobileNetV3Size::Large, options);
}

}  // namespace lamella::models
