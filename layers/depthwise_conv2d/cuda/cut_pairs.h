#pragma once

#include <algorithm>
#include <cstdint>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How dense planes are shared out where blocks of two kinds compute both gradients in one launch.
namespace lamella::depthwise {

/// The launch of backward_pairs, from those of its two kinds; no blocks: items do not come to the same parts.
inline Launch cut_pairs(PairWork& work, std::int64_t images, std::int64_t channels, const Launch& input,
                        const Launch& weight, std::int64_t wanted_blocks) {
  Launch launch;
  if (input.threads != weight.threads) return launch;
  const auto groups_of = [&](const PlaneWork& of) {
    return static_cast<int>(ceiling(channels, of.cut.planes));
  };
  work.input_groups = groups_of(work.input), work.weight_groups = groups_of(work.weight);
  const std::int64_t groups = std::int64_t{work.input_groups} + work.weight_groups;
  // An item of the first is a band of several images, one of the second of one.
  const std::int64_t input_bands = work.input.cut.bands, weight_bands = work.weight.cut.bands;
  const std::int64_t together = ceiling(images * input_bands, work.input.items);
  const std::int64_t of_part =
      round_up(ceiling(images, std::max<std::int64_t>(1, wanted_blocks / groups)), together);
  work.input.items_per_part = static_cast<int>(of_part / together * input_bands);
  work.weight.items_per_part = static_cast<int>(of_part * weight_bands);
  const std::int64_t parts = ceiling(work.weight.items, work.weight.items_per_part);
  if (ceiling(work.input.items, work.input.items_per_part) != parts) return launch;
  launch.threads = input.threads;
  launch.shared_bytes = std::max(input.shared_bytes, weight.shared_bytes);
  launch.parts = parts;
  launch.blocks = parts * groups;
  return launch;
}

}  // namespace lamella::depthwise
