#include <string>
#include <vector>

#include "layers/conv/cuda/stem/cut.h"
#include "layers/conv/cuda/stem/device/stem_multiply.cuh"
#include "layers/conv/cuda/stem/device/stem_multiply32.cuh"
#include "layers/conv/cuda/stem/device/stem_weigh.cuh"
#include "layers/conv/cuda/stem/device/stem_weigh32.cuh"
#include "pointwise_case.h"

namespace lamella::stem::checks {
namespace {

using pointwise::checks::Draw;
using pointwise::checks::floats;
using pointwise::checks::Matrix;
using pointwise::checks::rounded;

constexpr unsigned kSeeds = 6;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Window {
  int channels, outputs, kernel, stride, padding;
  int least_rows = 1;  ///< of the kernel
};

/// Sizes around a window, numbers, and what the definition makes of them. Numbers are small multiples of a
/// power of two: sums of their products are exact.
struct Case {
  Sizes sizes;
  std::vector<double> image, weight, bias, gradient;

  Case(Draw& draw, const Window& w) {
    Sizes& s = sizes;
    s.channels = w.channels, s.outputs = w.outputs;
    s.kernel_h = w.kernel, s.kernel_w = w.kernel, s.stride_h = s.stride_w = w.stride;
    s.pad_h = w.padding, s.pad_w = w.padding;
    if (draw.one_in(4)) s.kernel_h = draw(w.least_rows, w.kernel), s.pad_w = draw(0, w.padding);
    if (draw.one_in(6)) s.stride_h = draw(1, 3);
    s.batch = draw(1, 3);
    s.in_h = draw(s.kernel_h, 21);
    s.in_w = draw.one_in(3) ? draw(130, 300) : draw(s.kernel_w, 50);
    s.out_h = (s.in_h + 2 * s.pad_h - s.kernel_h) / s.stride_h + 1;
    s.out_w = (s.in_w + 2 * s.pad_w - s.kernel_w) / s.stride_w + 1;
    image = draw.numbers(s.batch * s.in_h * s.in_w * s.channels);
    weight = draw.numbers(std::int64_t{s.outputs} * s.numbers());
    bias = draw.numbers(s.outputs);
    gradient = draw.numbers(pixels() * s.outputs);
    EXPECT_TRUE(fits(s));
  }
  std::int64_t pixels() const { return sizes.batch * sizes.out_h * sizes.out_w; }
  std::string text() const {
    const Sizes& s = sizes;
    return std::to_string(s.batch) + " images of " + std::to_string(s.in_h) + " x " + std::to_string(s.in_w) +
           ", kernel " + std::to_string(s.kernel_h) + " x " + std::to_string(s.kernel_w) + ", stride " +
           std::to_string(s.stride_h) + " x " + std::to_string(s.stride_w);
  }
  /// meet(output pixel, image number or -1, weight number of output 0) for everything that is multiplied.
  template <class Meet>
  void each(const Meet& meet) const {
    const Sizes& s = sizes;
    std::int64_t pixel = 0;
    for (std::int64_t n = 0; n < s.batch; ++n)
      for (int a = 0; a < s.out_h; ++a)
        for (int b = 0; b < s.out_w; ++b, ++pixel)
          for (int c = 0; c < s.channels; ++c)
            for (int i = 0; i < s.kernel_h; ++i)
              for (int j = 0; j < s.kernel_w; ++j) {
                const int y = a * s.stride_h - s.pad_h + i, x = b * s.stride_w - s.pad_w + j;
                if (y < 0 || y >= s.in_h || x < 0 || x >= s.in_w) continue;
                meet(static_cast<std::size_t>(pixel),
                     static_cast<std::size_t>(((n * s.in_h + y) * s.in_w + x) * s.channels + c),
                     static_cast<std::size_t>((c * s.kernel_h + i) * s.kernel_w + j));
              }
  }
};

/// The image in memory, of X, in either format. AddressSanitizer watches over its ends.
template <class X>
class Memory {
 public:
  Memory(const Case& c, bool channels_last) : numbers_(c.image.size()) {
    const Sizes& s = c.sizes;
    const int plane = s.in_h * s.in_w;
    image_.is_float32 = sizeof(X) == 4;
    image_.image_step = Int64{plane} * s.channels;
    image_.channel_step = channels_last ? 1 : plane;
    image_.row_step = channels_last ? s.in_w * s.channels : s.in_w;
    image_.pixel_step = channels_last ? s.channels : 1;
    std::size_t i = 0;
    for (Int64 n = 0; n < s.batch; ++n)
      for (int y = 0; y < s.in_h; ++y)
        for (int x = 0; x < s.in_w; ++x)
          for (int ch = 0; ch < s.channels; ++ch)
            numbers_[static_cast<std::size_t>(n * image_.image_step + ch * image_.channel_step +
                                              y * image_.row_step + x * image_.pixel_step)] =
                narrow<X>(static_cast<float>(c.image[i++]));
    image_.data = numbers_.data();
  }
  const Image& image() const { return image_; }

