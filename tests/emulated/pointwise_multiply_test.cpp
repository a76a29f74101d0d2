#include "layers/conv/cuda/pointwise/device/multiply.cuh"
#include "pointwise_case.h"

namespace lamella::pointwise::checks {
namespace {

constexpr unsigned kSeeds = 5;

template <class Tile>
constexpr PointTileSizes kTileSizes{Tile::kInputs, Tile::kOutputs,  Tile::kWarps, Tile::kWarpPixels,
                                    Tile::kBox,    Tile::kStoreBox, Tile::kPages, Tile::kResident,
                                    Tile::kFoldIn, Tile::kFoldOut};

/// One problem, its kernel run, and its results against the definition. Turned: x stands for the gradient, y
/// for the input's gradient.
template <class T, class Tile, bool kTurned, Load kLoad, Hook kHook>
void multiply(int slices) {
  constexpr bool kSums = leaves_sums(kHook);
  constexpr int kInputs = Tile::kInputs;
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draw draw(seed);
    // The last slice may have fewer outputs.
    const int outputs = slices * Tile::kOutputs - (slices > 1 ? draw(0, Tile::kOutputs / 8 - 1) * 8 : 0);
    int pixels = draw.one_in(4) ? draw(1, 12) : draw(1, 4 * Tile::kPixels);
    if (Tile::kFoldIn || Tile::kFoldOut) pixels = (pixels + 3) / 4 * 4;
    SCOPED_TRACE(std::to_string(pixels) + " pixels, " + std::to_string(outputs) + " outputs");
    Matrix<T> x(pixels, kInputs), y(pixels, outputs), z(pixels, outputs);
    Matrix<T> w(kTurned ? kInputs : outputs, kTurned ? outputs : kInputs);
    const std::vector<double> xs = draw.numbers(std::int64_t{pixels} * kInputs),
                              ws = draw.numbers(std::int64_t{outputs} * kInputs),
                              zs = draw.numbers(std::int64_t{pixels} * outputs), bs = draw.numbers(outputs);
    // Means far from zero, and far larger than the deviations.
    const double moved = kHook == Hook::Moments && draw.one_in(2) ? 4096 : 0;
    x.fill(xs), w.fill(ws), z.fill(zs);
    const Activation load(draw, kInputs, kLoad),
        hook(draw, outputs, kHook == Hook::HardSwishSums ? Load::HardSwish : Load::Clamp);
    const std::vector<float> center = floats(draw.numbers(outputs));

    PointWork work;
    const PointCut cut =
        cut_points(work, pixels, outputs, kTileSizes<Tile>, kTurned, kLoad, kHook, draw(1, 9));
    using Sizes = PointSizes<Tile, kTurned, kLoad, kHook>;
    EXPECT_EQ(cut.launch.shared_bytes, Sizes::kSharedBytes);
    work.x = x.map(cut.x), work.weights = w.map(cut.weights), work.y = y.map(cut.y), work.z = z.map(cut.z);
    work.load = load.factors(), work.hook = hook.factors(), work.center = center.data();
    const bool with_bias = !kTurned && (moved != 0 || draw.one_in(2));
    std::vector<float> bias;
    std::vector<T> narrow_bias;
    for (const double b : bs) {
      bias.push_back(static_cast<float>(b + moved));
      narrow_bias.push_back(narrow<T>(bias.back()));
    }
    work.bias_is_float32 = draw.one_in(2);
    if (with_bias)
      work.bias = work.bias_is_float32 ? static_cast<const void*>(bias.data()) : narrow_bias.data();
    std::vector<double> parts(
        static_cast<std::size_t>(cut.launch.parts) * 2 * static_cast<std::size_t>(outputs),
        std::numeric_limits<double>::quiet_NaN());
    work.parts = parts.data();
    emulated::run(cut.launch.blocks, cut.launch.threads, static_cast<std::size_t>(cut.launch.shared_bytes),
                  [&] { multiply_points<T, Tile, kTurned, kLoad, kHook, 1>(work); });

    std::vector<double> wanted, first(static_cast<std::size_t>(outputs)), second(first);
    for (int p = 0; p < pixels; ++p)
      for (int o = 0; o < outputs; ++o) {
        double sum = with_bias
                         ? (work.bias_is_float32 ? static_cast<double>(bias[static_cast<std::size_t>(o)])
                                                 : rounded<T>(bs[static_cast<std::size_t>(o)] + moved))
                         : 0;
        for (int i = 0; i < kInputs; ++i)
          sum += load.apply<T>(xs[static_cast<std::size_t>(p * kInputs + i)], i) *
                 ws[static_cast<std::size_t>(kTurned ? i * outputs + o : o * kInputs + i)];
        const auto at = static_cast<std::size_t>(o);
        if constexpr (kSums) {
          const double zed = zs[static_cast<std::size_t>(p * outputs + o)];
          const float v = hook.before(zed, o);
          double slope = v <= Activation::kLow || v >= Activation::kHigh ? 0 : 1;
          if (kHook == Hook::HardSwishSums)
            slope = v <= -3 ? 0 : v < 3 ? static_cast<double>(v * (1.0F / 3.0F) + 0.5F) : 1;
          sum *= slope;
          const double stored = rounded<T>(sum);
          first[at] += stored, second[at] += stored * (zed - static_cast<double>(center[at]));
        } else {
          first[at] += rounded<T>(sum) / pixels;
        }
        wanted.push_back(sum);
      }
    const bool exact = kLoad != Load::HardSwish && kHook != Hook::HardSwishSums;
    y.expect("y", wanted, exact ? 0 : 1);
    if (::testing::Test::HasFailure()) return;
    if (kHook == Hook::None) continue;

    for (int o = 0; o < outputs; ++o) {
      const auto at = static_cast<std::size_t>(o);
      double a = 0, b = 0, count = 0;
      for (int part = 0; part < cut.launch.parts; ++part) {
        const std::size_t of = static_cast<std::size_t>(part) * 2 * static_cast<std::size_t>(outputs) + at;
        const double first_of = parts[of], second_of = parts[of + static_cast<std::size_t>(outputs)];
        if constexpr (kSums) {
          a += first_of, b += second_of;
        } else {
          const int from = part * work.items_per_part * Tile::kPixels;
          const double n = std::min(pixels - from, work.items_per_part * Tile::kPixels), d = first_of - a;
          count += n;
          a += d * n / count;
          b += second_of + d * d * n * (count - n) / count;
        }
      }
      if constexpr (kSums) {
        ASSERT_NEAR(a, first[at], 1e-5 * pixels * kInputs) << "sum of channel " << o;
        ASSERT_NEAR(b, second[at], 1e-5 * pixels * kInputs) << "second sum of channel " << o;
      } else {
        for (int p = 0; p < pixels; ++p) {
          const double d = rounded<T>(wanted[static_cast<std::size_t>(p * outputs + o)]) - first[at];
          second[at] += d * d;
        }
        // Distances from the pivot are rounded like the results.
        const double of_distance = rounded<T>(1.004) - 1, spread = std::sqrt(second[at] / pixels);
        ASSERT_NEAR(a, first[at], 1e-6 * (1 + std::abs(first[at])) + of_distance * spread)
            << "mean of channel " << o;
        ASSERT_NEAR(b, second[at], 1e-5 + (1e-5 + 2 * of_distance) * second[at])
            << "squares of channel " << o;
      }
    }
  }
}

using enum Load;

// PointTile: inputs, outputs, warps, pixels of a warp, channels of a page and of a stored box, pages,
// resident weights.
TEST(Multiply, plain) {
  multiply<BFloat16, PointTile<32, 32, 2, 16, 32, 32, 2, true>, false, Plain, Hook::None>(1);
}
TEST(Multiply, folded) {
  multiply<BFloat16, PointTile<16, 32, 3, 48, 16, 32, 2, true, true, true>, false, Clamp, Hook::Moments>(1);
}
TEST(Multiply, turned_and_folded) {
  multiply<BFloat16, PointTile<32, 16, 3, 16, 32, 16, 2, true, true, true>, true, Plain, Hook::ClampSums>(1);
}
TEST(Multiply, few_inputs) {
  multiply<BFloat16, PointTile<16, 96, 3, 32, 16, 32, 3, true>, false, Plain, Hook::None>(1);
}
TEST(Multiply, eights_of_channels) {
  multiply<Float16, PointTile<24, 40, 1, 48, 32, 64, 2, true>, false, Plain, Hook::None>(1);
}
TEST(Multiply, one_eight_of_channels) {
  multiply<BFloat16, PointTile<8, 8, 2, 16, 16, 16, 2, true>, false, Plain, Hook::None>(1);
}
TEST(Multiply, many_inputs) {
  multiply<BFloat16, PointTile<200, 32, 2, 16, 64, 32, 3, true>, false, Plain, Hook::None>(1);
}
TEST(Multiply, slices) {
  multiply<BFloat16, PointTile<72, 64, 2, 32, 64, 64, 2, true>, false, Plain, Hook::None>(3);
}
TEST(Multiply, weights_with_pages) {
  multiply<BFloat16, PointTile<136, 64, 2, 32, 64, 32, 3, false>, false, Plain, Hook::None>(2);
}
TEST(Multiply, bounds) {
  multiply<BFloat16, PointTile<40, 48, 2, 32, 32, 16, 2, true>, false, Clamp, Hook::None>(1);
}
TEST(Multiply, hardswish) {
  multiply<Float16, PointTile<72, 24, 2, 16, 64, 32, 2, false>, false, HardSwish, Hook::None>(1);
}
TEST(Multiply, moments) {
  multiply<BFloat16, PointTile<24, 40, 2, 32, 32, 64, 2, true>, false, Plain, Hook::Moments>(1);
}
TEST(Multiply, bounds_and_moments_of_slices) {
  multiply<BFloat16, PointTile<72, 32, 3, 16, 64, 32, 3, false>, false, Clamp, Hook::Moments>(2);
}
TEST(Multiply, turned) {
  multiply<BFloat16, PointTile<96, 24, 2, 32, 32, 32, 3, true>, true, Plain, Hook::None>(1);
}
TEST(Multiply, turned_slices) {
  multiply<Float16, PointTile<40, 64, 2, 16, 64, 32, 2, false>, true, Plain, Hook::None>(3);
}
TEST(Multiply, turned_sums) {
  multiply<BFloat16, PointTile<24, 72, 2, 32, 32, 64, 3, true>, true, Plain, Hook::ClampSums>(1);
}
TEST(Multiply, turned_sums_of_slices) {
  multiply<BFloat16, PointTile<136, 64, 2, 16, 64, 32, 3, false>, true, Plain, Hook::ClampSums>(2);
}
TEST(Multiply, turned_hardswish_sums) {
  multiply<Float16, PointTile<40, 48, 1, 32, 16, 16, 3, true>, true, Plain, Hook::HardSwishSums>(1);
}

// Tiles as plans have them, with many warps.
TEST(Multiply, as_planned_from_many_inputs) {
  multiply<BFloat16, PointTile<96, 24, 8, 32, 32, 32, 4, true>, false, Clamp, Hook::Moments>(1);
}
TEST(Multiply, as_planned_to_many_outputs) {
  multiply<BFloat16, PointTile<24, 144, 15, 16, 32, 64, 3, true>, false, Plain, Hook::Moments>(1);
}
TEST(Multiply, as_planned_for_sums) {
  multiply<BFloat16, PointTile<24, 96, 7, 16, 32, 32, 4, true>, true, Plain, Hook::ClampSums>(1);
}

}  // namespace
}  // namespace lamella::pointwise::checks
