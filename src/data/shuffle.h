#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "lamella/data/transforms.h"

namespace lamella::data::detail {

/// 0 … count - 1 in a random order (Fisher and Yates).
inline std::vector<std::int64_t> shuffled(std::int64_t count, Random random) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = count - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(random.below(i + 1))]);
  return order;
}

}  // namespace lamella::data::detail
