// What a batch norm has the depthwise kernels do on their way: the raw-pointer interface's transform,
// statistics and sums, against the definition in float64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "lamella/core/error.h"
#include "lamella/core/stream.h"
#include "lamella/testing/matchers.h"
#include "raw_pointers.h"
#include "tests/support/error_bound.h"

namespace lamella::test {
namespace {

using ::testing::HasSubstr;
using testing::IsClose;
namespace reference = testing::reference;

Tensor exact(const Tensor& t) { return t.to(Device::cpu()).to(float64).contiguous(); }

/// With z where the input was.
struct FusedProblem : RawProblem {
  static constexpr double kLow = 0, kHigh = 0.75;
  Tensor scale, shift, center, mean, variance, sum, product;

  FusedProblem(const Shape& input, const Shape& weight, const DepthwiseConv2dOptions& given,
               MemoryFormat format = MemoryFormat::Contiguous, DType dtype = DType::Float32,
               DType parameter_dtype = DType::Float32)
      : RawProblem(input, weight, given, format, dtype, parameter_dtype) {
    const auto random = [&](std::uint64_t seed) {
      return testing::random_tensor({input[1]}, seed, {.dtype = float32}).to(test_device());
    };
    scale = random(11), shift = random(12), center = random(13);
    const auto poisoned = [&](std::int64_t channels) {
      Tensor t = empty({channels}, {.device = test_device()});
      t.fill_(std::numeric_limits<double>::quiet_NaN());
      return t;
    };
    mean = poisoned(weight[0]), variance = poisoned(weight[0]);
    sum = poisoned(input[1]), product = poisoned(input[1]);
    call.transform = {floats(scale), floats(shift), static_cast<float>(kLow), static_cast<float>(kHigh)};
  }
  static float* floats(const Tensor& t) { return static_cast<float*>(result(t).data); }
  void want_statistics() { call.statistics = {floats(mean), floats(variance)}; }
  void want_sums() { call.sums = {floats(center), floats(sum), floats(product)}; }

  void take_workspace() {
    call.workspace_bytes = depthwise_conv2d_workspace_bytes(call);
    if (call.workspace_bytes == 0) return;
    memory = empty({call.workspace_bytes}, {.dtype = DType::UInt8, .device = call.device});
    call.workspace = result(memory).data;
  }
  void forward_fused() {
    call.output = result(y);
    take_workspace();
    depthwise_conv2d_forward(call);
  }

  std::int64_t channel(std::int64_t i, const Shape& shape) const {
    return i / (shape[2] * shape[3]) % shape[1];
  }
  /// scale · z + shift.
  std::vector<double> normalised() const {
    std::vector<double> numbers = exact(x).to_vector<double>();
    const std::vector<double> a = exact(scale).to_vector<double>(), b = exact(shift).to_vector<double>();
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const auto c = static_cast<std::size_t>(channel(static_cast<std::int64_t>(i), x.shape()));
      numbers[i] = a[c] * numbers[i] + b[c];
    }
    return numbers;
  }
  Tensor activated() const {
    std::vector<double> numbers = normalised();
    for (double& number : numbers) number = std::clamp(number, kLow, kHigh);
    return from_vector(numbers, x.shape());
  }
  Tensor expected_output() const {
    return reference::conv2d(activated(), exact(w), exact(b), options.stride, options.padding,
                             options.dilation, x.size(1));
  }
  Tensor expected_gradient(bool masked) const {
    const Tensor gradient = reference::conv2d_backward_input(exact(gy), exact(w), x.shape(), options.stride,
                                                             options.padding, options.dilation, x.size(1));
    if (!masked) return gradient;
    std::vector<double> numbers = gradient.to_vector<double>();
    const std::vector<double> before = normalised();
    for (std::size_t i = 0; i < numbers.size(); ++i)
      if (!(before[i] > kLow && before[i] < kHigh)) numbers[i] = 0;
    return from_vector(numbers, x.shape());
  }
  Tensor expected_weight_gradient() const {
    return reference::conv2d_backward_weight(exact(gy), activated(), w.shape(), options.stride,
                                             options.padding, options.dilation, x.size(1));
  }

