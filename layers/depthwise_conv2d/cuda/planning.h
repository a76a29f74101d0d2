#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "layers/depthwise_conv2d/cuda/plan.h"

/// What the planners of the families of kernels share.
namespace lamella::depthwise {

// A model of the machine, of an H200: only ratios matter.
inline constexpr double kMultiprocessors = 132;
inline constexpr std::int64_t kSharedBytes = 227 << 10, kRegisters = 65536, kResidentThreads = 2048;

/// Registers of a thread when so many blocks share a multiprocessor: each of its four parts has a quarter, in
/// eights.
constexpr int registers_of(int threads, int blocks) {
  const int warps_of_part = (threads / 32 * blocks + 3) / 4;
  return std::min<int>(255, static_cast<int>(kRegisters) / 4 / 32 / warps_of_part / 8 * 8);
}

inline constexpr std::int64_t kMostBlocks = (std::int64_t{1} << 31) - 1;

/// A problem as a kernel sees it: the input's gradient may be a correlation with the turned kernel.
struct Shape {
  KernelSizes kernel;  ///< what is left of the stride when dilation is divided out
  Axis h, w;
  int number;  ///< bytes
  std::int64_t images, channels, out_channels;
  bool forward;  ///< a correlation; else a walk over x
  bool turned;   ///< the input's gradient as a correlation
};

inline int taps_of(const KernelSizes& kernel) { return kernel.kernel_h * kernel.kernel_w; }

inline const char* type_name(DType dtype) {
  return dtype == DType::Float32 ? "float" : dtype == DType::BFloat16 ? "BFloat16" : "Float16";
}
inline const char* word(bool value) { return value ? "true" : "false"; }

/// Adds the plans of the cheapest pairs (estimated milliseconds, configuration), in order:
/// plan_of(configuration, plan). Configurations that come to the same plan, as strips of any size do on a
/// small map, give it once.
template <class Config, class PlanOf>
void add_best(std::vector<std::pair<double, Config>>& some, const PlanOf& plan_of, std::vector<Plan>& plans) {
  static constexpr std::size_t kMostConfigs = 128, kMostPlans = 32;
  const auto last = some.begin() + static_cast<std::ptrdiff_t>(std::min(some.size(), kMostConfigs));
  std::partial_sort(some.begin(), last, some.end(),
                    [](const auto& a, const auto& b) { return a.first < b.first; });
  std::size_t added = 0;
  for (auto at = some.begin(); at != last && added < kMostPlans; ++at) {
    Plan plan;
    plan_of(at->second, plan);
    const auto is_same = [&](const Plan& other) {
      return other.kernel == plan.kernel && other.what == plan.what &&
             other.launch.blocks == plan.launch.blocks &&
             other.launch.shared_bytes == plan.launch.shared_bytes;
    };
    if (std::any_of(plans.end() - static_cast<std::ptrdiff_t>(added), plans.end(), is_same)) continue;
    plans.push_back(std::move(plan));
    ++added;
  }
}

/// Each adds the plans of its family that fit, the cheapest first.
void add_pixel_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_plane_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_box_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_run_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);

}  // namespace lamella::depthwise
