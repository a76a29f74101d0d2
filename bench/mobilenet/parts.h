#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "lamella/layers/module.h"
#include "lamella/train/profile.h"
#include "trainer.h"

/// Where a step's time and bytes go.
namespace lamella::bench {

/// A kind of work. Figures are for one step.
struct Part {
  std::string name;
  double ms = 0, calls = 0;
  double bytes = 0;        ///< moved, as operators count them
  double least_bytes = 0;  ///< that must be, with norms, activations and sums folded into convolutions
};

/// All parts; what is left of a step is gaps.
struct Parts {
  std::vector<Part> parts = {};  ///< depthwise, 1x1, stem, norm and elementwise, optimizer
  double bandwidth = 0;          ///< bytes a second that copying reads and writes; 0: unknown
  double profiled_ms = 0;        ///< from the first kernel's begin to the last one's end
  std::string how;               ///< they were measured
  std::vector<train::ProfiledKernel> kernels = {};
  std::int64_t steps = 0;

  /// Of all parts together.
  Part sum() const;
  /// What `step_ms` holds beside them.
  double gaps(double step_ms) const { return step_ms - sum().ms; }
  /// Milliseconds of moving so many bytes as copying does; 0: unknown.
  double floor_ms(double bytes) const { return bandwidth > 0 ? bytes / bandwidth * 1e3 : 0; }
  nlohmann::json json(double step_ms) const;
};

/// Names of parts, in order.
inline constexpr const char* kPartNames[] = {"depthwise", "1x1", "stem", "norm and elementwise", "optimizer"};
inline constexpr std::size_t kParts = std::size(kPartNames);

/// The part that a kernel's time and bytes belong to, by its number; the stem's belong to 1x1.
std::size_t part_of(const std::string& kernel, train::ProfiledPass pass);

/// The bytes that each part has to move, by number. A convolution with input x and output z: read x, write z;
/// then read the gradient of z, z and x, write that of x (but of the images). Weights: read twice, their
/// gradient written. Optimizer: weights and momenta read and written, gradients read.
std::vector<double> least_bytes(Module& network, const Cell& cell, Device device);

/// Runs some of the trainer's steps uncaptured under a train::Profile.
Parts measure_parts(Trainer& trainer, int steps);

}  // namespace lamella::bench
