#include "layers/conv/cuda/pointwise/device/weigh.cuh"
#include "pointwise_case.h"

namespace lamella::pointwise::checks {
namespace {

constexpr unsigned kSeeds = 5;

template <class Tile>
constexpr WeighTileSizes kTileSizes{Tile::kOutputs, Tile::kInputs, Tile::kWarpOutputs, Tile::kWarpInputs,
                                    Tile::kDepths,  Tile::kPixels, Tile::kGBox,        Tile::kXBox,
                                    Tile::kPages,   Tile::kFoldG,  Tile::kFoldX};

template <class T, class Tile, Load kLoad, bool kBias>
void weigh(int output_tiles, int input_tiles) {
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draw draw(seed);
    const auto channels = [&](int tiles, int size) {
      return tiles * size - (tiles > 1 ? draw(0, size / 8 - 1) * 8 : 0);
    };
    const int outputs = channels(output_tiles, Tile::kOutputs), inputs = channels(input_tiles, Tile::kInputs);
    int pixels = draw.one_in(4) ? draw(1, 12) : draw(1, 6 * Tile::kPixels);
    if (Tile::kFoldG || Tile::kFoldX) pixels = (pixels + 3) / 4 * 4;
    SCOPED_TRACE(std::to_string(pixels) + " pixels, " + std::to_string(outputs) + " x " +
                 std::to_string(inputs));
    Matrix<T> x(pixels, inputs), g(pixels, outputs);
    const std::vector<double> xs = draw.numbers(std::int64_t{pixels} * inputs),
                              gs = draw.numbers(std::int64_t{pixels} * outputs);
    x.fill(xs), g.fill(gs);
    const Activation load(draw, inputs, kLoad);
    WeighWork work;
    const WeighCut cut = cut_weigh(work, pixels, inputs, outputs, kTileSizes<Tile>, draw(1, 12));
    EXPECT_EQ(cut.launch.shared_bytes, WeighSizes<Tile>::kSharedBytes);
    EXPECT_EQ(cut.launch.threads, Tile::kThreads);
    work.x = x.map(cut.x), work.g = g.map(cut.g);
    work.load = load.factors();
    const auto numbers = static_cast<std::size_t>(outputs) * static_cast<std::size_t>(inputs);
    const auto count = static_cast<std::size_t>(cut.launch.parts);
    constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> parts(count * numbers, kNaN),
        bias_parts(count * static_cast<std::size_t>(outputs), kNaN);
    work.parts = parts.data(), work.bias_parts = bias_parts.data();
    emulated::run(cut.launch.blocks, cut.launch.threads, static_cast<std::size_t>(cut.launch.shared_bytes),
                  [&] { weigh_points<T, Tile, kLoad, kBias, 1>(work); });

    for (int o = 0; o < outputs; ++o) {
      double bias = 0, got = 0;
      for (int p = 0; p < pixels; ++p) bias += gs[static_cast<std::size_t>(p * outputs + o)];
      for (std::size_t part = 0; kBias && part < count; ++part)
        got += static_cast<double>(
            bias_parts[part * static_cast<std::size_t>(outputs) + static_cast<std::size_t>(o)]);
      ASSERT_EQ(got, kBias ? bias : 0) << "bias " << o;
      for (int i = 0; i < inputs; ++i) {
        double sum = 0, terms = 0, sums = 0;
        for (int p = 0; p < pixels; ++p) {
          const double term = gs[static_cast<std::size_t>(p * outputs + o)] *
                              load.apply<T>(xs[static_cast<std::size_t>(p * inputs + i)], i);
          sum += term, terms += std::abs(term);
        }
        for (std::size_t part = 0; part < count; ++part)
          sums += static_cast<double>(parts[part * numbers + static_cast<std::size_t>(o * inputs + i)]);
        ASSERT_NEAR(sums, sum, kLoad == Load::HardSwish ? 1e-6 * terms : 0) << "weight " << o << ", " << i;
      }
    }
  }
}

using enum Load;

// WeighTile: outputs and inputs of a block, of a warp, warps for the pixels of a page, pixels, channels of a
// box of g and of x, pages.
TEST(Weigh, plain) { weigh<BFloat16, WeighTile<32, 32, 32, 32, 1, 32, 32, 32, 2>, Plain, false>(1, 1); }
TEST(Weigh, depths_and_bias) {
  weigh<BFloat16, WeighTile<16, 96, 16, 48, 4, 64, 16, 32, 3>, Plain, true>(1, 1);
}
TEST(Weigh, eights_of_channels) {
  weigh<Float16, WeighTile<40, 24, 32, 32, 2, 32, 64, 32, 2>, Clamp, true>(1, 1);
}
TEST(Weigh, one_eight_of_channels) {
  weigh<BFloat16, WeighTile<8, 8, 16, 16, 2, 64, 16, 16, 2>, Plain, true>(1, 1);
}
TEST(Weigh, folded) {
  weigh<BFloat16, WeighTile<32, 16, 32, 16, 3, 48, 32, 16, 3, true, true>, Clamp, true>(1, 1);
}
TEST(Weigh, tiles) { weigh<BFloat16, WeighTile<64, 32, 32, 32, 1, 48, 64, 32, 2>, Clamp, true>(2, 3); }
TEST(Weigh, hardswish) {
  weigh<BFloat16, WeighTile<72, 40, 48, 48, 2, 64, 32, 16, 2>, HardSwish, false>(1, 1);
}
TEST(Weigh, large_tile) { weigh<BFloat16, WeighTile<128, 64, 64, 64, 1, 32, 64, 64, 2>, Plain, false>(1, 2); }
TEST(Weigh, as_planned) { weigh<BFloat16, WeighTile<24, 144, 32, 48, 4, 128, 32, 64, 2>, Clamp, true>(1, 1); }

}  // namespace
}  // namespace lamella::pointwise::checks
