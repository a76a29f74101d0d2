#include <cstring>

#include "depthwise_case.h"
#include "layers/depthwise_conv2d/cuda/cut_direct.h"
#include "layers/depthwise_conv2d/cuda/device/direct.cuh"

namespace lamella::depthwise::checks {
namespace {

constexpr unsigned kSeeds = 30;

template <class T, class K, class Tile>
Layout direct_layout() {
  const int unit = vector_of<T>(Tile::kLanes);
  return {true, unit, unit};
}
template <class T, class K, class Tile>
Geometry direct_geometry(Draw& draw) {
  Wanted wanted{Case<T, K>::kSizes};
  wanted.channels = Tile::kLanes;
  return draw_geometry(draw, wanted);
}

/// Taps of another alignment.
class MovedTaps {
 public:
  void move(Parameters& taps, std::size_t count, std::size_t number) {
    const std::size_t bytes = count * (taps.taps_are_float32 ? sizeof(float) : number);
    memory_.resize(bytes + 32);
    const auto begin = (reinterpret_cast<std::uintptr_t>(memory_.data()) + 15) / 16 * 16;
    void* const to = reinterpret_cast<void*>(begin + bytes / count);
    std::memcpy(to, taps.taps, bytes);
    taps.taps = to;
  }

 private:
  std::vector<unsigned char> memory_;
};

template <class T, class K, class Tile, int kVectors, int kTransforms, int kThreads = 64>
void forward() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = direct_geometry<T, K, Tile>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, direct_layout<T, K, Tile>(), kTransforms);
    PixelWork work;
    problem.describe(work);
    MovedTaps moved;
    if (draw.one_in(2)) moved.move(work.taps, problem.reference.taps.size(), sizeof(T));
    const Launch launch = cut_forward_direct(work, g.batch, g.channels,
                                             {Tile::kRows, Tile::kColumns, Tile::kLanes}, kVectors, kThreads);
    const bool exact = work.taps.taps_are_float32, turned = work.taps.turned;
    problem.forward(work, launch, false, [&] {
      if (exact && turned)
        forward_direct<T, K, Tile, kVectors, true, true, kTransforms, kThreads>(work);
      else if (exact)
        forward_direct<T, K, Tile, kVectors, true, false, kTransforms, kThreads>(work);
      else if (turned)
        forward_direct<T, K, Tile, kVectors, false, true, kTransforms, kThreads>(work);
      else
        forward_direct<T, K, Tile, kVectors, false, false, kTransforms, kThreads>(work);
    });
    return true;
  });
}

template <class T, class K, class Tile, int kVectors, int kThreads = 64>
void backward() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = direct_geometry<T, K, Tile>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, direct_layout<T, K, Tile>());
    PixelWork work;
    problem.describe(work);
    if (work.taps.turned) return false;
    MovedTaps moved;
    if (draw.one_in(2)) moved.move(work.taps, problem.reference.taps.size(), sizeof(T));
    const Launch launch =
        cut_backward_direct(work, g.batch, g.channels, problem.kSizes,
                            {Tile::kRows, Tile::kColumns, Tile::kLanes}, kVectors, kThreads);
    const bool exact = work.taps.taps_are_float32;
    problem.backward(work, launch, {true, false, false}, problem.has_gaps(), false, [&] {
      if (exact)
        backward_direct<T, K, Tile, kVectors, true, kThreads>(work);
      else
        backward_direct<T, K, Tile, kVectors, false, kThreads>(work);
    });
    return true;
  });
}

