#include "layers/conv/cuda/pointwise/device/finish.cuh"
#include "pointwise_case.h"

namespace lamella::pointwise::checks {
namespace {

constexpr std::size_t kShared = sizeof(double) * kFinishThreads;

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
