#include "train/event_times.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace lamella::train {
namespace {

using lamella::detail::profiling::KernelCall;

/// Gives times as a GPU does: as floats of milliseconds.
class FakeClock final : public lamella::detail::cuda::GpuClock {
 public:
  int mark(Stream) override { return add(0); }
  double seconds_between(int from, int to) const override {
    const double seconds =
        times_.at(static_cast<std::size_t>(to)) - times_.at(static_cast<std::size_t>(from));
    return 1e-3 * static_cast<double>(static_cast<float>(1e3 * seconds));
  }
  void hold(Stream, double) override {}

  /// A mark that the GPU came to `seconds` after the clock's making.
  int add(double seconds) {
    times_.push_back(seconds);
    return static_cast<int>(times_.size()) - 1;
  }
  /// A call between two marks.
  KernelCall call(double begin, double end, std::int64_t around = -1, void* stream = nullptr) {
    KernelCall call;
    call.around = around;
    call.stream = stream;
    call.first_mark = add(begin);
    call.last_mark = add(end);
    return call;
  }

 private:
  std::vector<double> times_{0};
};

TEST(EventTimesTest, says_when_calls_ran) {
  FakeClock clock;
  const EventTimes times = event_times({clock.call(1, 1.5), clock.call(2, 2.25)}, clock);
  ASSERT_EQ(times.spans.size(), 2U);
  EXPECT_NEAR(times.spans[0].begin, 1, 1e-6);
  EXPECT_NEAR(times.spans[0].end, 1.5, 1e-6);
  EXPECT_NEAR(times.spans[1].begin, 2, 1e-6);
  EXPECT_NEAR(times.alone[0], 0.5, 1e-6);
  EXPECT_NEAR(times.alone[1], 0.25, 1e-6);
  EXPECT_TRUE(event_times({}, clock).spans.empty());
}

TEST(EventTimesTest, is_as_exact_after_an_hour_as_at_the_start) {
  FakeClock clock;
  std::vector<KernelCall> calls;
  constexpr int kCalls = 3600 * 20;
  const auto begin = [](int i) { return 0.05 * i + 1e-7 * (i % 10); };
  for (int i = 0; i < kCalls; ++i) calls.push_back(clock.call(begin(i), begin(i) + 10e-6));
  const EventTimes times = event_times(calls, clock);
  for (int i = 0; i < kCalls; i += 97) {
    EXPECT_NEAR(times.alone[static_cast<std::size_t>(i)], 10e-6, 1e-9) << i;
    EXPECT_NEAR(times.spans[static_cast<std::size_t>(i)].begin, begin(i), 2e-4) << i;
  }
  // Neighbours lie as they lay.
  const std::size_t last = kCalls - 1;
  EXPECT_NEAR(times.spans[last].begin - times.spans[last - 1].begin, begin(kCalls - 1) - begin(kCalls - 2),
              1e-6);
}

TEST(EventTimesTest, time_within_a_call_counts_once) {
  FakeClock clock;
  const EventTimes times = event_times(
      {clock.call(1, 2), clock.call(1.25, 1.5, 0), clock.call(1.3, 1.4, 1), clock.call(1.6, 1.7, 0)}, clock);
  EXPECT_NEAR(times.alone[0], 1 - 0.25 - 0.1, 1e-6);
  EXPECT_NEAR(times.alone[1], 0.25 - 0.1, 1e-6);
  EXPECT_NEAR(times.alone[2], 0.1, 1e-6);
  EXPECT_NEAR(times.alone[3], 0.1, 1e-6);
}

TEST(EventTimesTest, another_stream_takes_no_time_of_the_call_around) {
  FakeClock clock;
  int other = 0;
  const EventTimes times =
      event_times({clock.call(1, 2), clock.call(1.25, 1.5, 0, &other), clock.call(1.6, 1.7, 1)}, clock);
  EXPECT_NEAR(times.alone[1], 0.25, 1e-6);
  EXPECT_NEAR(times.alone[0], 1 - 0.1, 1e-6);  // that within the one on the other stream is on this again
}

TEST(EventTimesTest, marks_that_are_not_there_are_no_time) {
  FakeClock clock;
  KernelCall none, half = clock.call(1, 2);
  half.last_mark = -1;
  KernelCall within = clock.call(3, 4, 2);
  KernelCall unmarked;
  unmarked.around = 0;
  // 0 holds 1, which has no marks and holds 2.
  KernelCall innermost = clock.call(5.25, 5.5, 1);
  const EventTimes through = event_times({clock.call(5, 6), unmarked, innermost}, clock);
  EXPECT_NEAR(through.alone[0], 0.75, 1e-6);
  const EventTimes times = event_times({none, half, half, within}, clock);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(times.spans[static_cast<std::size_t>(i)].begin, times.spans[static_cast<std::size_t>(i)].end);
    EXPECT_EQ(times.alone[static_cast<std::size_t>(i)], 0);
  }
  EXPECT_NEAR(times.alone[3], 1, 1e-6);
}

TEST(EventTimesTest, no_time_is_negative) {
  FakeClock clock;
  // Rounded to the clock's steps, what lies within seems longer than what it lies within.
  const EventTimes rounded = event_times({clock.call(1, 1.000001), clock.call(1, 1.0000015, 0)}, clock);
  EXPECT_EQ(rounded.alone[0], 0);
  EXPECT_GT(rounded.alone[1], 0);
  const EventTimes turned = event_times({clock.call(2, 1)}, clock);
  EXPECT_EQ(turned.alone[0], 0);
  EXPECT_EQ(turned.spans[0].begin, turned.spans[0].end);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const EventTimes unknown = event_times({clock.call(1, nan)}, clock);
  EXPECT_EQ(unknown.alone[0], 0);
  EXPECT_EQ(unknown.spans[0].end, 0);
}

}  // namespace
}  // namespace lamella::train
