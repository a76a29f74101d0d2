#pragma once

#include <vector>

#include "core/profile_log.h"

namespace lamella::train {

/// When a GPU ran calls of kernels, by the marks before and behind them.
struct EventTimes {
  /// Seconds since the clock's making; equal where that is not known.
  struct Span {
    double begin = 0, end = 0;
  };
  std::vector<Span> spans;    ///< of each call
  std::vector<double> alone;  ///< its seconds without those of the calls within it; 0 where that is not known
};

/// Asks the clock, after synchronize(). No time is negative: the clock's steps are half a microsecond, so
/// that calls within one may seem to take longer than it.
EventTimes event_times(const std::vector<lamella::detail::profiling::KernelCall>& calls,
                       const lamella::detail::cuda::GpuClock& clock);

}  // namespace lamella::train
