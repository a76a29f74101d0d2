#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/cuda/compiler.h"
#include "layers/conv/cuda/pointwise/plan.h"

/// What is measured: the 1x1 convolutions of MobileNets, batch 256, 224 pixels.
namespace lamella::bench {

using pointwise::Hook;
using pointwise::Load;
using pointwise::Pass;

inline constexpr std::int64_t kBatch = 256;
inline constexpr std::array<const char*, 3> kNetworks{"v1", "v2", "v3"};  ///< V3-Large

struct Layer {
  int in_channels, out_channels, size;  ///< images of size x size
  std::array<int, 3> times;             ///< that each network has it

  std::string name() const {
    return std::to_string(in_channels) + "-" + std::to_string(out_channels) + "@" + std::to_string(size);
  }
  std::int64_t pixels() const { return kBatch * size * size; }
};
const std::vector<Layer>& all_layers();

/// A pass with what happens before and behind it.
struct Variant {
  const char* name;
  Pass pass;
  Load load = Load::Plain;
  Hook hook = Hook::None;
};
const std::vector<Variant>& all_variants();

/// One row of the table.
struct Cell {
  const Layer* layer = nullptr;
  const Variant* variant = nullptr;
  DType dtype = DType::BFloat16;

  pointwise::Problem problem() const {
    pointwise::Problem p;
    p.pass = variant->pass;
    p.dtype = dtype;
    p.pixels = layer->pixels();
    p.in_channels = layer->in_channels, p.out_channels = layer->out_channels;
    p.load = variant->load, p.hook = variant->hook;
    p.shared_bytes = detail::cuda::most_shared_bytes(Device::cuda());
    return p;
  }
  /// Each image tensor read or written once; without weights.
  double bytes() const {
    const bool reads_z = pointwise::has_sums(variant->hook);
    return 2.0 * static_cast<double>(layer->pixels()) *
           (layer->in_channels * (reads_z ? 2 : 1) + layer->out_channels);
  }
  double multiply_adds() const {
    return static_cast<double>(layer->pixels()) * layer->in_channels * layer->out_channels;
  }
};

}  // namespace lamella::bench
