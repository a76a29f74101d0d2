#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "../gpu_machine.h"
#include "cases.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"
#include "measure.h"

namespace lamella::bench {

/// The `count` plans of a problem to measure, the best by estimate of each family in turn. Where families are
/// named (as kernels are, without what stands before the first underscore): of those, behind what `chosen` or
/// the estimates choose now.
std::vector<depthwise::Plan> some_plans(const depthwise::Problem& problem, std::size_t count,
                                        const std::vector<std::string>& families,
                                        const depthwise::Tuning& chosen);

struct PlanChoice {
  std::size_t count = 8;
  std::vector<std::string> families;  ///< none: all
};

/// Measures so many plans of each cell and adds the fastest to the tuning file, after each shape; then `keep`
/// gets everything measured so far: each plan with its estimate, to see how good that is. Cells of a shape,
/// type and format come one after the other.
void tune(const std::vector<Cell>& cells, const std::string& file, const PlanChoice& plans,
          const Machine& machine, const Timer& timer, const Arena& arena,
          const std::function<void(const nlohmann::json&)>& keep);

}  // namespace lamella::bench
