#include "layers/conv/cuda/pointwise/device/finish.cuh"
#include "pointwise_case.h"

namespace lamella::pointwise::checks {
namespace {

constexpr std::size_t kShared = 3 * sizeof(double) * kFinishThreads;

TEST(Finish, moments) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draw draw(seed);
    const int channels = draw(1, 80), pixels_of_part = draw(1, 9), pixels = draw(1, 300);
    FinishMomentsWork work;
    work.count = static_cast<int>(ceiling(pixels, pixels_of_part));
    work.channels = channels, work.pixels = pixels, work.pixels_of_part = pixels_of_part;
    std::vector<double> parts, mean(static_cast<std::size_t>(channels), NAN), variance(mean);
    // A mean a thousand deviations from zero.
    std::vector<double> values = draw.numbers(std::int64_t{pixels} * channels, 8, 0.125);
    for (double& value : values) value += 1000;
    const auto at = [&](int pixel, int channel) {
      return values[static_cast<std::size_t>(pixel * channels + channel)];
    };
    const auto moments = [&](int from, int to, int channel) {
      double sum = 0, square = 0;
      for (int p = from; p < to; ++p) sum += at(p, channel);
      const double of = sum / (to - from);
      for (int p = from; p < to; ++p) square += (at(p, channel) - of) * (at(p, channel) - of);
      return std::pair{of, square};
    };
    for (int from = 0; from < pixels; from += pixels_of_part)
      for (const bool squares : {false, true})
        for (int c = 0; c < channels; ++c) {
          const auto of = moments(from, std::min(pixels, from + pixels_of_part), c);
          parts.push_back(squares ? of.second : of.first);
        }
    work.parts = parts.data(), work.mean = mean.data(), work.variance = variance.data();
    emulated::run(ceiling(channels, 32), kFinishThreads, kShared, [&] { finish_moments<32>(work); });
    for (int c = 0; c < channels; ++c) {
      const auto of = moments(0, pixels, c);
      ASSERT_NEAR(mean[static_cast<std::size_t>(c)], of.first, 1e-12 * 1000);
      ASSERT_NEAR(variance[static_cast<std::size_t>(c)], of.second / pixels, 1e-11);
    }
  }
}

template <class From, class To, int kLanes>
void sums() {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draw draw(seed);
    FinishSumsWork work;
    work.count = draw(1, 40), work.rows = draw(1, 20), work.columns = draw(1, 30);
    // Any strides, here the turned matrix with gaps.
    work.column = work.rows + draw(0, 2), work.row = 1;
    work.accumulate = draw.one_in(2);
    const auto numbers = static_cast<std::size_t>(work.rows * work.columns);
    const std::vector<double> drawn = draw.numbers(static_cast<std::int64_t>(numbers) * work.count);
    const std::vector<From> parts(drawn.begin(), drawn.end());
    std::vector<To> to(static_cast<std::size_t>(work.columns * work.column));
    for (To& number : to) {
      if constexpr (sizeof(To) == 8)
        number = 3;
      else
        number = narrow<To>(3);
    }
    work.parts = parts.data(), work.to = to.data();
    emulated::run(ceiling(static_cast<std::int64_t>(numbers), std::int64_t{kLanes}), kFinishThreads, kShared,
                  [&] { finish_sums<From, To, kLanes>(work); });
    for (std::size_t i = 0; i < numbers; ++i) {
      double wanted = work.accumulate ? 3 : 0;
      for (std::size_t part = 0; part < static_cast<std::size_t>(work.count); ++part)
        wanted += static_cast<double>(parts[part * numbers + i]);
      const auto columns = static_cast<std::size_t>(work.columns);
      const To got = to[i / columns + i % columns * static_cast<std::size_t>(work.column)];
      if constexpr (sizeof(To) == 8)
        ASSERT_EQ(got, wanted);
      else
        ASSERT_EQ(static_cast<double>(widen(got)), rounded<To>(wanted));
    }
  }
}
TEST(Finish, sums_of_floats) { sums<float, float, 32>(); }
TEST(Finish, sums_as_half) { sums<float, BFloat16, 256>(); }
TEST(Finish, sums_of_doubles) { sums<double, double, 32>(); }

}  // namespace
}  // namespace lamella::pointwise::checks
