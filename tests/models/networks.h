#pragma once

#include <memory>
#include <string>

#include "lamella/core/error.h"
#include "lamella/models/mobilenet_v1.h"
#include "lamella/models/mobilenet_v2.h"
#include "lamella/models/mobilenet_v3.h"

namespace lamella {

/// The options that all MobileNets have.
struct NetworkOptions {
  std::int64_t classes = 10;
  double width = 1;
  bool small_stem = false;
};

/// A MobileNet without dropout, by the name of its function.
inline std::unique_ptr<Module> make_network(const std::string& name, const NetworkOptions& o) {
  using namespace models;
  if (name == "mobilenet_v1")
    return std::make_unique<MobileNetV1>(
        MobileNetV1Options{.classes = o.classes, .width = o.width, .dropout = 0, .small_stem = o.small_stem});
  if (name == "mobilenet_v2")
    return std::make_unique<MobileNetV2>(
        MobileNetV2Options{.classes = o.classes, .width = o.width, .dropout = 0, .small_stem = o.small_stem});
  if (name == "mobilenet_v3_small" || name == "mobilenet_v3_large")
    return std::make_unique<MobileNetV3>(
        name == "mobilenet_v3_small" ? MobileNetV3Size::Small : MobileNetV3Size::Large,
        MobileNetV3Options{.classes = o.classes, .width = o.width, .dropout = 0, .small_stem = o.small_stem});
  throw Error("no network is called " + name);
}

inline constexpr const char* kNetworks[] = {"mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small",
                                            "mobilenet_v3_large"};

}  // namespace lamella
