#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/cuda/shared_memory.h"
#include "lamella/core/dtype.h"
#include "layers/conv/cuda/pointwise/cut.h"

/// Which kernel does the work of a 1x1 convolution, with what tile, and how the work is shared out.
namespace lamella::pointwise {

/// What is computed: the output, the input's gradient or the weight's (and bias's).
enum class Pass : std::uint8_t { Forward, Input, Weight };

/// All that the choice depends on.
struct Problem {
  Pass pass = Pass::Forward;
  DType dtype = DType::BFloat16;          ///< or float16
  std::int64_t pixels = 0;                ///< of all images; less than 2^31
  int in_channels = 0, out_channels = 0;  ///< of the convolution: multiples of eight
  Load load = Load::Plain;                ///< of the input, forward and for the weight's gradient
  Hook hook = Hook::None;
  bool bias = false;  ///< its gradient is wanted, too
  /// Bytes of shared memory that a block may have.
  int shared_bytes = detail::cuda::shared_bytes_of_architecture(90);
  friend bool operator==(const Problem&, const Problem&) = default;

  /// Channels that multiply_points() reads and writes.
  int inputs() const { return pass == Pass::Input ? out_channels : in_channels; }
  int outputs() const { return pass == Pass::Input ? in_channels : out_channels; }
};

/// A kernel with its launch. Work has everything but addresses, maps and parameters.
struct Plan {
  std::string kernel;  ///< the expression that names it
  std::string what;    ///< tile and cut in words, for tables
  PointLaunch launch;
  int blocks_of_sm = 1;
  int item_pixels = 0;           ///< of a tile or page
  BoxShape x, weights, y, z, g;  ///< boxes of what the kernel reads and writes; without channels: it does not
  PointWork work;                ///< forward, and of the input's gradient
  WeighWork weigh;
  double cost = 0;  ///< estimated milliseconds

  /// Of the parts of sums that the kernel leaves.
  std::int64_t workspace_bytes(const Problem& problem) const;
};

/// Whether there are plans.
bool can_plan(const Problem& problem);

/// The plans that can do the work, the best by estimate first.
std::vector<Plan> plans_for(const Problem& problem);

// What the two planners share.

// A model of an H200; only ratios matter.
inline constexpr double kMultiprocessors = 132, kClocks = 1.75e6;  ///< clocks of a millisecond
inline constexpr double kMemoryRate = 4.2e9, kCacheRate = 5.5e9;   ///< bytes of a millisecond
inline constexpr int kMostThreads = 2048;
/// Clocks of a multiprocessor for a product of 16 x 8 x 16 by mma.sync, of which it does 0.6 of what its
/// matrix units could.
inline constexpr double kProductClocks = 1.6;

/// Registers of a thread when so many blocks share a multiprocessor: each of its four parts has a quarter, in
/// eights.
inline int registers_of(int threads, int blocks) {
  const int warps_of_part = (threads / 32 * blocks + 3) / 4;
  return std::min(255, 65536 / 4 / 32 / warps_of_part / 8 * 8);
}
/// Blocks that a multiprocessor has at once; 0: none.
int blocks_of_sm(const Problem& problem, const PointLaunch& launch, int registers);

/// What an estimate is made of, in milliseconds but for the last two.
struct Limits {
  double memory = 0, cache = 0, shared = 0, products = 0, issue = 0, latency = 0;
  double in_flight = 1e9;  ///< bytes that a multiprocessor has asked for ahead
  double imbalance = 1;    ///< the busiest multiprocessor's items over the average's
};
double estimate(const Limits& limits);

inline const char* type_name(DType dtype) { return dtype == DType::BFloat16 ? "BFloat16" : "Float16"; }
const char* load_name(Load load);
const char* hook_name(Hook hook);
inline const char* word(bool value) { return value ? "true" : "false"; }
/// Whether a box of so many channels of a matrix with so many is folded: wherever it can be, as the copy
/// engine then moves whole lines of memory.
inline bool folds(const Problem& p, int channels, int box) {
  return channels == box && box < 64 && p.pixels % (64 / box) == 0;
}
/// What a copy in rows of so many bytes costs, over one in lines of 128: a guess that only breaks ties.
inline double narrow_rows(int box, bool folded) { return folded || box == 64 ? 1 : box == 32 ? 1.03 : 1.1; }
/// Channels of boxes that waste little of so many.
std::vector<int> box_channels(int channels);

void add_multiply_plans(const Problem& problem, std::vector<Plan>& plans);
void add_weigh_plans(const Problem& problem, std::vector<Plan>& plans);

}  // namespace lamella::pointwise