 private:
  std::vector<X> numbers_;
  Image image_;
};

/// run(work): a kernel for T of what `cut` makes of the sizes.
template <class T, class X, class Run>
void multiply(const Window& window, bool channels_last, Cut (*cut)(const Sizes&), const Run& run) {
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    Draw draw(seed);
    Case c(draw, window);
    // Numbers that the image's rounding changes, where there are few enough that sums stay exact.
    if (sizeof(X) == 4)
      for (double& number : c.image) number = draw.one_in(3) ? number + 0x1p-14 : number;
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.text());
    const Sizes& s = c.sizes;
    const Memory<X> memory(c, channels_last);
    Matrix<T> output(c.pixels(), s.outputs);
    const bool with_bias = draw.one_in(2);
    MultiplyWork work;
    work.sizes = s;
    work.cut = cut(s);
    work.cut.parts = std::min(work.cut.parts, draw(1, 9));
    work.image = memory.image();
    const std::vector<float> weight = floats(c.weight), bias = floats(c.bias);
    work.weight = weight.data(), work.weight_is_float32 = true;
    work.weight_steps[0] = s.numbers(), work.weight_steps[1] = s.taps();
    work.weight_steps[2] = s.kernel_w, work.weight_steps[3] = 1;
    if (with_bias) work.bias = bias.data(), work.bias_is_float32 = true;
    work.output = output.data();
    const auto outputs = static_cast<std::size_t>(s.outputs);
    std::vector<double> moments(static_cast<std::size_t>(work.cut.parts) * 3 * outputs, kNaN);
    if (!draw.one_in(3)) work.moments = moments.data();
    run(work);

    std::vector<double> wanted(static_cast<std::size_t>(c.pixels()) * outputs);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = with_bias ? c.bias[i % outputs] : 0;
    c.each([&](std::size_t pixel, std::size_t number, std::size_t of_window) {
      for (std::size_t o = 0; o < outputs; ++o)
        wanted[pixel * outputs + o] +=
            rounded<T>(c.image[number]) * c.weight[o * static_cast<std::size_t>(s.numbers()) + of_window];
    });
    output.expect("output", wanted);
    if (work.moments == nullptr) continue;
    for (std::size_t o = 0; o < outputs; ++o) {
      double sum = 0, count = 0, mean = 0, m2 = 0;
      for (std::size_t i = o; i < wanted.size(); i += outputs) sum += wanted[i];
      const double middle = sum / static_cast<double>(c.pixels());
      double square = 0;
      for (std::size_t i = o; i < wanted.size(); i += outputs)
        square += (wanted[i] - middle) * (wanted[i] - middle);
      for (std::size_t part = 0; part < static_cast<std::size_t>(work.cut.parts); ++part) {
        const double* const of = moments.data() + part * 3 * outputs + o;
        const double both = count + of[0], apart = of[outputs] - mean;
        m2 += of[2 * outputs] + apart * apart * count * of[0] / both;
        mean += apart * of[0] / both, count = both;
      }
      ASSERT_EQ(count, static_cast<double>(c.pixels()));
      ASSERT_NEAR(mean, middle, 1e-5) << "channel " << o;
      ASSERT_NEAR(m2, square, 1e-5 * (square + 1)) << "channel " << o;
    }
  }
}

template <class Work>
void run_kernel(const Work& work, void (*kernel)(Work)) {
  emulated::run(std::int64_t{work.cut.parts} * work.cut.groups, kThreads,
                static_cast<std::size_t>(work.cut.shared_bytes), [&] { kernel(work); });
}
template <class T, class X, int kSteps, int kEights>
void multiply(const Window& window, bool channels_last = true) {
  multiply<T, X>(window, channels_last, cut_multiply, [](const MultiplyWork& work) {
    ASSERT_LE(window_steps(work.sizes), kSteps);
    ASSERT_EQ(output_eights(work.sizes), kEights);
    run_kernel(work, multiply_windows<T, kSteps, kEights>);
  });
}
template <int kChannels, int kStride, int kEights>
void multiply32(const Window& window, bool channels_last = true) {
  multiply<float, float>(window, channels_last, cut_multiply32, [](const MultiplyWork& work) {
    ASSERT_TRUE(fits_float32(work.sizes));
    ASSERT_EQ(output_eights(work.sizes), kEights);
    run_kernel(work, multiply_windows32<kChannels, kStride, kEights>);
  });
}