/// Parts, or the gradients themselves.
template <class T, class K, class Tile, int kVectors, bool kBias, int kTransforms, int kThreads = 64>
void weigh() {
  for_seeds(kSeeds, [](Draw& draw) {
    const Geometry g = direct_geometry<T, K, Tile>(draw);
    SCOPED_TRACE(to_string(g));
    Case<T, K> problem(draw, g, direct_layout<T, K, Tile>(), kTransforms);
    PixelWork work;
    problem.describe(work);
    const Launch launch =
        cut_weigh_direct(work, g.batch, g.channels, problem.kSizes,
                         {Tile::kRows, Tile::kColumns, Tile::kLanes}, kVectors, kBias, kThreads);
    const auto kernel = [&] { weigh_direct<T, K, Tile, kVectors, kBias, kTransforms, kThreads>(work); };
    if (draw.one_in(2)) {
      problem.backward(work, launch, {false, true, kBias}, false, false, kernel);
      return true;
    }
    // As [kw][kh][channel], with gaps.
    const bool add = draw.one_in(2), is_float32 = draw.one_in(2);
    const std::size_t size = static_cast<std::size_t>(g.channels) * (K::kTaps + 1) * 2;
    std::vector<float> floats(size, 0.25F);
    std::vector<T> others(size, narrow<T>(0.25F));
    const auto target = [&](int offset, Int64 channel, Int64 row, Int64 column) {
      void* const data = is_float32 ? static_cast<void*>(floats.data() + offset) : others.data() + offset;
      return GradientTarget{data, is_float32, add, channel, row, column};
    };
    const int column = 2 * g.channels * K::kH, biases = column * K::kW;
    work.dw = target(0, 2, 2 * Int64{g.channels}, column);
    if (kBias) work.db = target(biases, 2, 0, 0);
    problem.y.fill(problem.reference.y);
    emulated::run(launch.blocks, launch.threads, static_cast<std::size_t>(launch.shared_bytes), kernel);
    const std::vector<double> sums = problem.reference.weight_gradient();
    const auto expect = [&](int at, bool written, double sum) {
      const std::size_t i = static_cast<std::size_t>(at);
      const double got = static_cast<double>(is_float32 ? floats[i] : widen(others[i]));
      const double wanted = !written ? 0.25 : add ? 0.25 + sum : sum;
      const float rounded = static_cast<float>(wanted);
      ASSERT_EQ(got, static_cast<double>(is_float32 ? rounded : widen(narrow<T>(rounded)))) << "at " << at;
    };
    for (int c = 0; c < g.channels; ++c)
      for (int k = 0; k <= K::kTaps; ++k) {
        const int at =
            k == K::kTaps ? biases + 2 * c : 2 * (c + g.channels * (k / K::kW)) + column * (k % K::kW);
        expect(at, kBias || k < K::kTaps,
               sums[static_cast<std::size_t>(c) * (K::kTaps + 1) + static_cast<std::size_t>(k)]);
        expect(at + 1, false, 0);
      }
    return true;
  });
}

TEST(Direct, a_divisor_divides) {
  for (const std::int64_t count :
       {1, 2, 3, 5, 7, 12, 240, 641, 65535, 65536, 65537, 1 << 30, (1 << 30) + 1}) {
    const Divisor divisor = divisor_of(count);
    const auto expect = [&](std::int64_t number) {
      EXPECT_EQ(std::int64_t{divisor.divide(static_cast<unsigned>(number))}, number / count)
          << number << " by " << count;
    };
    for (std::int64_t number = 0; number < 3000; ++number) expect(number);
    constexpr std::int64_t kEnd = std::int64_t{1} << 31;
    for (std::int64_t multiple = count; multiple < kEnd;
         multiple += std::max(count, kEnd / 1000 / count * count))
      expect(multiple - 1), expect(multiple);
    expect(kEnd - 1);
  }
}

