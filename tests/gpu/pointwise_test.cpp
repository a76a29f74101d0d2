#include "layers/conv/cuda/pointwise/pointwise.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/cuda/copy_engine.h"
#include "devices.h"
#include "lamella/lamella.h"
#include "tensor/door.h"

// The 1x1 kernels on the GPU against conv2d() on the CPU in float64.
namespace lamella::test {
namespace {

namespace points = cuda::pointwise;
using detail::GradientWrite;
using detail::read;
using detail::write;
using pointwise::Load;

constexpr int kSeeds = 60;
constexpr float kLow = 0, kHigh = 6;

struct Drawn {
  std::mt19937 engine;
  explicit Drawn(int seed) : engine(static_cast<unsigned>(seed)) {}
  std::int64_t between(std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(most - least + 1));
  }
  bool coin() { return between(0, 1) == 1; }
  /// Few or many, as in MobileNets.
  std::int64_t channels() { return 8 * (coin() ? between(1, 20) : between(1, 130)); }
};

/// The sizes of a problem, and its tensors: `x` before and `y` behind the convolution, rounded to the type.
struct Case {
  std::int64_t n, h, w, ci, co;
  DType dtype;
  Load load;
  Tensor x, g, z, weight, bias, scale, shift, center;  ///< on the CPU; factors float32, the rest float64

