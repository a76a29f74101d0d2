#include "network.h"

namespace lm = lamella;

namespace {

template <class Options>
Options options_of(const Recipe& recipe, const InputFormat& format) {
  Options options;
  options.classes = static_cast<std::int64_t>(format.classes.size());
  options.width = recipe.width;
  options.dropout = recipe.dropout;
  options.in_channels = format.channels;
  options.small_stem = recipe.stem == "small" || (recipe.stem == "auto" && format.size <= 64);
  if constexpr (requires { options.drop_path; }) options.drop_path = recipe.drop_path;
  return options;
}

}  // namespace

std::unique_ptr<lm::Module> make_network(const Recipe& recipe, const InputFormat& format) {
  std::unique_ptr<lm::Module> network;
  if (recipe.model == "v1")
    network =
        std::make_unique<lm::models::MobileNetV1>(options_of<lm::models::MobileNetV1Options>(recipe, format));
  else if (recipe.model == "v2")
    network =
        std::make_unique<lm::models::MobileNetV2>(options_of<lm::models::MobileNetV2Options>(recipe, format));
  else
    network = std::make_unique<lm::models::MobileNetV3>(
        recipe.model == "v3-small" ? lm::models::MobileNetV3Size::Small : lm::models::MobileNetV3Size::Large,
        options_of<lm::models::MobileNetV3Options>(recipe, format));
  network->to(memory_format(recipe));
  return network;
}

std::unique_ptr<lm::optim::Ema> make_ema(const lm::Module& network, const lm::optim::EmaOptions& options) {
  const auto of = [&](const auto* concrete) { return std::make_unique<lm::optim::Ema>(*concrete, options); };
  if (const auto* v1 = dynamic_cast<const lm::models::MobileNetV1*>(&network)) return of(v1);
  if (const auto* v2 = dynamic_cast<const lm::models::MobileNetV2*>(&network)) return of(v2);
  return of(&dynamic_cast<const lm::models::MobileNetV3&>(network));
}