TEST(Direct, forward_a_pixel) { forward<float, Kernel<3, 3, 1, 1>, Tile<1, 1, 4>, 8, kPlain>(); }
TEST(Direct, forward_some_columns) { forward<float, Kernel<3, 3, 1, 1>, Tile<1, 4, 2>, 2, kPlain, 128>(); }
TEST(Direct, forward_some_rows) { forward<BFloat16, Kernel<3, 3, 1, 1>, Tile<2, 1, 8>, 4, kPlain>(); }
TEST(Direct, forward_stride) { forward<float, Kernel<3, 3, 2, 2>, Tile<2, 2, 4>, 4, kPlain>(); }
TEST(Direct, forward_five_by_five) { forward<Float16, Kernel<5, 5, 1, 1>, Tile<1, 2, 4>, 1, kPlain>(); }
TEST(Direct, forward_five_by_five_stride) { forward<float, Kernel<5, 5, 2, 2>, Tile<1, 1, 1>, 16, kPlain>(); }
TEST(Direct, forward_column_of_taps) { forward<BFloat16, Kernel<3, 1, 1, 1>, Tile<1, 2, 2>, 8, kPlain>(); }
TEST(Direct, forward_row_of_taps) { forward<float, Kernel<1, 5, 1, 2>, Tile<2, 2, 2>, 8, kPlain>(); }
TEST(Direct, forward_even) { forward<Float16, Kernel<2, 4, 2, 1>, Tile<1, 1, 2>, 4, kPlain>(); }
TEST(Direct, forward_number_by_number) { forward<BFloat16, Kernel<3, 3, 1, 1>, Tile<1, 1, 1>, 32, kPlain>(); }
TEST(Direct, forward_transform) {
  forward<float, Kernel<3, 3, 1, 1>, Tile<1, 2, 4>, 4, kClamp>();
  forward<BFloat16, Kernel<3, 3, 2, 2>, Tile<1, 1, 8>, 2, kClamp>();
}
TEST(Direct, forward_hardswish) {
  forward<float, Kernel<5, 5, 1, 1>, Tile<1, 1, 4>, 4, kHardSwish>();
  forward<Float16, Kernel<3, 3, 1, 1>, Tile<2, 2, 2>, 8, kHardSwish>();
}

TEST(Direct, input_gradient) { backward<float, Kernel<3, 3, 1, 1>, Tile<1, 1, 4>, 8>(); }
TEST(Direct, input_gradient_stride) {
  backward<float, Kernel<3, 3, 2, 2>, Tile<1, 1, 4>, 4>();
  backward<BFloat16, Kernel<3, 3, 2, 2>, Tile<1, 2, 8>, 2>();
}
TEST(Direct, input_gradient_five_by_five) {
  backward<float, Kernel<5, 5, 2, 2>, Tile<1, 1, 2>, 16>();
  backward<Float16, Kernel<5, 5, 2, 2>, Tile<2, 1, 4>, 1, 128>();
}
TEST(Direct, input_gradient_other_strides) {
  backward<BFloat16, Kernel<3, 1, 3, 1>, Tile<2, 1, 1>, 8>();
  backward<float, Kernel<2, 3, 1, 2>, Tile<1, 2, 1>, 4>();
  backward<float, Kernel<1, 2, 2, 3>, Tile<1, 1, 2>, 4>();
}

TEST(Direct, weight_gradient) {
  weigh<float, Kernel<3, 3, 1, 1>, Tile<1, 1, 4>, 4, true, kPlain>();
  weigh<BFloat16, Kernel<3, 3, 1, 1>, Tile<1, 4, 2>, 8, false, kPlain, 128>();
}
TEST(Direct, weight_gradient_stride) {
  weigh<Float16, Kernel<3, 3, 2, 2>, Tile<2, 2, 1>, 16, true, kPlain>();
  weigh<float, Kernel<5, 5, 2, 2>, Tile<1, 2, 2>, 4, false, kPlain>();
}
TEST(Direct, weight_gradient_other_kernels) {
  weigh<float, Kernel<3, 1, 1, 1>, Tile<1, 1, 1>, 1, true, kPlain>();
  weigh<BFloat16, Kernel<2, 4, 1, 2>, Tile<1, 1, 8>, 2, true, kPlain>();
  weigh<float, Kernel<5, 5, 1, 1>, Tile<1, 1, 4>, 32, true, kPlain>();
}
TEST(Direct, weight_gradient_transform) {
  weigh<float, Kernel<3, 3, 1, 1>, Tile<1, 2, 2>, 4, true, kClamp>();
  weigh<BFloat16, Kernel<3, 3, 2, 2>, Tile<1, 1, 4>, 2, false, kHardSwish>();
}

}  // namespace
}  // namespace lamella::depthwise::checks
