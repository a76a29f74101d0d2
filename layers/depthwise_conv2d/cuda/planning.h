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
inline constexpr std::int64_t kRegisters = 65536, kResidentThreads = 2048;

// Each block takes some of its multiprocessor's shared memory beside its own.
inline constexpr std::int64_t kSharedOfBlock = 1024;
/// What a block may have, if so many share a multiprocessor.
inline std::int64_t shared_bytes_of(const Problem& p, int resident) {
  return p.shared_bytes / resident - kSharedOfBlock;
}
/// How many blocks the shared memory of a multiprocessor suffices for.
inline std::int64_t blocks_by_shared(const Problem& p, const Launch& launch) {
  return p.shared_bytes / (launch.shared_bytes + kSharedOfBlock);
}

/// Registers of a thread when so many blocks share a multiprocessor: each of its four parts has a quarter, in
/// eights.
constexpr int registers_of(int threads, int blocks) {
  const int warps_of_part = (threads / 32 * blocks + 3) / 4;
  return std::min<int>(255, static_cast<int>(kRegisters) / 4 / 32 / warps_of_part / 8 * 8);
}

inline constexpr std::int64_t kMostBlocks = (std::int64_t{1} << 31) - 1;

/// Whether the launch can be, and the GPU has what a block wants; the latter, if so many are to share a
/// multiprocessor.
inline bool can_launch(const Problem& p, const Launch& launch) {
  return launch.blocks > 0 && launch.blocks <= kMostBlocks && launch.shared_bytes <= p.shared_bytes;
}
inline bool can_launch(const Problem& p, const Launch& launch, int resident) {
  return can_launch(p, launch) && launch.shared_bytes <= shared_bytes_of(p, resident);
}

/// A problem as a kernel sees it: the input's gradient may be a correlation with the turned kernel.
struct Shape {
  KernelSizes kernel;  ///< what is left of the stride when dilation is divided out
  Axis h, w;
  int number;  ///< bytes
  std::int64_t images, channels, out_channels;
  bool forward;  ///< a correlation; else a walk over x
  bool turned;   ///< the input's gradient as a correlation
};

/// From so many bytes of input and output on, estimates of phases and rolling rows hold: they were fitted to
/// 50 MB and more, and are wrong by far at 1 MB.
inline constexpr std::int64_t kLargeBytes = 16 << 20;
inline bool is_large(const Problem& p, const Shape& s) {
  const Conv2dGeometry& g = p.geometry;
  return g.batch * (g.in_channels * g.in.h * g.in.w + g.out_channels * g.out.h * g.out.w) * s.number >=
         kLargeBytes;
}

/// False: no family has a kernel for the problem.
bool describe_shape(const Problem& problem, Shape& shape);

/// Of one channel.
inline int taps_of(const KernelSizes& kernel) { return kernel.kernel_h * kernel.kernel_w; }

inline const char* type_name(DType dtype) {
  return dtype == DType::Float32 ? "float" : dtype == DType::BFloat16 ? "BFloat16" : "Float16";
}
inline const char* word(bool value) { return value ? "true" : "false"; }

/// Whether the weight's gradient is computed alone.
inline bool weighs(const Problem& p) { return p.pass == Pass::Weight; }

/// Whether pieces that cover `size` have less than a share of `least` of what is wanted.
inline bool wasteful(std::int64_t size, std::int64_t piece, double least) {
  return static_cast<double>(size) < least * static_cast<double>(round_up(size, piece));
}

/// Neighbouring numbers of so many bytes that are moved at once, sixteen bytes at most, in rows of `width`.
inline int vector_of(std::int64_t width, int number, int alignment) {
  int vector = std::min(16, alignment) / number;
  while (width % vector != 0) vector /= 2;
  return vector;
}

/// Whether what is read of the input passes through the transform; the input's gradient alone reads none of
/// it but for norm sums, which want it raw.
inline bool loads_transformed(const Problem& p) { return p.transforms && p.pass != Pass::Input; }
/// The activation that the load, or else the hook, is compiled for.
inline const char* activation_word(const Problem& p, bool has) {
  return has && p.hardswish ? "kHardSwish" : word(has);
}
inline bool has_statistics(const Problem& p) { return p.hook == Hook::Statistics; }
inline bool has_norm_sums(const Problem& p) { return p.hook == Hook::NormSums; }
/// Whether a walk over x has it in shared memory.
inline bool reads_input(const Problem& p) { return p.pass != Pass::Input || has_norm_sums(p); }
/// Milliseconds for what a hook reads and leaves.
inline double hook_cost(const Problem& p, const Shape& s, const Launch& launch) {
  constexpr double kRead = 4.15e9, kParts = 3e9;  // bytes a millisecond
  if (p.hook == Hook::None) return 0;
  const double floats =
      static_cast<double>(has_statistics(p) ? s.out_channels * kMomentFloats : s.channels * kNormSumFloats);
  const double input = has_norm_sums(p) && p.pass == Pass::Input
                           ? static_cast<double>(s.images * s.channels * s.h.input) * s.w.input * s.number
                           : 0;
  return static_cast<double>(launch.hook_parts) * floats * 8 / kParts + input / kRead;
}

/// Sectors of 32 bytes that blocks of so many channels ask for, of the least that holds all: pixels that do
/// not begin on one make some be asked for twice.
inline double sectors_of(std::int64_t channels, int of_block) {
  constexpr std::int64_t kSector = 32, kNumber = 2, kPixels = 4;
  double sum = 0;
  for (std::int64_t pixel = 0; pixel < kPixels; ++pixel) {
    const std::int64_t begin = pixel * channels * kNumber % kSector, end = begin + channels * kNumber;
    for (std::int64_t at = begin; at < end; at += of_block * kNumber)
      sum += static_cast<double>(ceiling(std::min(at + of_block * kNumber, end), kSector) - at / kSector);
  }
  return sum * kSector / static_cast<double>(kPixels * channels * kNumber);
}

/// Adds the plans of the cheapest pairs (estimated milliseconds, configuration), in order:
/// plan_of(configuration, plan). Configurations that come to the same plan, as strips of any size do on a
/// small map, give it once.
template <class Config, class PlanOf>
void add_best(std::vector<std::pair<double, Config>>& some, const PlanOf& plan_of, std::vector<Plan>& plans) {
  static constexpr std::size_t kMostConfigs = 256, kMostPlans = 64;  // measured choices are among them
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
void add_direct_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_plane_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_box_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
/// Behind the best of the plans that are there.
void add_float_box_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_toeplitz_box_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_map_box_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_hankel_box_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_diagonal_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_pair_plans(const Problem& problem, std::vector<Plan>& plans);
void add_run_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_column_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_matrix_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_position_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_phase_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_rolling_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);
void add_rolling_plane_plans(const Problem& problem, const Shape& shape, std::vector<Plan>& plans);

}  // namespace lamella::depthwise
