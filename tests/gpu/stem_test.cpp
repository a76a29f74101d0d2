#include "layers/conv/cuda/stem/stem.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "devices.h"
#include "lamella/lamella.h"
#include "tensor/door.h"
#include "tensor/moments.h"

// The kernels for images of few channels on the GPU against conv2d() on the CPU in float64.
namespace lamella::test {
namespace {

namespace stem = cuda::stem;
using detail::GradientWrite;
using detail::read;
using detail::write;

constexpr int kSeeds = 60;

struct Drawn {
  std::mt19937 engine;
  explicit Drawn(int seed) : engine(static_cast<unsigned>(seed)) {}
  std::int64_t between(std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(most - least + 1));
  }
  bool coin() { return between(0, 1) == 1; }
};

/// A problem and its tensors, on the CPU in float64. `image` is rounded to the type in which it is stored,
/// `x` to that in which it is multiplied.
struct Case {
  DType dtype, stored;
  MemoryFormat format;
  std::int64_t n, c, h, w, outputs;
  Size2 kernel, stride, padding;
  Tensor image, x, weight, bias, g;
  Conv2dGeometry geometry;

  explicit Case(Drawn& draw)
      : dtype(draw.between(0, 2) == 0 ? float32
              : draw.coin()           ? bfloat16
                                      : float16),
        stored(draw.coin() ? dtype : float32),
        format(draw.between(0, 3) == 0 ? MemoryFormat::Contiguous : MemoryFormat::ChannelsLast),
        n(draw.between(1, 5)),
        c(draw.coin() ? 3 : draw.between(1, 4)),
        outputs(8 * draw.between(1, 8)),
        kernel(draw.coin() ? 3 : draw.between(1, 5)),
        stride(draw.between(1, 2)),
        padding(draw.between(0, 2)) {
    if (draw.between(0, 3) == 0)
      kernel = {draw.between(1, 5), draw.between(1, 5)}, stride = {draw.between(1, 3), draw.between(1, 3)};
    if (dtype == float32) {
      c = draw.coin() ? 3 : 1, kernel = 3;
      stride.w = std::min<std::int64_t>(stride.w, 2);
    }
    h = draw.between(kernel.h, 70), w = draw.coin() ? draw.between(kernel.w, 70) : draw.between(100, 300);
    const auto seed = static_cast<std::uint64_t>(draw.between(1, 1 << 20));
    const auto random = [&](const Shape& shape, std::uint64_t more, DType type) {
      return testing::random_tensor(shape, seed + more, {.dtype = float64}).to(type).to(float64);
    };
    image = random({n, c, h, w}, 0, stored);
    x = image.to(dtype).to(float64);
    weight = random({outputs, c, kernel.h, kernel.w}, 1, dtype), bias = random({outputs}, 2, dtype);
    geometry = make_conv2d_geometry("conv2d", image.shape(), weight.shape(), stride, padding, 1, 1);
    g = random(geometry.output_shape(), 3, dtype);
  }
  Conv2dOptions options() const { return {.stride = stride, .padding = padding}; }
  std::string text() const {
    return std::to_string(n) + " x " + std::to_string(c) + " x " + std::to_string(h) + " x " +
           std::to_string(w) + " in " + name(stored) + ", " + std::to_string(outputs) + " outputs in " +
           name(dtype) + ", kernel " + std::to_string(kernel.h) + " x " + std::to_string(kernel.w) +
           ", stride " + std::to_string(stride.h) + " x " + std::to_string(stride.w) + ", padding " +
           std::to_string(padding.h);
  }
  Tensor on_gpu() const { return image.to(stored).contiguous(format).to(Device::cuda()); }
  Tensor gradient_on_gpu() const {
    return g.to(dtype).contiguous(MemoryFormat::ChannelsLast).to(Device::cuda());
  }
};

/// |got − wanted| within a rounding of the type, and of sums of `terms` in float32. `exact`: their norm is
/// below a millionth of the wanted one's.
void expect_near(const std::string& what, const Tensor& got, const Tensor& wanted, const Tensor& terms,
                 bool exact) {
  const auto a = got.to(Device::cpu()).to_vector<double>(), b = wanted.to_vector<double>(),
             t = terms.to_vector<double>();
  const double unit = roundoff(got.dtype());
  constexpr double kSums = 1e-5, kSmallest = 1e-7;
  ASSERT_EQ(a.size(), b.size()) << what;
  double off = 0, all = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_LE(std::abs(a[i] - b[i]), 1.01 * unit * std::abs(b[i]) + kSums * t[i] + kSmallest)
        << what << ", number " << i << " is " << a[i] << " instead of " << b[i];
    off += (a[i] - b[i]) * (a[i] - b[i]), all += b[i] * b[i];
  }
  if (exact) {
    ASSERT_LE(std::sqrt(off), 1e-6 * std::sqrt(all)) << what;
  }
}

