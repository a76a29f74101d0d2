#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "layers/depthwise_conv2d/cuda/cut.h"

/// How dense planes are shared out where blocks of two kinds compute both gradients in one launch.
namespace lamella::depthwise {

/// One kind, as it is alone.
struct PairKind {
  Launch launch;
  std::int64_t groups;                   ///< blocks of a part
  std::int64_t items, item_images;       ///< all of a group, and how many images each has
  std::int64_t most_items = kMostItems;  ///< of a part

  /// Items of so many images, the last of which may have fewer.
  std::int64_t of_images(std::int64_t images, std::int64_t all_images) const {
    return ceiling(images, item_images) * (items / ceiling(all_images, item_images));
  }
};

/// The launch of backward_pairs; no blocks: they cannot have the same parts. Sets how many items of either
/// kind a part has.
inline Launch cut_pairs(const PairKind& input, const PairKind& weight, std::int64_t images,
                        std::int64_t wanted_blocks, int& input_items, int& weight_items) {
  Launch launch;
  const std::int64_t groups = input.groups + weight.groups,
                     together = std::lcm(input.item_images, weight.item_images);
  const std::int64_t of_part =
      round_up(ceiling(images, std::max<std::int64_t>(1, wanted_blocks / groups)), together);
  const std::int64_t of_input = input.of_images(of_part, images),
                     of_weight = weight.of_images(of_part, images);
  if (of_input > std::min(input.most_items, kMostItems) ||
      of_weight > std::min(weight.most_items, kMostItems))
    return launch;
  input_items = static_cast<int>(of_input), weight_items = static_cast<int>(of_weight);
  launch.threads = std::max(input.launch.threads, weight.launch.threads);
  launch.shared_bytes = std::max(input.launch.shared_bytes, weight.launch.shared_bytes);
  launch.parts = ceiling(images, of_part);
  launch.blocks = launch.parts * groups;
  return launch;
}

/// The same for boxes whose blocks take every so many-th item and are all at work at once: both kinds go
/// through the batch at the same pace where their numbers of blocks are in the ratio of their times. Of these
/// there are so many in each of some rounds, into which they are mixed evenly.
inline Launch cut_pairs_in_step(const PairKind& input, const PairKind& weight, std::int64_t rounds,
                                std::int64_t input_blocks, std::int64_t weight_blocks, int& input_items,
                                int& weight_items) {
  Launch launch;
  // How many parts there are; 0: not as many, of whole groups.
  const auto cut = [&](const PairKind& kind, std::int64_t blocks, int& items_per_part) -> std::int64_t {
    const std::int64_t parts = rounds * blocks / kind.groups;
    if (rounds * blocks % kind.groups != 0 || parts < 1 || parts > kind.items) return 0;
    items_per_part = static_cast<int>(ceiling(kind.items, parts));
    if (items_per_part > kind.most_items) return 0;
    return ceiling(kind.items, items_per_part) == parts ? parts : 0;
  };
  if (cut(input, input_blocks, input_items) == 0) return launch;
  launch.parts = cut(weight, weight_blocks, weight_items);
  if (launch.parts == 0) return launch;
  launch.threads = std::max(input.launch.threads, weight.launch.threads);
  launch.shared_bytes = std::max(input.launch.shared_bytes, weight.launch.shared_bytes);
  launch.blocks = rounds * (input_blocks + weight_blocks);
  return launch;
}

}  // namespace lamella::depthwise