/// weigh_windows() with a kernel that may be larger than the sizes want.
template <class T, int kEights, int kSixteens>
void run_weigh(const WeighWork& work) {
  const int bytes = std::max(work.cut.shared_bytes, 4 * 16 * kSixteens * 8 * kEights);
  emulated::run(std::int64_t{work.cut.parts} * work.cut.groups, kThreads, static_cast<std::size_t>(bytes),
                [&] { weigh_windows<T, kEights, kSixteens>(work); });
}

template <class T, class X, class Run>
void weigh(const Window& window, bool channels_last, Cut (*cut)(const Sizes&), const Run& run) {
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    Draw draw(seed);
    const Case c(draw, window);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.text());
    const Sizes& s = c.sizes;
    const Memory<X> memory(c, channels_last);
    Matrix<T> gradient(c.pixels(), s.outputs);
    gradient.fill(c.gradient);
    WeighWork work;
    work.sizes = s;
    work.cut = cut(s);
    work.cut.parts = std::min(work.cut.parts, draw(1, 9));
    work.image = memory.image();
    work.gradient = gradient.data();
    const auto numbers = static_cast<std::size_t>(s.numbers()), outputs = static_cast<std::size_t>(s.outputs);
    std::vector<float> parts(static_cast<std::size_t>(work.cut.parts) * outputs * numbers,
                             static_cast<float>(kNaN));
    work.parts = parts.data();
    run(work);

    std::vector<double> wanted(outputs * numbers);
    c.each([&](std::size_t pixel, std::size_t number, std::size_t of_window) {
      for (std::size_t o = 0; o < outputs; ++o)
        wanted[o * numbers + of_window] += c.gradient[pixel * outputs + o] * c.image[number];
    });
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      double sum = 0;
      for (std::size_t part = 0; part < static_cast<std::size_t>(work.cut.parts); ++part)
        sum += static_cast<double>(parts[part * outputs * numbers + i]);
      ASSERT_EQ(sum, wanted[i]) << "output " << i / numbers << ", number " << i % numbers;
    }
  }
}

template <class T, class X, int kEights, int kSixteens>
void weigh(const Window& window, bool channels_last = true) {
  weigh<T, X>(window, channels_last, cut_weigh, [](const WeighWork& work) {
    ASSERT_LE(ceiling(work.sizes.numbers(), 8), kEights);
    ASSERT_EQ(output_eights(work.sizes), 2 * kSixteens);
    run_weigh<T, kEights, kSixteens>(work);
  });
}
template <int kChannels, int kStride, int kQuads>
void weigh32(const Window& window, bool channels_last = true) {
  weigh<float, float>(window, channels_last, cut_weigh32, [](const WeighWork& work) {
    ASSERT_TRUE(fits_float32(work.sizes));
    ASSERT_EQ(2 * output_eights(work.sizes), kQuads);
    run_kernel(work, weigh_windows32<kChannels, kStride, kQuads>);
  });
}

constexpr Window kStem{3, 32, 3, 2, 1};