/// Mean and biased variance of a channel, of parts of three numbers.
std::pair<double, double> merged(const Tensor& parts, std::int64_t channel) {
  const auto all = parts.to(Device::cpu()).to_vector<double>();
  double before = 0, mean = 0, m2 = 0;
  for (std::int64_t part = 0; part < parts.size(0); ++part) {
    const auto at = [&](int number) {
      return all[static_cast<std::size_t>((part * 3 + number) * parts.size(2) + channel)];
    };
    const double both = before + at(0), apart = at(1) - mean;
    m2 += at(2) + apart * apart * before * at(0) / both;
    mean += apart * at(0) / both;
    before = both;
  }
  return {mean, m2 / before};
}

TEST(StemTest, forward) {
  LAMELLA_NEEDS_GPU();
  for (int seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    Drawn draw(seed);
    const Case c(draw);
    SCOPED_TRACE(c.text());
    // A mean that is far from zero, a thousand deviations of some channels.
    const double far = draw.coin() ? 1000 : 0;
    const bool with_bias = far != 0 || draw.coin(), moments = draw.coin();
    const Tensor bias =
        with_bias ? add(c.bias, scalar(far, {.dtype = float64})).to(float32).to(float64) : Tensor();
    const Tensor image = c.on_gpu(), weight = c.weight.to(draw.coin() ? float32 : c.dtype).to(Device::cuda()),
                 b = with_bias ? bias.to(float32).to(Device::cuda()) : Tensor();
    Tensor results[2], statistics[2];
    for (int run = 0; run < 2; ++run) {
      results[run] = full(c.geometry.output_shape(), std::numeric_limits<double>::quiet_NaN(),
                          {.dtype = c.dtype, .device = Device::cuda(), .format = MemoryFormat::ChannelsLast});
      detail::LeftParts left(Device::cuda(), c.outputs);
      ASSERT_TRUE(stem::forward(c.geometry,
                                {read(image), read(weight), with_bias ? read(b) : detail::ConstTensorView{},
                                 write(results[run], "test"), moments ? &left : nullptr}));
      statistics[run] = left.tensor();
    }
    EXPECT_TRUE(testing::equal_bits(results[0].to(Device::cpu()), results[1].to(Device::cpu())).ok);
    const Tensor wanted = conv2d(c.x, c.weight, bias, c.options()),
                 terms = conv2d(abs(c.x), abs(c.weight), with_bias ? abs(bias) : Tensor(), c.options());
    expect_near("y", results[0], wanted, terms, c.dtype == float32);
    if (!moments) continue;
    EXPECT_TRUE(testing::equal_bits(statistics[0].to(Device::cpu()), statistics[1].to(Device::cpu())).ok);
    const auto y = wanted.to_vector<double>(), t = terms.to_vector<double>();
    const auto plane = static_cast<std::size_t>(c.geometry.out.h * c.geometry.out.w);
    for (std::int64_t o = 0; o < c.outputs; ++o) {
      double sum = 0, square = 0, most = 0;
      const auto each = [&](const auto& body) {
        for (std::size_t i = 0; i < static_cast<std::size_t>(c.n); ++i)
          for (std::size_t p = 0; p < plane; ++p)
            body((i * static_cast<std::size_t>(c.outputs) + static_cast<std::size_t>(o)) * plane + p);
      };
      each([&](std::size_t i) { sum += y[i], most = std::max(most, t[i]); });
      const double count = static_cast<double>(c.n) * static_cast<double>(plane), mean = sum / count;
      each([&](std::size_t i) { square += (y[i] - mean) * (y[i] - mean); });
      const auto [got_mean, got_variance] = merged(statistics[0], o);
      const double variance = square / count, off = 3e-6 * most;
      ASSERT_NEAR(got_mean, mean, off) << "mean of channel " << o;
      ASSERT_NEAR(got_variance, variance, 1e-5 * variance + 4 * off * std::sqrt(variance) + off * off)
          << "variance of channel " << o;
    }
  }
}

