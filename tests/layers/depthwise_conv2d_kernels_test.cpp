#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "buffers.h"
#include "core/check.h"
#include "lamella/core/threads.h"
#include "layers/depthwise_conv2d/cpu/scratch.h"
#include "layers/depthwise_conv2d/kernels.h"

namespace lamella {
namespace {

using detail::GradientWrite;
using test::Buffer;
using test::Layout;

// A value and the sum of its terms' magnitudes, which scales its error.
struct Sum {
  double value = 0, magnitude = 0;
  void add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

// Calls f(output element, input element, weight element) for every product of the convolution.
template <class F>
void each_product(const Conv2dGeometry& g, F f) {
  const std::int64_t m = g.multiplier();
  for (std::int64_t n = 0; n < g.batch; ++n)
    for (std::int64_t o = 0; o < g.out_channels; ++o)
      for (std::int64_t oh = 0; oh < g.out.h; ++oh)
        for (std::int64_t ow = 0; ow < g.out.w; ++ow)
          for (std::int64_t kh = 0; kh < g.kernel.h; ++kh)
            for (std::int64_t kw = 0; kw < g.kernel.w; ++kw) {
              const std::int64_t ih = oh * g.stride.h - g.padding.h + kh * g.dilation.h;
              const std::int64_t iw = ow * g.stride.w - g.padding.w + kw * g.dilation.w;
              if (ih < 0 || ih >= g.in.h || iw < 0 || iw >= g.in.w) continue;
              f(((n * g.out_channels + o) * g.out.h + oh) * g.out.w + ow,
                ((n * g.in_channels + o / m) * g.in.h + ih) * g.in.w + iw,
                (o * g.kernel.h + kh) * g.kernel.w + kw);
            }
}

struct Case {
  Conv2dGeometry g;
  DType dtype = DType::Float32;
  DType weight_dtype = DType::Float32;
  Layout input = Layout::Planar, output = Layout::Planar;
  std::int64_t misalign = 0;
  bool bias = true;
  bool accumulate = false;
};

std::string describe(const Case& c) {
  const Conv2dGeometry& g = c.g;
  return detail::concat(g.input_shape().to_string(), " -> ", g.output_shape().to_string(), " kernel ",
                        g.kernel.h, "x", g.kernel.w, " stride ", g.stride.h, ",", g.stride.w, " padding ",
                        g.padding.h, ",", g.padding.w, " dilation ", g.dilation.h, ",", g.dilation.w, " ",
                        name(c.dtype), " weight ", name(c.weight_dtype), " layouts ",
                        static_cast<int>(c.input), ",", static_cast<int>(c.output), " offset ", c.misalign,
                        c.bias ? " bias" : "", c.accumulate ? " accumulate" : "");
}

::testing::AssertionResult close(const Buffer& actual, const std::vector<Sum>& expected, DType computed_in) {
  const double accumulate_eps =
      computed_in == DType::Float64 ? test::epsilon(DType::Float64) : test::epsilon(DType::Float32);
  if (!actual.guards_hold()) return ::testing::AssertionFailure() << "wrote outside the elements";
  for (std::int64_t i = 0; i < actual.numel(); ++i) {
    const Sum& e = expected[static_cast<std::size_t>(i)];
    const double got = actual.get(i);
    // Products and sums round to the accumulation type (a few dozen in sequence), the store to the element
    // type; denormal halves add an absolute step.
    const double bound = 32 * accumulate_eps * e.magnitude +
                         test::epsilon(actual.dtype()) * std::abs(e.value) +
                         (actual.dtype() == DType::Float16 ? 0x1p-24 : 0);
    if (!(std::abs(got - e.value) <= bound)) {
      return ::testing::AssertionFailure()
             << "element " << i << ": " << got << ", expected " << e.value << " ± " << bound;
    }
  }
  return ::testing::AssertionSuccess();
}

// The state of a destination before the call, and as the start of its expected sums.
std::vector<Sum> prepare(Buffer& target, bool accumulate) {
  std::vector<Sum> sums(static_cast<std::size_t>(target.numel()));
  if (!accumulate) {
    target.fill(std::numeric_limits<double>::quiet_NaN());
    return sums;
  }
  target.randomize(99);
  for (std::int64_t i = 0; i < target.numel(); ++i) sums[static_cast<std::size_t>(i)].add(target.get(i));
  return sums;
}

// Working memory keeps what earlier calls left: here numbers that are none, and addresses of nothing.
void spoil_scratch() {
  constexpr std::size_t kBytes = std::size_t{1} << 18;
  std::memset(cpu::thread_scratch(kBytes), 0xff, kBytes);
}

struct Tensors {
  explicit Tensors(const Case& c)
      : input(c.dtype, c.g.input_shape(), c.input, c.misalign),
        output(c.dtype, c.g.output_shape(), c.output, c.misalign + 1),
        weight(c.weight_dtype, c.g.weight_shape(),
               c.input == Layout::Planar ? Layout::Planar : Layout::ChannelsLast, 1),
        bias(c.weight_dtype, Shape{c.g.out_channels}) {
    input.randomize(1);
    weight.randomize(2);
    bias.randomize(3);
    spoil_scratch();
  }
  Buffer input, output, weight, bias;
};

::testing::AssertionResult forward_is_right(const Case& c) {
  Tensors t(c);
  std::vector<Sum> expected = prepare(t.output, false);
  if (c.bias) {
    for (std::int64_t i = 0; i < t.output.numel(); ++i) {
      expected[static_cast<std::size_t>(i)].add(t.bias.get(i / (c.g.out.h * c.g.out.w) % c.g.out_channels));
    }
  }
  const std::vector<double> x = t.input.values(), w = t.weight.values();
  each_product(c.g, [&](std::int64_t out, std::int64_t in, std::int64_t tap) {
    expected[static_cast<std::size_t>(out)].add(x[static_cast<std::size_t>(in)] *
                                                w[static_cast<std::size_t>(tap)]);
  });
  cpu::depthwise_conv2d_forward(c.g, t.input.view(), t.weight.view(),
                                c.bias ? detail::ConstTensorView(t.bias.view()) : detail::ConstTensorView{},
                                t.output.view());
  return close(t.output, expected, c.dtype);
}

::testing::AssertionResult backward_input_is_right(const Case& c) {
  Tensors t(c);
  t.output.randomize(4);
  std::vector<Sum> expected = prepare(t.input, c.accumulate);
  const std::vector<double> g = t.output.values(), w = t.weight.values();
  each_product(c.g, [&](std::int64_t out, std::int64_t in, std::int64_t tap) {
    expected[static_cast<std::size_t>(in)].add(g[static_cast<std::size_t>(out)] *
                                               w[static_cast<std::size_t>(tap)]);
  });
  cpu::depthwise_conv2d_backward_input(c.g, t.output.view(), t.weight.view(), t.input.view(),
                                       c.accumulate ? GradientWrite::Accumulate : GradientWrite::Overwrite);
  return close(t.input, expected, c.dtype);
}

// which: 1 weight, 2 bias, 3 both. The other destination is null.
::testing::AssertionResult backward_weight_is_right(const Case& c, int which) {
  Tensors t(c);
  t.output.randomize(4);
  std::vector<Sum> weight = prepare(t.weight, c.accumulate), bias = prepare(t.bias, !c.accumulate);
  const std::vector<double> g = t.output.values(), x = t.input.values();
  each_product(c.g, [&](std::int64_t out, std::int64_t in, std::int64_t tap) {
    weight[static_cast<std::size_t>(tap)].add(g[static_cast<std::size_t>(out)] *
                                              x[static_cast<std::size_t>(in)]);
  });
  for (std::int64_t i = 0; i < t.output.numel(); ++i) {
    bias[static_cast<std::size_t>(i / (c.g.out.h * c.g.out.w) % c.g.out_channels)].add(
        g[static_cast<std::size_t>(i)]);
  }
  cpu::depthwise_conv2d_backward_weight(c.g, t.output.view(), t.input.view(),
                                        which & 1 ? t.weight.view() : detail::TensorView{},
                                        c.accumulate ? GradientWrite::Accumulate : GradientWrite::Overwrite,
                                        which & 2 ? t.bias.view() : detail::TensorView{},
                                        c.accumulate ? GradientWrite::Overwrite : GradientWrite::Accumulate);
  if (which & 1) {
    if (auto result = close(t.weight, weight, c.dtype); !result) return result << " (weight)";
  }
  if (which & 2) return close(t.bias, bias, c.dtype) << " (bias)";
  return ::testing::AssertionSuccess();
}

Conv2dGeometry geometry(std::int64_t n, std::int64_t c, std::int64_t m, Size2 in, Size2 kernel, Size2 stride,
                        Size2 padding, Size2 dilation) {
  return make_conv2d_geometry("test", Shape{n, c, in.h, in.w}, Shape{c * m, 1, kernel.h, kernel.w}, stride,
                              padding, dilation, c);
}

Case random_case() {
  const auto in = [](int low, int high) {
    return static_cast<std::int64_t>(*rc::gen::inRange(low, high + 1));
  };
  const auto size = [&](int low, int high) {
    const std::int64_t h = in(low, high);
    return Size2(h, in(low, high));
  };
  Case c;
  const Size2 kernel = *rc::gen::weightedElement<bool>({{1, true}, {2, false}})
                           ? Size2(*rc::gen::element<std::int64_t>(3, 5, 7))
                           : size(1, 8);
  const Size2 stride = size(1, 3), dilation = size(1, 3), padding = size(0, 9);
  const auto smallest = [](std::int64_t k, std::int64_t d, std::int64_t p) {
    return std::max<std::int64_t>(1, d * (k - 1) + 1 - 2 * p);
  };
  const Size2 input(smallest(kernel.h, dilation.h, padding.h) + in(0, 20),
                    smallest(kernel.w, dilation.w, padding.w) + in(0, 40));
  c.g = geometry(in(0, 3), in(1, 20), in(1, 3), input, kernel, stride, padding, dilation);
  c.dtype = *rc::gen::element(DType::Float32, DType::Float64, DType::BFloat16, DType::Float16);
  c.weight_dtype = in(0, 1) == 0 || c.dtype == DType::Float64 ? c.dtype : DType::Float32;
  c.input = static_cast<Layout>(in(0, test::kLayouts - 1));
  c.output = in(0, 2) > 0 ? c.input : static_cast<Layout>(in(0, test::kLayouts - 1));
  c.misalign = in(0, 3);
  c.bias = in(0, 1) == 1;
  c.accumulate = in(0, 1) == 1;
  return c;
}

RC_GTEST_PROP(DepthwiseKernelsTest, forward_matches_reference, ()) {
  const Case c = random_case();
  const auto result = forward_is_right(c);
  if (!result) RC_FAIL(describe(c) + ": " + result.message());
}

RC_GTEST_PROP(DepthwiseKernelsTest, backward_input_matches_reference, ()) {
  const Case c = random_case();
  const auto result = backward_input_is_right(c);
  if (!result) RC_FAIL(describe(c) + ": " + result.message());
}

RC_GTEST_PROP(DepthwiseKernelsTest, backward_weight_matches_reference, ()) {
  const Case c = random_case();
  const auto result = backward_weight_is_right(c, *rc::gen::inRange(1, 4));
  if (!result) RC_FAIL(describe(c) + ": " + result.message());
}

// Shapes large enough to be cut into several tasks, strips of columns and blocks of rows.
std::vector<Case> large_cases() {
  std::vector<Case> cases;
  const Conv2dGeometry geometries[] = {geometry(2, 70, 1, {30, 33}, 3, 1, 1, 1),
                                       geometry(1, 40, 1, {64, 130}, 3, 1, 1, 1),
                                       geometry(3, 33, 1, {56, 57}, 3, 2, 1, 1),
                                       geometry(2, 24, 1, {41, 90}, {3, 7}, 1, 0, 1),
                                       geometry(1, 8, 1, {150, 200}, {3, 1}, 1, 0, 1),
                                       geometry(2, 17, 2, {35, 61}, 5, {2, 1}, {3, 1}, {1, 2}),
                                       geometry(20, 19, 1, {14, 14}, 3, 1, 1, 1),
                                       geometry(40, 48, 1, {7, 7}, 5, 1, 2, 1),
                                       geometry(1, 260, 1, {20, 24}, 7, 1, 3, 1),
                                       geometry(1, 2, 3, {190, 210}, 3, 3, 4, 2),
                                       geometry(1, 200, 1, {24, 90}, 3, 2, 1, 1),
                                       geometry(1, 130, 2, {18, 70}, {3, 4}, 1, 2, 2),
                                       geometry(2, 96, 1, {7, 7}, 7, 1, 3, 1),
                                       geometry(1, 72, 1, {17, 50}, {2, 1}, {2, 1}, {1, 3}, 1),
                                       geometry(2, 64, 1, {3, 1100}, {1, 3}, 1, {0, 1}, 1)};
  for (const Conv2dGeometry& g : geometries) {
    for (const Layout layout : {Layout::Planar, Layout::ChannelsLast}) {
      for (const DType dtype : {DType::Float32, DType::BFloat16}) {
        Case c;
        c.g = g;
        c.dtype = dtype;
        c.input = c.output = layout;
        c.misalign = 3;
        cases.push_back(c);
      }
    }
  }
  return cases;
}

TEST(DepthwiseKernelsTest, large_shapes_match_reference) {
  for (const Case& c : large_cases()) {
    SCOPED_TRACE(describe(c));
    EXPECT_TRUE(forward_is_right(c));
    EXPECT_TRUE(backward_input_is_right(c));
    EXPECT_TRUE(backward_weight_is_right(c, 3));
  }
}

// Small planes of planar tensors go through channels-last copies.
TEST(DepthwiseKernelsTest, small_planes_match_reference) {
  for (const Conv2dGeometry& g :
       {geometry(3, 21, 1, {7, 7}, 3, 1, 1, 1), geometry(2, 9, 2, {9, 14}, 3, 2, 1, 1)}) {
    for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16}) {
      for (const bool accumulate : {false, true}) {
        const Case c{g, dtype, dtype, Layout::PaddedPlanar, Layout::Planar, 1, true, accumulate};
        EXPECT_TRUE(forward_is_right(c)) << describe(c);
        EXPECT_TRUE(backward_input_is_right(c)) << describe(c);
        EXPECT_TRUE(backward_weight_is_right(c, 3)) << describe(c);
      }
    }
  }
}

// Everything the three kernels write, as bytes.
std::vector<std::byte> all_results(const Case& c) {
  Tensors t(c);
  std::vector<std::byte> bytes;
  const auto append = [&](const Buffer& buffer) {
    bytes.insert(bytes.end(), buffer.bytes().begin(), buffer.bytes().end());
  };
  cpu::depthwise_conv2d_forward(c.g, t.input.view(), t.weight.view(), t.bias.view(), t.output.view());
  append(t.output);
  Buffer grad_weight(c.weight_dtype, c.g.weight_shape()), grad_bias(c.weight_dtype, Shape{c.g.out_channels});
  cpu::depthwise_conv2d_backward_weight(c.g, t.output.view(), t.input.view(), grad_weight.view(),
                                        GradientWrite::Overwrite, grad_bias.view(), GradientWrite::Overwrite);
  append(grad_weight);
  append(grad_bias);
  cpu::depthwise_conv2d_backward_input(c.g, t.output.view(), t.weight.view(), t.input.view(),
                                       GradientWrite::Overwrite);
  append(t.input);
  return bytes;
}

TEST(DepthwiseKernelsTest, bits_do_not_depend_on_threads) {
  const int threads = num_threads();
  for (const Case& c : large_cases()) {
    set_num_threads(1);
    const std::vector<std::byte> expected = all_results(c);
    for (const int count : {2, 3}) {
      set_num_threads(count);
      EXPECT_EQ(all_results(c), expected) << describe(c) << " with " << count << " threads";
    }
  }
  set_num_threads(threads);
}

// <conv(x, w), g> = <x, conv_input(g, w)> = <w, conv_weight(g, x)>.
TEST(DepthwiseKernelsTest, gradients_are_adjoint) {
  for (Case c : large_cases()) {
    c.dtype = c.weight_dtype = DType::Float64;
    Tensors t(c);
    cpu::depthwise_conv2d_forward(c.g, t.input.view(), t.weight.view(), {}, t.output.view());
    Buffer g(c.dtype, c.g.output_shape(), c.output);
    g.randomize(5);
    Buffer grad_input(c.dtype, c.g.input_shape(), c.input), grad_weight(c.dtype, c.g.weight_shape());
    cpu::depthwise_conv2d_backward_input(c.g, g.view(), t.weight.view(), grad_input.view(),
                                         GradientWrite::Overwrite);
    cpu::depthwise_conv2d_backward_weight(c.g, g.view(), t.input.view(), grad_weight.view(),
                                          GradientWrite::Overwrite, {}, GradientWrite::Overwrite);
    const auto dot = [](const Buffer& a, const Buffer& b) {
      Sum sum;
      for (std::int64_t i = 0; i < a.numel(); ++i) sum.add(a.get(i) * b.get(i));
      return sum;
    };
    const Sum left = dot(t.output, g);
    const double bound = 64 * test::epsilon(DType::Float64) * left.magnitude;
    EXPECT_NEAR(left.value, dot(t.input, grad_input).value, bound) << describe(c);
    EXPECT_NEAR(left.value, dot(t.weight, grad_weight).value, bound) << describe(c);
  }
}

TEST(DepthwiseKernelsTest, empty_batch_gives_zero_gradients) {
  Case c;
  c.g = geometry(0, 5, 1, {9, 9}, 3, 1, 1, 1);
  for (const bool accumulate : {false, true}) {
    c.accumulate = accumulate;
    EXPECT_TRUE(forward_is_right(c));
    EXPECT_TRUE(backward_input_is_right(c));
    EXPECT_TRUE(backward_weight_is_right(c, 3));
  }
}

// A NaN behind the end of a row, or in another channel, must not leak into sums.
TEST(DepthwiseKernelsTest, nan_stays_in_its_channel) {
  for (const Layout layout : {Layout::Planar, Layout::ChannelsLast}) {
    Case c;
    c.g = geometry(2, 3, 1, {9, 11}, 3, 1, 0, 1);
    c.input = c.output = layout;
    Tensors t(c);
    t.output.randomize(6);
    const std::int64_t plane = c.g.in.h * c.g.in.w;
    for (std::int64_t i = 0; i < plane; ++i) t.input.set(plane + i, std::numeric_limits<double>::quiet_NaN());
    Buffer grad_weight(c.dtype, c.g.weight_shape());
    cpu::depthwise_conv2d_backward_weight(c.g, t.output.view(), t.input.view(), grad_weight.view(),
                                          GradientWrite::Overwrite, {}, GradientWrite::Overwrite);
    for (std::int64_t i = 0; i < grad_weight.numel(); ++i)
      EXPECT_EQ(std::isnan(grad_weight.get(i)), i / 9 == 1) << i;
    cpu::depthwise_conv2d_forward(c.g, t.input.view(), t.weight.view(), {}, t.output.view());
    for (std::int64_t i = 0; i < t.output.numel(); ++i) {
      const std::int64_t n_c = i / (c.g.out.h * c.g.out.w);
      EXPECT_EQ(std::isnan(t.output.get(i)), n_c == 1) << i;
    }
  }
}

// At the left and right edge, what a tap would read beside the row belongs to the row before or after.
TEST(DepthwiseKernelsTest, nan_stays_in_its_row) {
  for (const Layout layout : {Layout::Planar, Layout::ChannelsLast}) {
    for (const std::int64_t stride : {1, 2}) {
      Case c;
      c.g = geometry(1, 19, 1, {11, 13}, {1, 5}, stride, {0, 2}, 1);
      c.input = c.output = layout;
      Tensors t(c);
      const std::int64_t width = c.g.in.w, row = 4;
      for (std::int64_t channel = 0; channel < c.g.in_channels; ++channel) {
        for (std::int64_t j = 0; j < width; ++j) {
          t.input.set((channel * c.g.in.h + row) * width + j, std::numeric_limits<double>::quiet_NaN());
        }
      }
      cpu::depthwise_conv2d_forward(c.g, t.input.view(), t.weight.view(), {}, t.output.view());
      for (std::int64_t i = 0; i < t.output.numel(); ++i) {
        EXPECT_EQ(std::isnan(t.output.get(i)), i / c.g.out.w % c.g.out.h * stride == row) << i;
      }
      t.input.randomize(7);
      t.output.randomize(8);
      for (std::int64_t i = 0; i < t.output.numel(); ++i) {
        if (i / c.g.out.w % c.g.out.h * stride == row) {
          t.output.set(i, std::numeric_limits<double>::infinity());
        }
      }
      cpu::depthwise_conv2d_backward_input(c.g, t.output.view(), t.weight.view(), t.input.view(),
                                           GradientWrite::Overwrite);
      for (std::int64_t i = 0; i < t.input.numel(); ++i) {
        EXPECT_EQ(std::isfinite(t.input.get(i)), i / width % c.g.in.h != row) << i;
      }
    }
  }
}

}  // namespace
}  // namespace lamella