/// A pixel that is no number is seen by those whose windows have it, and by no others.
template <class Run>
void with_nan(const Window& window, const Run& run) {
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    Draw draw(seed);
    Case c(draw, window);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.text());
    for (int i = 0; i < 3; ++i)
      c.image[static_cast<std::size_t>(draw(0, static_cast<int>(c.image.size()) - 1))] = kNaN;
    // One in a last column, which pixels behind the last one would see.
    c.image[static_cast<std::size_t>(draw(1, c.sizes.in_h) * c.sizes.in_w * c.sizes.channels - 1)] = kNaN;
    const Memory<float> memory(c, true);
    run(c, memory.image());
  }
}
template <class T>
void multiply_nan(const Window& window, Cut (*cut)(const Sizes&), void (*kernel)(MultiplyWork)) {
  with_nan(window, [&](const Case& c, const Image& image) {
    Matrix<T> output(c.pixels(), c.sizes.outputs);
    const std::vector<float> weight = floats(c.weight);
    MultiplyWork work;
    work.sizes = c.sizes, work.cut = cut(c.sizes), work.image = image;
    work.weight = weight.data(), work.weight_is_float32 = true;
    work.weight_steps[0] = c.sizes.numbers(), work.weight_steps[1] = c.sizes.taps();
    work.weight_steps[2] = c.sizes.kernel_w, work.weight_steps[3] = 1;
    work.output = output.data();
    run_kernel(work, kernel);
    std::vector<bool> wanted(static_cast<std::size_t>(c.pixels()));
    c.each([&](std::size_t pixel, std::size_t number, std::size_t) {
      if (std::isnan(c.image[number])) wanted[pixel] = true;
    });
    for (std::size_t pixel = 0; pixel < wanted.size(); ++pixel)
      for (int o = 0; o < c.sizes.outputs; ++o)
        ASSERT_EQ(std::isnan(output.at(static_cast<std::int64_t>(pixel) * c.sizes.outputs + o)),
                  wanted[pixel])
            << "pixel " << pixel;
  });
}
template <class T, class Run>
void weigh_nan(const Window& window, Cut (*cut)(const Sizes&), const Run& run) {
  with_nan(window, [&](const Case& c, const Image& image) {
    Matrix<T> gradient(c.pixels(), c.sizes.outputs);
    gradient.fill(c.gradient);
    WeighWork work;
    work.sizes = c.sizes, work.cut = cut(c.sizes), work.image = image;
    work.cut.parts = 1;
    work.gradient = gradient.data();
    const auto numbers = static_cast<std::size_t>(c.sizes.numbers());
    std::vector<float> parts(static_cast<std::size_t>(c.sizes.outputs) * numbers);
    work.parts = parts.data();
    run(work);
    std::vector<bool> wanted(numbers);
    c.each([&](std::size_t, std::size_t number, std::size_t of_window) {
      if (std::isnan(c.image[number])) wanted[of_window] = true;
    });
    for (std::size_t i = 0; i < parts.size(); ++i)
      ASSERT_EQ(std::isnan(parts[i]), wanted[i % numbers]) << "number " << i % numbers;
  });
}

TEST(StemMultiply, mobilenet) { multiply<BFloat16, float, 2, 4>(kStem); }
TEST(StemMultiply, sixteen_bits) { multiply<Float16, Float16, 2, 2>({3, 16, 3, 2, 1}); }
TEST(StemMultiply, stride_1) { multiply<BFloat16, BFloat16, 3, 4>({3, 24, 3, 1, 1}); }
TEST(StemMultiply, one_channel) { multiply<BFloat16, float, 2, 2>({1, 8, 3, 1, 1}); }
TEST(StemMultiply, one_channel_by_words) { multiply<BFloat16, BFloat16, 2, 4>({1, 40, 5, 2, 2}); }
TEST(StemMultiply, two_channels) { multiply<BFloat16, BFloat16, 2, 4>({2, 32, 3, 3, 0}); }
TEST(StemMultiply, four_channels) { multiply<Float16, float, 3, 4>({4, 64, 3, 2, 1}); }
TEST(StemMultiply, large_kernel) { multiply<BFloat16, float, 7, 4>({3, 32, 5, 2, 2}); }
TEST(StemMultiply, row_major) { multiply<BFloat16, float, 2, 4>(kStem, false); }

TEST(StemWeigh, mobilenet) { weigh<BFloat16, float, 4, 2>(kStem); }
TEST(StemWeigh, sixteen_bits) { weigh<Float16, Float16, 4, 1>({3, 16, 3, 2, 1}); }
TEST(StemWeigh, stride_1) { weigh<BFloat16, BFloat16, 4, 2>({3, 24, 3, 1, 1}); }
TEST(StemWeigh, one_channel) { weigh<BFloat16, float, 4, 1>({1, 8, 3, 1, 1}); }
TEST(StemWeigh, four_channels) { weigh<Float16, float, 5, 2>({4, 64, 3, 2, 1}); }
TEST(StemWeigh, large_kernel) { weigh<BFloat16, float, 13, 2>({3, 32, 5, 2, 2}); }
TEST(StemWeigh, row_major) { weigh<BFloat16, float, 4, 2>(kStem, false); }

TEST(StemMultiply32, mobilenet) { multiply32<3, 2, 4>({3, 32, 3, 2, 1, 3}); }
TEST(StemMultiply32, few_outputs) { multiply32<3, 2, 2>({3, 16, 3, 2, 1, 3}); }
TEST(StemMultiply32, idle_lanes) { multiply32<3, 2, 4>({3, 24, 3, 2, 0, 3}); }
TEST(StemMultiply32, two_groups) { multiply32<3, 1, 4>({3, 40, 3, 1, 1, 3}); }
TEST(StemMultiply32, stride_1) { multiply32<3, 1, 2>({3, 8, 3, 1, 2, 3}); }
TEST(StemMultiply32, one_channel) { multiply32<1, 1, 2>({1, 16, 3, 1, 1, 3}); }
TEST(StemMultiply32, one_channel_stride_2) { multiply32<1, 2, 4>({1, 64, 3, 2, 1, 3}); }
TEST(StemMultiply32, row_major) { multiply32<3, 2, 4>({3, 32, 3, 2, 1, 3}, false); }