TEST(StemTest, weight_gradient) {
  LAMELLA_NEEDS_GPU();
  for (int seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    Drawn draw(seed);
    const Case c(draw);
    SCOPED_TRACE(c.text());
    const bool adds = draw.coin();
    const DType result = draw.coin() ? float32 : c.dtype;
    const Tensor image = c.on_gpu(), g = c.gradient_on_gpu();
    Tensor weights[2];
    for (Tensor& weight : weights) {
      // Strides that are not those of [Co,Ci,kh,kw].
      weight =
          full({c.c, c.outputs, c.kernel.h, c.kernel.w}, adds ? 2 : std::numeric_limits<double>::quiet_NaN(),
               {.dtype = result, .device = Device::cuda()})
              .permute({1, 0, 2, 3});
      ASSERT_TRUE(stem::backward_weight(
          c.geometry, {read(g), read(image), write(weight, "test"),
                       adds ? GradientWrite::Accumulate : GradientWrite::Overwrite, nullptr}));
    }
    EXPECT_TRUE(testing::equal_bits(weights[0].contiguous().to(Device::cpu()),
                                    weights[1].contiguous().to(Device::cpu()))
                    .ok);
    const auto gradient = [&](const Tensor& x, const Tensor& of) {
      Tensor weight = c.weight.clone();
      weight.set_requires_grad(true);
      conv2d(x, weight, {}, c.options()).backward(of);
      return weight.grad();
    };
    expect_near("dw", weights[0].contiguous(),
                add(gradient(c.x, c.g), scalar(adds ? 2 : 0, {.dtype = float64})),
                gradient(abs(c.x), abs(c.g)), c.dtype == float32);
  }
}

/// The results of a convolution and a norm: output, gradients of the weight and of the image if it wants one.
std::vector<Tensor> results_of(const Tensor& image, const Tensor& weight, bool image_gradient) {
  Tensor x = image.detach(), w = weight.clone();
  w.set_requires_grad(true);
  if (image_gradient) x.set_requires_grad(true);
  const Autocast autocast(bfloat16);
  const Tensor y = conv2d(x, w, {}, {.stride = 2, .padding = 1});
  EXPECT_EQ(y.dtype(), bfloat16);
  EXPECT_EQ(y.memory_format(), MemoryFormat::ChannelsLast);
  y.backward(testing::random_tensor(y.shape(), 3, {.dtype = float32}).to(Device::cuda()).to(bfloat16));
  std::vector<Tensor> results{y.detach().to(Device::cpu()), w.grad().to(Device::cpu())};
  if (image_gradient) results.push_back(x.grad().to(Device::cpu()));
  return results;
}

