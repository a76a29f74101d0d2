#pragma once

#include <cstdint>
#include <vector>

#include "layers/pool/geometry.h"

namespace lamella::cpu {

/// Short lists of positions, one per index.
struct PositionLists {
  std::vector<std::int64_t> begin{0};  ///< list i is at[begin[i]] … at[begin[i + 1] − 1]
  std::vector<std::int64_t> at;

  const std::int64_t* first(std::int64_t i) const { return at.data() + begin[static_cast<std::size_t>(i)]; }
  const std::int64_t* last(std::int64_t i) const {
    return at.data() + begin[static_cast<std::size_t>(i + 1)];
  }
};

/// The windows of a pooling along one axis.
struct AxisWindows {
  PositionLists inputs;               ///< of output o: the input positions it covers, ascending
  PositionLists outputs;              ///< of input i: the outputs that cover it, ascending
  std::vector<std::int64_t> divisor;  ///< of output o: how many positions an average divides by
};

struct PoolWindows {
  explicit PoolWindows(const detail::Pool2dGeometry& geometry);
  AxisWindows h, w;
};

}  // namespace lamella::cpu
