#pragma once

#include <algorithm>
#include <cstdint>

#include "core/workspace.h"
#include "layers/depthwise_conv2d/cuda/problem.h"

namespace lamella::cuda::depthwise {

/// Products that a thread adds in float32 before its sum joins others.
inline constexpr std::int64_t kMostProducts = 2048;
/// Blocks that keep the largest GPUs busy to the end; a number of its own, so that no sum depends on the GPU.
inline constexpr std::int64_t kWantedBlocks = 2112;
/// Rows that a thread works through at least before its sums are written: that costs as much as a few rows.
inline constexpr std::int64_t kLeastRows = 32;

/// How the work of each group of channels is cut into parts, a block each.
struct PartCut {
  std::int64_t length = 0;  ///< items of a part: rounds for all its threads
  std::int64_t parts = 0;
};

/// `items` for each of `groups` groups, `threads` at a time; each is `rows` rows of so many columns.
inline PartCut cut_parts(std::int64_t items, std::int64_t groups, std::int64_t threads, std::int64_t rows,
                         std::int64_t columns) {
  const std::int64_t least = (kLeastRows + rows - 1) / rows;
  const std::int64_t most = std::max(least, kMostProducts / (rows * columns));
  const std::int64_t wanted_parts = (kWantedBlocks + groups - 1) / groups;
  const std::int64_t rounds = std::clamp(items / (wanted_parts * threads), least, most);
  PartCut cut;
  cut.length = rounds * threads;
  cut.parts = (items + cut.length - 1) / cut.length;
  return cut;
}

/// Memory for the parts of `channels` channels.
inline std::int64_t part_bytes(std::int64_t channels, std::int64_t taps, std::int64_t parts) {
  return channels * (taps + 1) * parts * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace lamella::cuda::depthwise