TEST(StemTest, a_rounded_image_gives_the_same_bits_under_autocast) {
  LAMELLA_NEEDS_GPU();
  const Tensor image = testing::random_tensor({3, 3, 37, 41}, 1, {.dtype = float32})
                           .contiguous(MemoryFormat::ChannelsLast)
                           .to(Device::cuda()),
               weight = testing::random_tensor({24, 3, 3, 3}, 2, {.dtype = float32}).to(Device::cuda());
  const auto direct = results_of(image, weight, false), first = results_of(image.to(bfloat16), weight, false),
             with_image = results_of(image, weight, true);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(testing::equal_bits(direct[i], first[i]).ok);
    // That image goes another way.
    EXPECT_TRUE(testing::all_close(direct[i].to(float32), with_image[i].to(float32),
                                   {.relative = 1e-2, .absolute = 1e-1})
                    .ok);
  }
  EXPECT_EQ(with_image[2].dtype(), float32);
}

TEST(StemTest, sizes_without_a_kernel_take_the_other_way_under_autocast) {
  LAMELLA_NEEDS_GPU();
  const Tensor image = testing::random_tensor({2, 3, 20, 21}, 1, {.dtype = float32})
                           .contiguous(MemoryFormat::ChannelsLast)
                           .to(Device::cuda()),
               weight = testing::random_tensor({10, 3, 3, 3}, 2, {.dtype = float32}).to(Device::cuda());
  const auto direct = results_of(image, weight, false), first = results_of(image.to(bfloat16), weight, false);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(testing::equal_bits(direct[i], first[i]).ok);
}

// So many pixels that a thread's sums are long.
TEST(StemTest, a_large_weight_gradient_is_exact_in_float32) {
  LAMELLA_NEEDS_GPU();
  const Tensor x = testing::random_tensor({64, 3, 224, 224}, 1, {.dtype = float32})
                       .contiguous(MemoryFormat::ChannelsLast),
               g = testing::random_tensor({64, 32, 112, 112}, 2, {.dtype = float32})
                       .contiguous(MemoryFormat::ChannelsLast);
  const auto gradient = [&](const Tensor& image, const Tensor& of) {
    Tensor weight = zeros({32, 3, 3, 3}, {.dtype = image.dtype(), .device = image.device()});
    weight.set_requires_grad(true);
    conv2d(image, weight, {}, {.stride = 2, .padding = 1}).backward(of);
    return weight.grad().to(Device::cpu()).to(float64).to_vector<double>();
  };
  const auto wanted = gradient(x.to(float64), g.to(float64)),
             got = gradient(x.to(Device::cuda()), g.to(Device::cuda()));
  double off = 0, all = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    off += (got[i] - wanted[i]) * (got[i] - wanted[i]), all += wanted[i] * wanted[i];
  EXPECT_LE(std::sqrt(off), 1e-6 * std::sqrt(all));
}

// Also where TF32 is allowed; and the norm behind it finds moments.
TEST(StemTest, float32_leaves_moments_and_is_not_rounded_to_tf32) {
  LAMELLA_NEEDS_GPU();
  const Tensor image = testing::random_tensor({3, 3, 37, 41}, 1, {.dtype = float32})
                           .contiguous(MemoryFormat::ChannelsLast)
                           .to(Device::cuda()),
               weight = testing::random_tensor({24, 3, 3, 3}, 2, {.dtype = float32}).to(Device::cuda()),
               bias = testing::random_tensor({24}, 3, {.dtype = float32}).to(Device::cuda());
  const auto results = [&](bool tf32, bool image_gradient) {
    const bool before = allow_tf32();
    set_allow_tf32(tf32);
    Tensor x = image.detach(), w = weight.clone(), b = bias.clone();
    w.set_requires_grad(true), b.set_requires_grad(true);
    if (image_gradient) x.set_requires_grad(true);
    Tensor y;
    {
      const detail::MomentsRequest request(true);
      y = conv2d(x, w, b, {.stride = 2, .padding = 1});
    }
    EXPECT_TRUE(detail::moments_of(y).parts.defined());
    y.backward(testing::random_tensor(y.shape(), 4, {.dtype = float32}).to(Device::cuda()));
    set_allow_tf32(before);
    return Tensors{y.detach().to(Device::cpu()), w.grad().to(Device::cpu()), b.grad().to(Device::cpu())};
  };
  const Tensors plain = results(false, false);
  for (const bool image_gradient : {false, true}) {
    const Tensors tf32 = results(true, image_gradient);
    for (std::size_t i = 0; i < plain.size(); ++i)
      EXPECT_TRUE(testing::equal_bits(plain[i], tf32[i]).ok) << i;
  }
}

