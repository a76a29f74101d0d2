#include "train/event_times.h"

#include <algorithm>
#include <cmath>

namespace lamella::train {

using lamella::detail::cuda::GpuClock;
using lamella::detail::profiling::KernelCall;

namespace {

/// When the GPU came to marks. A float of milliseconds since the clock's making would be off by microseconds
/// after some seconds, so the way there is made of short pieces.
class Timeline {
 public:
  explicit Timeline(const GpuClock& clock) : clock_(clock) {}

  double at(int mark) {
    const int piece = mark / kMarks;
    while (std::ssize(starts_) <= piece) {
      const int last = static_cast<int>(std::ssize(starts_)) - 1;
      starts_.push_back(starts_.back() + clock_.seconds_between(last * kMarks, (last + 1) * kMarks));
    }
    return starts_[static_cast<std::size_t>(piece)] + clock_.seconds_between(piece * kMarks, mark);
  }

 private:
  static constexpr int kMarks = 64;  // of a piece
  const GpuClock& clock_;
  std::vector<double> starts_{0};
};

}  // namespace

EventTimes event_times(const std::vector<KernelCall>& calls, const GpuClock& clock) {
  EventTimes times;
  times.spans.resize(calls.size());
  times.alone.resize(calls.size(), 0);
  std::vector<bool> known(calls.size(), false);
  Timeline timeline(clock);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const KernelCall& call = calls[i];
    if (call.first_mark < 0 || call.last_mark < 0) continue;
    const double begin = timeline.at(call.first_mark);
    double seconds = clock.seconds_between(call.first_mark, call.last_mark);
    if (!std::isfinite(begin) || !std::isfinite(seconds)) continue;
    seconds = std::max(0.0, seconds);
    known[i] = true;
    times.spans[i] = {begin, begin + seconds};
    times.alone[i] += seconds;
    // Its time is within that of the next call around it whose launches it stood between.
    std::int64_t around = call.around;
    while (around >= 0) {
      const auto outer = static_cast<std::size_t>(around);
      if (known[outer] && calls[outer].stream == call.stream) {
        times.alone[outer] -= seconds;
        break;
      }
      around = calls[outer].around;
    }
  }
  for (double& seconds : times.alone) seconds = std::max(0.0, seconds);
  return times;
}

}  // namespace lamella::train