  void expect_statistics() const {
    const std::vector<double> numbers = expected_output().to_vector<double>();
    const auto channels = static_cast<std::size_t>(w.size(0));
    const auto count = static_cast<double>(numbers.size()) / static_cast<double>(channels);
    std::vector<double> means(channels), variances(channels);
    const auto of = [&](std::size_t i) {
      return static_cast<std::size_t>(channel(static_cast<std::int64_t>(i), y.shape()));
    };
    for (std::size_t i = 0; i < numbers.size(); ++i) means[of(i)] += numbers[i] / count;
    for (std::size_t i = 0; i < numbers.size(); ++i)
      variances[of(i)] += (numbers[i] - means[of(i)]) * (numbers[i] - means[of(i)]) / count;
    const bool narrow = size_of(y.dtype()) == 2;
    EXPECT_THAT(mean, IsClose(from_vector(means, {w.size(0)}), {1e-5, narrow ? 2e-3 : 1e-5}));
    EXPECT_THAT(variance, IsClose(from_vector(variances, {w.size(0)}), {narrow ? 1e-2 : 1e-4, 1e-5}));
  }
  /// In sixteen bits of gx as it is stored, or before it was rounded: what the roundings may add up to is
  /// allowed.
  void expect_sums() const {
    const bool narrow = size_of(gx.dtype()) == 2;
    const std::vector<double> g = (narrow ? exact(gx) : expected_gradient(true)).to_vector<double>();
    const std::vector<double> z = exact(x).to_vector<double>(), from = exact(center).to_vector<double>();
    std::vector<double> sums(from.size()), products(from.size());
    double most = 0;
    std::vector<double> squares(from.size());
    for (std::size_t i = 0; i < g.size(); ++i) {
      const auto c = static_cast<std::size_t>(channel(static_cast<std::int64_t>(i), x.shape()));
      const double product = g[i] * (z[i] - from[c]);
      sums[c] += g[i], products[c] += product;
      squares[c] += g[i] * g[i] + product * product;
      most = std::max(most, squares[c]);
    }
    const double roundings = narrow ? roundoff(gx.dtype()) * std::sqrt(most) : 0;
    const testing::Tolerance rounding{1e-4, 1e-3 + 2 * roundings};
    EXPECT_THAT(sum, IsClose(from_vector(sums, {x.size(1)}), rounding));
    EXPECT_THAT(product, IsClose(from_vector(products, {x.size(1)}), rounding));
  }
  /// Of what is stored; products may be of numbers that were rounded to the type.
  testing::Tolerance rounding(double terms) const {
    const double eps = y.dtype() == float64    ? 1e-12
                       : y.dtype() == float32  ? 1e-6
                       : y.dtype() == bfloat16 ? 1.0 / 128
                                               : 1.0 / 1024;
    return {eps * 2, eps * terms};
  }
};

/// Every pass of a problem, alone and together.
void check(FusedProblem p) {
  p.want_statistics();
  p.forward_fused();
  EXPECT_THAT(p.y, IsClose(p.expected_output(), p.rounding(4)));
  p.expect_statistics();
  // Not fused: only the transform.
  p.call.statistics = {};
  p.y.fill_(7);
  p.forward_fused();
  EXPECT_THAT(p.y, IsClose(p.expected_output(), p.rounding(4)));

  p.call.output = {};
  p.backward(true, true, false);
  EXPECT_THAT(p.gx, IsClose(p.expected_gradient(false), p.rounding(4)));
  EXPECT_THAT(p.gw, IsClose(p.expected_weight_gradient(), p.rounding(40)));
  p.want_sums();
  for (const bool weighs : {true, false}) {
    for (const Tensor& t : {p.gx, p.gw, p.sum, p.product}) {
      Tensor poisoned = t;
      poisoned.fill_(std::numeric_limits<double>::quiet_NaN());
    }
    p.backward(true, weighs, weighs);
    EXPECT_THAT(p.gx, IsClose(p.expected_gradient(true), p.rounding(4)));
    if (weighs) {
      EXPECT_THAT(p.gw, IsClose(p.expected_weight_gradient(), p.rounding(40)));
    }
    p.expect_sums();
  }
}

TEST(DepthwiseFusionTest, is_the_definition) {
  LAMELLA_NEEDS_TEST_DEVICE();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const DType dtype : {float32, float64, bfloat16, float16}) {
      SCOPED_TRACE(std::string(name(format)) + " " + name(dtype));
      check({{3, 16, 15, 13}, {16, 1, 3, 3}, {.padding = 1}, format, dtype, dtype});
      check({{2, 24, 14, 17}, {24, 1, 3, 3}, {.stride = 2, .padding = 1}, format, dtype, dtype});
      check({{2, 6, 12, 9},
             {12, 1, 3, 5},
             {.stride = {1, 2}, .padding = {1, 2}, .dilation = {2, 1}},
             format,
             dtype,
             dtype == float64 ? float64 : float32});
      // More channels than a vector has, and none of a vector's multiple.
      check({{2, 37, 9, 10}, {37, 1, 3, 3}, {.padding = 1}, format, dtype, dtype});
      // No planned kernel is as long.
      check({{2, 5, 20, 6}, {5, 1, 17, 1}, {.padding = {8, 0}}, format, dtype, dtype});
    }
}