TEST(StemTest, nan_stays_in_its_place) {
  LAMELLA_NEEDS_GPU();
  for (const std::int64_t width : {41, 42, 55})
    for (const std::int64_t stride : {1, 2}) {
      Tensor image = testing::random_tensor({2, 3, 37, width}, 1, {.dtype = float64});
      for (const auto& [y, x] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {36, width - 1}, {17, 20}})
        image.select(0, 1).select(0, 2).select(0, y).select(0, x).fill_(
            std::numeric_limits<double>::quiet_NaN());
      const Tensor weight = testing::random_tensor({16, 3, 3, 3}, 2, {.dtype = float64});
      const auto results = [&](DType dtype, Device device) {
        const Tensor x = image.to(dtype).contiguous(MemoryFormat::ChannelsLast).to(device);
        Tensor w = weight.to(dtype).to(device).clone();
        w.set_requires_grad(true);
        const Tensor y = conv2d(x, w, {}, {.stride = stride, .padding = 0});
        y.backward(ones(y.shape(), {.dtype = dtype, .device = device}));
        return std::pair(y.detach().contiguous().to(Device::cpu()).to(float64).to_vector<double>(),
                         w.grad().contiguous().to(Device::cpu()).to(float64).to_vector<double>());
      };
      const auto wanted = results(float64, Device::cpu()), got = results(float32, Device::cuda());
      for (std::size_t i = 0; i < wanted.first.size(); ++i)
        ASSERT_EQ(std::isnan(got.first[i]), std::isnan(wanted.first[i])) << "y, number " << i;
      for (std::size_t i = 0; i < wanted.second.size(); ++i)
        ASSERT_EQ(std::isnan(got.second[i]), std::isnan(wanted.second[i])) << "dw, number " << i;
    }
}

TEST(StemTest, what_it_cannot_do_is_left_alone) {
  LAMELLA_NEEDS_GPU();
  const auto forward = [](std::int64_t channels, std::int64_t outputs, DType dtype, MemoryFormat format) {
    const Tensor x = zeros({2, channels, 9, 9}, {.dtype = dtype, .device = Device::cuda(), .format = format}),
                 w = zeros({outputs, channels, 3, 3}, {.dtype = dtype, .device = Device::cuda()}),
                 y = zeros({2, outputs, 5, 5}, {.dtype = dtype, .device = Device::cuda(), .format = format});
    return stem::forward(make_conv2d_geometry("conv2d", x.shape(), w.shape(), 2, 1, 1, 1),
                         {read(x), read(w), {}, write(y, "test"), nullptr});
  };
  EXPECT_TRUE(forward(3, 16, bfloat16, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(5, 16, bfloat16, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(3, 12, bfloat16, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(3, 16, bfloat16, MemoryFormat::Contiguous));
  EXPECT_TRUE(forward(3, 16, float32, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(2, 16, float32, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(3, 12, float32, MemoryFormat::ChannelsLast));
  EXPECT_FALSE(forward(3, 16, float32, MemoryFormat::Contiguous));
  EXPECT_FALSE(forward(3, 16, float64, MemoryFormat::ChannelsLast));
}

}  // namespace
}  // namespace lamella::test