  explicit Case(Drawn& draw)
      : n(draw.between(1, 4)),
        h(draw.between(1, 20)),
        w(draw.between(1, 20)),
        ci(draw.channels()),
        co(draw.channels()),
        dtype(draw.coin() ? bfloat16 : float16),
        load(static_cast<Load>(draw.between(0, 2))) {
    const auto seed = static_cast<std::uint64_t>(draw.between(1, 1 << 20));
    x = rounded({n, ci, h, w}, seed), g = rounded({n, co, h, w}, seed + 1),
    z = rounded({n, ci, h, w}, seed + 2);
    weight = rounded({co, ci, 1, 1}, seed + 3), bias = rounded({co}, seed + 4);
    scale = factor(seed + 5), shift = factor(seed + 6), center = factor(seed + 7);
  }
  std::string text() const {
    return std::to_string(ci) + " to " + std::to_string(co) + " channels, " + std::to_string(n) + " x " +
           std::to_string(h) + " x " + std::to_string(w) + " pixels, " + name(dtype) + ", load " +
           std::to_string(static_cast<int>(load));
  }
  Tensor rounded(const Shape& shape, std::uint64_t seed) const {
    return testing::random_tensor(shape, seed, {.dtype = float64}).to(dtype).to(float64);
  }
  Tensor factor(std::uint64_t seed) const {
    return testing::random_tensor({ci}, seed, {.dtype = float64}).to(float32);
  }
  Tensor on_gpu(const Tensor& image) const {
    return image.to(dtype).contiguous(MemoryFormat::ChannelsLast).to(Device::cuda());
  }
  Tensor poisoned(const Shape& shape) const {
    return full(shape, std::numeric_limits<double>::quiet_NaN(),
                {.dtype = dtype, .device = Device::cuda(), .format = MemoryFormat::ChannelsLast});
  }
  /// scale · image + shift in float32, as the kernels have it.
  std::vector<float> normalised(const Tensor& image) const {
    const auto numbers = image.to_vector<double>();
    const auto scales = scale.to_vector<float>(), shifts = shift.to_vector<float>();
    std::vector<float> result(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto c = i / static_cast<std::size_t>(h * w) % static_cast<std::size_t>(ci);
      result[i] = std::fma(scales[c], static_cast<float>(numbers[i]), shifts[c]);
    }
    return result;
  }
  /// a(x), rounded.
  Tensor transformed() const {
    if (load == Load::Plain) return x;
    std::vector<float> values = normalised(x);
    for (float& v : values)
      // As the kernels do it, or some numbers round the other way.
      v = load == Load::Clamp ? std::clamp(v, kLow, kHigh)
                              : v * std::clamp(std::fma(v, 1.0F / 6.0F, 0.5F), 0.0F, 1.0F);
    return from_vector(values, x.shape()).to(dtype).to(float64);
  }
};

/// Factors on the GPU.
struct Factors {
  Tensor scale, shift;
  explicit Factors(const Case& c) : scale(c.scale.to(Device::cuda())), shift(c.shift.to(Device::cuda())) {}
  points::Transform of(Load load) const {
    return {load, read(scale).as<float>(), read(shift).as<float>(), kLow, kHigh};
  }
};

/// |got − wanted| within a rounding of the type, and of sums of `terms` in float32.
void expect_near(const std::string& what, const Tensor& got, const Tensor& wanted, const Tensor& terms) {
  const auto a = got.to(Device::cpu()).to_vector<double>(), b = wanted.to_vector<double>(),
             t = terms.to_vector<double>();
  const double unit = roundoff(got.dtype());
  constexpr double kSums = 1e-5, kSmallest = 1e-7;
  ASSERT_EQ(a.size(), b.size()) << what;
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_LE(std::abs(a[i] - b[i]), 1.01 * unit * std::abs(b[i]) + kSums * t[i] + kSmallest)
        << what << ", number " << i << " is " << a[i] << " instead of " << b[i];
}

/// What parts [parts, 2, C] add up to: two rows of C.
std::vector<double> merged_sums(const detail::LeftParts& left) {
  const Tensor& parts = left.tensor();
  const auto count = static_cast<std::size_t>(parts.size(0)),
             row = static_cast<std::size_t>(2 * parts.size(2));
  const auto all = parts.to(Device::cpu()).to_vector<double>();
  std::vector<double> sums(row);
  for (std::size_t part = 0; part < count; ++part)
    for (std::size_t i = 0; i < row; ++i) sums[i] += all[part * row + i];
  return sums;
}

/// Mean and biased variance of what parts have the moments of.
std::vector<double> merged_moments(const detail::LeftParts& left, std::int64_t total) {
  const Tensor& parts = left.tensor();
  const auto channels = static_cast<std::size_t>(parts.size(2));
  const auto all = parts.to(Device::cpu()).to_vector<double>();
  std::vector<double> merged(2 * channels);
  for (std::size_t c = 0; c < channels; ++c) {
    double before = 0, mean = 0, m2 = 0;
    for (std::int64_t part = 0; part < parts.size(0); ++part) {
      const std::size_t at = static_cast<std::size_t>(part) * 2 * channels + c;
      const auto n = static_cast<double>(std::min(left.of_part(), total - part * left.of_part()));
      const double both = before + n, apart = all[at] - mean;
      mean += apart * n / both;
      m2 += all[at + channels] + apart * apart * before * n / both;
      before = both;
    }
    merged[c] = mean, merged[channels + c] = m2 / before;
  }
  return merged;
}

bool can_run() { return detail::cuda::has_copy_engine(Device::cuda()); }
#define LAMELLA_NEEDS_COPY_ENGINE() \
  LAMELLA_NEEDS_GPU();              \
  if (!can_run()) GTEST_SKIP() << "needs a GPU with a copy engine (compute capability 9)"

TEST(PointwiseTest, forward) {
  LAMELLA_NEEDS_COPY_ENGINE();
  for (int seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    Drawn draw(seed);
    const Case c(draw);
    SCOPED_TRACE(c.text());
    // A mean that is far from zero, a thousand deviations of some channels.
    const double far = draw.coin() ? 1000 : 0;
    const bool with_bias = far != 0 || draw.coin(), moments = draw.coin();
    const Tensor bias = with_bias ? add(c.bias, scalar(far, {.dtype = float64})) : Tensor();
    const DType weights = draw.coin() ? float32 : c.dtype;
    const Factors factors(c);
    const Tensor x = c.on_gpu(c.x), w = c.weight.to(weights).to(Device::cuda());
    const Tensor b = with_bias ? bias.to(float32).to(Device::cuda()) : Tensor();
    Tensor results[2], statistics[2];
    detail::LeftParts left(Device::cuda(), c.co);
    for (int run = 0; run < 2; ++run) {
      results[run] = c.poisoned({c.n, c.co, c.h, c.w});
      points::ForwardOperands o;
      o.input = read(x), o.weight = read(w), o.output = write(results[run], "test");
      if (with_bias) o.bias = read(b);
      o.transform = factors.of(c.load);
      if (moments) o.moments = &left;
      ASSERT_TRUE(points::forward(o));
      statistics[run] = left.tensor();
    }
    EXPECT_TRUE(testing::equal_bits(results[0].to(Device::cpu()), results[1].to(Device::cpu())).ok);
    const Tensor a = c.transformed();
    const Tensor wanted = conv2d(a, c.weight, bias),
                 terms = conv2d(abs(a), abs(c.weight), with_bias ? abs(bias) : Tensor());
    expect_near("y", results[0], wanted, terms);
    if (!moments) continue;
    EXPECT_TRUE(testing::equal_bits(statistics[0].to(Device::cpu()), statistics[1].to(Device::cpu())).ok);
    // Of what has been stored.
    const auto y = results[0].to(Device::cpu()).to(float64).contiguous().to_vector<double>(),
               got = merged_moments(left, c.n * c.h * c.w);
    const std::int64_t plane = c.h * c.w;
    for (std::int64_t o = 0; o < c.co; ++o) {
      double sum = 0, square = 0, least = y[static_cast<std::size_t>(o * plane)], most = least;
      const auto each = [&](const auto& body) {
        for (std::int64_t i = 0; i < c.n; ++i)
          for (std::int64_t p = 0; p < plane; ++p) body(static_cast<std::size_t>((i * c.co + o) * plane + p));
      };
      each([&](std::size_t i) { sum += y[i], least = std::min(least, y[i]), most = std::max(most, y[i]); });
      const auto count = static_cast<double>(c.n * plane);
      const double mean = sum / count;
      each([&](std::size_t i) { square += (y[i] - mean) * (y[i] - mean); });
      // Matrix units cut off the ends of what they add; distances from a pivot are rounded, each its own way.
      const double variance = square / count, off = 3e-6 * std::max(std::abs(least), std::abs(most)) +
                                                    2 * roundoff(c.dtype) * (most - least) / std::sqrt(count);
      ASSERT_NEAR(got[static_cast<std::size_t>(o)], mean, off) << "mean of channel " << o;
      ASSERT_NEAR(got[static_cast<std::size_t>(c.co + o)], variance,
                  1e-5 * variance + 4 * off * std::sqrt(variance) + off * off)
          << "variance of channel " << o;
    }
  }
}

TEST(PointwiseTest, input_gradient) {
  LAMELLA_NEEDS_COPY_ENGINE();
  for (int seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    Drawn draw(seed);
    const Case c(draw);
    SCOPED_TRACE(c.text());
    const bool with_sums = draw.coin();
    const Load kind = draw.coin() ? Load::Clamp : Load::HardSwish;
    const Factors factors(c);
    const Tensor g = c.on_gpu(c.g), w = c.weight.to(c.dtype).to(Device::cuda()), z = c.on_gpu(c.z),
                 center = c.center.to(Device::cuda());
    Tensor results[2], sums[2];
    detail::LeftParts left(Device::cuda(), c.ci);
    for (int run = 0; run < 2; ++run) {
      results[run] = c.poisoned({c.n, c.ci, c.h, c.w});
      const points::NormSums of{read(z), factors.of(kind), read(center).as<float>(), &left};
      ASSERT_TRUE(
          points::backward_input({read(g), read(w), write(results[run], "test"), with_sums ? &of : nullptr}));
      sums[run] = left.tensor();
    }
    EXPECT_TRUE(testing::equal_bits(results[0].to(Device::cpu()), results[1].to(Device::cpu())).ok);
    const Tensor turned = c.weight.permute({1, 0, 2, 3}).contiguous();
    Tensor wanted = conv2d(c.g, turned);
    const Tensor terms = conv2d(abs(c.g), abs(turned));
    if (with_sums) {
      EXPECT_TRUE(testing::equal_bits(sums[0].to(Device::cpu()), sums[1].to(Device::cpu())).ok);
      auto slopes = wanted.to_vector<double>();
      // The sums are of what has been stored.
      const auto stored = results[0].to(Device::cpu()).to(float64).contiguous().to_vector<double>();
      const auto t = terms.to_vector<double>(), zs = c.z.to_vector<double>(), got = merged_sums(left),
                 centers = c.center.to(float64).to_vector<double>();
      const std::vector<float> before = c.normalised(c.z);
      const auto channels = static_cast<std::size_t>(c.ci);
      std::vector<double> first(channels), second(channels), most(channels);
      for (std::size_t i = 0; i < slopes.size(); ++i) {
        const auto of = i / static_cast<std::size_t>(c.h * c.w) % channels;
        const double v = before[i];
        if (kind == Load::Clamp)
          slopes[i] = v <= kLow || v >= kHigh ? 0 : slopes[i];
        else
          slopes[i] *= v <= -3 ? 0 : v < 3 ? v / 3 + 0.5 : 1;
        first[of] += stored[i], second[of] += stored[i] * (zs[i] - centers[of]);
        most[of] += t[i];
      }
      for (std::size_t o = 0; o < channels; ++o) {
        ASSERT_NEAR(got[o], first[o], 1e-5 * most[o]) << "sum of channel " << o;
        ASSERT_NEAR(got[channels + o], second[o], 4e-5 * most[o]) << "second sum of channel " << o;
      }
      wanted = from_vector(slopes, wanted.shape());
    }
    expect_near("dx", results[0], wanted, terms);
  }
}

TEST(PointwiseTest, weight_gradient) {
  LAMELLA_NEEDS_COPY_ENGINE();
  for (int seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    Drawn draw(seed);
    const Case c(draw);
    SCOPED_TRACE(c.text());
    const bool with_bias = draw.coin(), adds = draw.coin();
    const DType result = draw.coin() ? float32 : c.dtype;
    const Factors factors(c);
    const Tensor x = c.on_gpu(c.x), g = c.on_gpu(c.g);
    const double old = adds ? 2 : std::numeric_limits<double>::quiet_NaN();
    Tensor weights[2], biases[2];
    for (int run = 0; run < 2; ++run) {
      // Strides that are not those of [Co,Ci].
      weights[run] =
          full({c.ci, c.co, 1, 1}, old, {.dtype = result, .device = Device::cuda()}).permute({1, 0, 2, 3});
      biases[run] = full({c.co}, old, {.dtype = result, .device = Device::cuda()});
      points::WeightOperands o;
      o.grad_output = read(g), o.input = read(x), o.transform = factors.of(c.load);
      o.grad_weight = write(weights[run], "test");
      if (with_bias) o.grad_bias = write(biases[run], "test");
      o.weight_write = o.bias_write = adds ? GradientWrite::Accumulate : GradientWrite::Overwrite;
      ASSERT_TRUE(points::backward_weight(o));
    }
    EXPECT_TRUE(testing::equal_bits(weights[0].contiguous().to(Device::cpu()),
                                    weights[1].contiguous().to(Device::cpu()))
                    .ok);
    const auto gradients = [&](const Tensor& a, const Tensor& of) {
      Tensor w = c.weight.clone(), b = c.bias.clone();
      w.set_requires_grad(true), b.set_requires_grad(true);
      conv2d(a, w, b).backward(of);
      return std::pair{w.grad(), b.grad()};
    };
    const Tensor a = c.transformed(), before = scalar(adds ? 2 : 0, {.dtype = float64});
    const auto wanted = gradients(a, c.g), terms = gradients(abs(a), abs(c.g));
    expect_near("dw", weights[0].contiguous(), add(wanted.first, before), terms.first);
    if (with_bias) expect_near("db", biases[0], add(wanted.second, before), terms.second);
  }
}

TEST(PointwiseTest, what_it_cannot_do_is_left_alone) {
  LAMELLA_NEEDS_COPY_ENGINE();
  const auto forward = [](std::int64_t channels, DType dtype, MemoryFormat format) {
    const Tensor x = zeros({2, channels, 4, 4}, {.dtype = dtype, .device = Device::cuda(), .format = format}),
                 w = zeros({16, channels, 1, 1}, {.dtype = dtype, .device = Device::cuda()}),
                 y = zeros({2, 16, 4, 4}, {.dtype = dtype, .device = Device::cuda(), .format = format});
    points::ForwardOperands o;
    o.input = read(x), o.weight = read(w), o.output = write(y, "test");
    return points::forward(o);
  };
  EXPECT_TRUE(forward(8, bfloat16, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(12, bfloat16, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(8, bfloat16, MemoryFormat::Contiguous));
  EXPECT_FALSE(forward(8, float32, MemoryFormat::ChannelsLast));
}

}  // namespace
}  // namespace lamella::test
