#pragma once

#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "core/profile_log.h"
#include "lamella/train/profile.h"
#include "train/event_times.h"

namespace lamella::train {

inline constexpr std::size_t kPurposes = 6;

struct Profile::Record {
  std::shared_ptr<lamella::detail::profiling::Log> log;
  ProfileOptions options;
  bool running = false;
  bool is_stopped = false;
  std::vector<double> marks;    ///< start, then the end of each step
  double clock_zero = 0;        ///< when the GPU's clock began
  double shortest_step = 0.05;  ///< seconds
  double bandwidth = 0;
  std::thread::id thread;  ///< that called start()
  EventTimes gpu;          ///< spans in seconds of now()

  /// What the log holds is complete.
  bool is_over() const { return !running && !marks.empty(); }
};

/// What a block was for.
MemoryPurpose purpose_of(const lamella::detail::profiling::BlockUse& block);
/// The operator that a call is listed under.
std::string operator_of(const lamella::detail::profiling::KernelCall& call);

}  // namespace lamella::train