TEST(StemWeigh32, mobilenet) { weigh32<3, 2, 8>({3, 32, 3, 2, 1, 3}); }
TEST(StemWeigh32, few_outputs) { weigh32<3, 2, 4>({3, 16, 3, 2, 1, 3}); }
TEST(StemWeigh32, idle_lanes) { weigh32<3, 2, 8>({3, 24, 3, 2, 0, 3}); }
TEST(StemWeigh32, two_groups) { weigh32<3, 1, 8>({3, 40, 3, 1, 1, 3}); }
TEST(StemWeigh32, stride_1) { weigh32<3, 1, 4>({3, 8, 3, 1, 2, 3}); }
TEST(StemWeigh32, one_channel) { weigh32<1, 1, 4>({1, 16, 3, 1, 1, 3}); }
TEST(StemWeigh32, one_channel_stride_2) { weigh32<1, 2, 8>({1, 64, 3, 2, 1, 3}); }
TEST(StemWeigh32, row_major) { weigh32<3, 2, 8>({3, 32, 3, 2, 1, 3}, false); }

TEST(StemNan, multiply) {
  for (const Window& window : {kStem, Window{3, 32, 3, 1, 1}, Window{1, 32, 3, 2, 0}})
    multiply_nan<BFloat16>(window, cut_multiply, multiply_windows<BFloat16, 3, 4>);
}
TEST(StemNan, multiply32) {
  multiply_nan<float>({3, 32, 3, 2, 1, 3}, cut_multiply32, multiply_windows32<3, 2, 4>);
  multiply_nan<float>({3, 32, 3, 1, 1, 3}, cut_multiply32, multiply_windows32<3, 1, 4>);
  multiply_nan<float>({1, 32, 3, 2, 0, 3}, cut_multiply32, multiply_windows32<1, 2, 4>);
}
TEST(StemNan, weigh) {
  for (const Window& window : {kStem, Window{3, 32, 3, 1, 1}, Window{1, 32, 3, 2, 0}})
    weigh_nan<BFloat16>(window, cut_weigh, run_weigh<BFloat16, 5, 2>);
}
TEST(StemNan, weigh32) {
  const auto check = [](const Window& window, void (*kernel)(WeighWork)) {
    weigh_nan<float>(window, cut_weigh32, [&](const WeighWork& work) { run_kernel(work, kernel); });
  };
  check({3, 32, 3, 2, 1, 3}, weigh_windows32<3, 2, 8>);
  check({3, 32, 3, 1, 1, 3}, weigh_windows32<3, 1, 8>);
  check({1, 32, 3, 2, 0, 3}, weigh_windows32<1, 2, 8>);
}

TEST(StemCut, patches_fit) {
  for (int channels = 1; channels <= 4; ++channels)
    for (int kernel = 1; kernel <= 7; ++kernel)
      for (int stride = 1; stride <= 4; ++stride)
        for (const int width : {1, 15, 16, 17, 113, 224, 1000, 20000}) {
          Sizes s;
          s.channels = channels, s.outputs = 64, s.batch = 2;
          s.kernel_h = s.kernel_w = kernel, s.stride_h = s.stride_w = stride;
          s.in_h = s.in_w = (width - 1) * stride + kernel;
          s.out_h = s.out_w = width;
          if (!fits(s)) continue;
          std::vector<Cut> cuts{cut_multiply(s), cut_weigh(s)};
          if (fits_float32(s)) cuts.push_back(cut_multiply32(s)), cuts.push_back(cut_weigh32(s));
          for (const Cut& cut : cuts) {
            ASSERT_LE(cut.shared_bytes, 48 << 10);
            ASSERT_GE(cut.columns * cut.across, width);
            ASSERT_LT(cut.columns * (cut.across - 1), width);
            ASSERT_GE(cut.rows * cut.down, width);
            ASSERT_LE(cut.parts, cut.items);
            ASSERT_LT(cut.row, 1 << 14);  // so that pixels are counted right
          }
        }
}

}  // namespace
}  // namespace lamella::stem::checks