TEST(DepthwiseFusionTest, variance_far_from_zero) {
  LAMELLA_NEEDS_TEST_DEVICE();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    FusedProblem p({8, 32, 20, 20}, {32, 1, 3, 3}, {.padding = 1}, format);
    p.b.fill_(300);  // results deviate by a third or so
    p.want_statistics();
    p.forward_fused();
    const Tensor far = p.variance.clone();
    p.b.fill_(0);
    p.forward_fused();
    EXPECT_THAT(far, IsClose(p.variance, {1e-3, 0}));
  }
}

TEST(DepthwiseFusionTest, any_strides) {
  LAMELLA_NEEDS_TEST_DEVICE();
  FusedProblem p({2, 4, 6, 5}, {4, 1, 3, 3}, {.padding = 1});
  const Tensor wide = zeros({2, 4, 6, 10}, {.device = test_device()});
  wide.slice(3, {0, 10, 2}).copy_(p.x);
  p.x = wide.slice(3, {0, 10, 2});
  p.call.input = operand(p.x);
  check(p);
}

TEST(DepthwiseFusionTest, gradients_are_added_and_sums_are_not) {
  LAMELLA_NEEDS_TEST_DEVICE();
  for (const Shape& weight : {Shape{8, 1, 3, 3}, Shape{8, 1, 17, 3}}) {
    FusedProblem p({3, 8, 14, 14}, weight, {.padding = {weight[2] / 2, 1}});
    p.want_sums();
    p.call.accumulate = true;
    p.gx.fill_(1), p.gw.fill_(2), p.gb.fill_(3);
    p.backward();
    std::vector<double> wanted = p.expected_gradient(true).to_vector<double>();
    for (double& number : wanted) number += 1;
    EXPECT_THAT(p.gx, IsClose(from_vector(wanted, p.gx.shape()), {1e-5, 1e-5}));
    p.expect_sums();
  }
}

TEST(DepthwiseFusionTest, an_empty_batch_leaves_zeros) {
  LAMELLA_NEEDS_TEST_DEVICE();
  FusedProblem p({0, 4, 6, 5}, {4, 1, 3, 3}, {.padding = 1});
  p.call.input = p.call.grad_output = {};
  p.want_statistics();
  p.want_sums();
  depthwise_conv2d_forward(p.call);
  EXPECT_EQ(depthwise_conv2d_workspace_bytes(p.call), 0);
  depthwise_conv2d_backward(p.call);
  for (const Tensor& t : {p.mean, p.variance, p.sum, p.product})
    EXPECT_THAT(t, testing::HasSameBits(zeros({4})));
}

TEST(DepthwiseFusionTest, twice_the_same_bits) {
  LAMELLA_NEEDS_TEST_DEVICE();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    FusedProblem p({5, 40, 21, 22}, {40, 1, 3, 3}, {.padding = 1}, format);
    p.want_statistics();
    p.want_sums();
    std::vector<Tensor> first;
    for (int i = 0; i < 2; ++i) {
      p.forward_fused();
      p.call.output = {};
      p.backward();
      const std::vector<Tensor> all = {p.y, p.mean, p.variance, p.gx, p.gw, p.gb, p.sum, p.product};
      for (std::size_t t = 0; t < all.size(); ++t)
        if (i == 0) {
          first.push_back(all[t].clone());
        } else {
          EXPECT_THAT(all[t], testing::HasSameBits(first[t])) << t;
        }
    }
  }
}

TEST(DepthwiseFusionTest, says_what_is_missing) {
  LAMELLA_NEEDS_TEST_DEVICE();
  const FusedProblem good({2, 4, 6, 5}, {4, 1, 3, 3}, {.padding = 1});
  const auto with = [&](const std::function<void(FusedProblem&)>& change,
                        const std::function<void(const kernels::DepthwiseConv2d&)>& run) {
    FusedProblem p = good;
    p.want_sums();
    p.want_statistics();
    p.call.output = result(p.y);
    p.call.grad_input = result(p.gx);
    change(p);
    try {
      run(p.call);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  const auto forward = kernels::depthwise_conv2d_forward;
  const auto backward = kernels::depthwise_conv2d_backward;
  EXPECT_THAT(with([](auto& p) { p.call.transform.shift = nullptr; }, forward),
              HasSubstr("kernels::depthwise_conv2d_forward: transform.shift is missing"));
  EXPECT_THAT(with([](auto& p) { p.call.statistics.variance = nullptr; }, forward),
              HasSubstr("statistics.variance is missing"));
  EXPECT_THAT(with([](auto& p) { p.call.sums.center = nullptr; }, backward),
              HasSubstr("sums.center is missing"));
  EXPECT_THAT(with([](auto& p) { p.call.transform = {}; }, backward), HasSubstr("transform.scale"));
  EXPECT_THAT(with([](auto& p) { p.call.grad_input = {}; }, backward), HasSubstr("grad_input"));
  EXPECT_THAT(with([](auto& p) { p.call.input = {}; }, backward), HasSubstr("input is missing"));
}

}  // namespace
}  // namespace lamella::test
