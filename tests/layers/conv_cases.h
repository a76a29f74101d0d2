#pragma once

#include <rapidcheck.h>

#include <functional>
#include <limits>
#include <ostream>
#include <string>

#include "lamella/core/threads.h"
#include "lamella/layers/conv.h"
#include "lamella/testing/matchers.h"
#include "tests/support/device.h"
#include "tests/support/error_bound.h"

namespace lamella::test {

/// The operands and options of one convolution.
struct ConvCase {
  Shape input, weight;
  Conv2dOptions options;
  bool bias = true;
  MemoryFormat format = MemoryFormat::Contiguous;
  DType dtype = DType::Float32;
  DType parameter_dtype = DType::Float32;
  bool unaligned = false;  ///< input and gradient begin one element into their memory

  friend std::ostream& operator<<(std::ostream& out, const ConvCase& c) {
    const auto pair = [](Size2 s) { return std::to_string(s.h) + "x" + std::to_string(s.w); };
    return out << "input " << c.input.to_string() << ", weight " << c.weight.to_string() << ", stride "
               << pair(c.options.stride) << ", padding " << pair(c.options.padding) << ", dilation "
               << pair(c.options.dilation) << ", groups " << c.options.groups
               << (c.options.same_padding ? ", same" : "") << (c.bias ? ", bias" : "") << ", "
               << name(c.format) << ", " << name(c.dtype) << " with " << name(c.parameter_dtype)
               << (c.unaligned ? ", unaligned" : "");
  }
};

using ConvFunction = std::function<Tensor(const Tensor&, const Tensor&, const Tensor&, const Conv2dOptions&)>;

/// A random tensor, dense in `format`.
inline Tensor random_image(const Shape& shape, std::uint64_t seed, const ConvCase& c) {
  if (!c.unaligned)
    return testing::random_tensor(shape, seed, {.dtype = c.dtype, .format = c.format}).to(test_device());
  const std::int64_t count = shape.product();
  const Tensor flat = testing::random_tensor({count + 1}, seed, {.dtype = c.dtype})
                          .to(test_device())
                          .slice(0, {1, count + 1});
  if (c.format == MemoryFormat::Contiguous) return flat.reshape(shape);
  return flat.reshape({shape[0], shape[2], shape[3], shape[1]}).permute({0, 3, 1, 2});
}

/// The padding that the reference needs in place of same_padding: it takes an input padded beforehand.
inline Tensor padded_input(const Tensor& x, const ConvCase& c, Size2& before) {
  if (!c.options.same_padding) {
    before = 0;
    return x;
  }
  const Size2 total((c.weight[2] - 1) * c.options.dilation.h, (c.weight[3] - 1) * c.options.dilation.w);
  before = {total.h / 2, total.w / 2};
  Tensor padded =
      zeros({x.size(0), x.size(1), x.size(2) + total.h, x.size(3) + total.w}, {.dtype = DType::Float64});
  padded.slice(2, {before.h, before.h + x.size(2)}).slice(3, {before.w, before.w + x.size(3)}).copy_(x);
  return padded;
}

/// Forward and every gradient against the plain reference; gradients overwrite stale ones (poisoned with NaN)
/// and add to others; one thread and two give the same bits; formats are kept.
inline void check_conv(const ConvFunction& function, const ConvCase& c) {
  LAMELLA_NEEDS_TEST_DEVICE();
  SCOPED_TRACE((std::ostringstream() << c).str());
  const Conv2dOptions& o = c.options;
  Tensor x = random_image(c.input, 1, c).detach().set_requires_grad();
  const auto parameter = [&](const Shape& shape, std::uint64_t seed) {
    return testing::random_tensor(shape, seed, {.dtype = c.parameter_dtype})
        .to(test_device())
        .set_requires_grad();
  };
  Tensor w = parameter(c.weight, 2);
  Tensor b;
  if (c.bias) b = parameter({c.weight[0]}, 3);

  set_num_threads(1);
  const Tensor y = function(x, w, b, o);
  EXPECT_EQ(y.dtype(), c.dtype);
  EXPECT_TRUE(y.is_contiguous(x.memory_format()));
  namespace ref = testing::reference;
  Size2 before;
  const Tensor px = padded_input(x, c, before);
  const auto expect = [&](const Tensor& in, const Tensor& weight, const Tensor& bias) {
    return ref::conv2d(in, weight, bias, o.stride, o.padding, o.dilation, o.groups);
  };
  const std::int64_t taps = c.weight[1] * c.weight[2] * c.weight[3];
  ASSERT_TRUE(
      explained_by_rounding(y, expect(px, w, b), expect(absolute(px), absolute(w), absolute(b)), taps + 1));

  const Tensor grad = random_image(y.shape(), 4, c);
  y.backward(grad);
  const auto cut = [&](const Tensor& padded) {
    return padded.slice(2, {before.h, before.h + x.size(2)}).slice(3, {before.w, before.w + x.size(3)});
  };
  const auto input_gradient = [&](const Tensor& g, const Tensor& weight) {
    return cut(ref::conv2d_backward_input(g, weight, px.shape(), o.stride, o.padding, o.dilation, o.groups));
  };
  const auto weight_gradient = [&](const Tensor& g, const Tensor& in) {
    return ref::conv2d_backward_weight(g, in, c.weight, o.stride, o.padding, o.dilation, o.groups);
  };
  const std::int64_t pixels = y.size(0) * y.size(2) * y.size(3);
  const std::int64_t dx_terms = c.weight[0] / o.groups * c.weight[2] * c.weight[3];
  const Tensor dx_magnitude = input_gradient(absolute(grad), absolute(w));
  EXPECT_TRUE(explained_by_rounding(x.grad(), input_gradient(grad, w), dx_magnitude, dx_terms));
  EXPECT_TRUE(x.grad().is_contiguous(x.memory_format()));
  const Tensor dw_magnitude = weight_gradient(absolute(grad), absolute(px));
  EXPECT_TRUE(explained_by_rounding(w.grad(), weight_gradient(grad, px), dw_magnitude, pixels));
  EXPECT_EQ(w.grad().dtype(), c.parameter_dtype);
  Tensor db_magnitude;
  if (c.bias) {
    const auto sums = [](const Tensor& g) {
      Tensor one = ones({g.size(0), 1, g.size(2), g.size(3)}, {.dtype = DType::Float64});
      return ref::conv2d_backward_weight(g, one, {g.size(1), 1, 1, 1}).reshape({g.size(1)});
    };
    db_magnitude = sums(absolute(grad));
    EXPECT_TRUE(explained_by_rounding(b.grad(), sums(grad), db_magnitude, pixels));
  }

  // Again, with two threads, into poisoned memory.
  const Tensor dx = x.grad().clone(), dw = w.grad().clone(), db = c.bias ? b.grad().clone() : Tensor();
  set_num_threads(2);
  for (Tensor* leaf : {&x, &w, &b}) {
    if (!leaf->defined()) continue;
    leaf->grad().fill_(std::numeric_limits<double>::quiet_NaN());
    leaf->zero_grad();
  }
  const Tensor again = function(x, w, b, o);
  EXPECT_THAT(again, testing::HasSameBits(y));
  again.backward(grad, true);
  EXPECT_THAT(x.grad(), testing::HasSameBits(dx));
  EXPECT_THAT(w.grad(), testing::HasSameBits(dw));
  if (c.bias) {
    EXPECT_THAT(b.grad(), testing::HasSameBits(db));
  }

  // Adding to what is there: twice as much, but for what rounding explains of both sums. Another kernel may
  // add up the second, in another order.
  again.backward(grad);
  const auto check_twice = [&](const Tensor& sum, const Tensor& once, const Tensor& magnitude,
                               std::int64_t terms) {
    const auto twice = [](const Tensor& of) {
      std::vector<double> values = of.to_vector<double>();
      for (double& value : values) value *= 2;
      return from_vector(values, of.shape());
    };
    EXPECT_TRUE(explained_by_rounding(sum, twice(once), twice(magnitude), terms, 2));
  };
  check_twice(x.grad(), dx, dx_magnitude, dx_terms);
  check_twice(w.grad(), dw, dw_magnitude, pixels);
  if (c.bias) check_twice(b.grad(), db, db_magnitude, pixels);
}

/// Random sizes and options that fit together; channels and groups are left to the caller.
inline ConvCase random_case() {
  const auto number = [](std::int64_t low, std::int64_t high) { return *rc::gen::inRange(low, high + 1); };
  const auto pair = [&](std::int64_t low, std::int64_t high) {
    return Size2(number(low, high), number(low, high));
  };
  ConvCase c;
  const Size2 kernel = *rc::gen::weightedElement<Size2>({{1, Size2(1)}, {2, Size2(3)}, {3, pair(1, 5)}});
  c.options.dilation = *rc::gen::weightedElement<Size2>({{3, Size2(1)}, {2, pair(1, 3)}});
  c.options.same_padding = number(0, 4) == 0;
  if (!c.options.same_padding) {
    c.options.stride = *rc::gen::weightedElement<Size2>({{2, Size2(1)}, {3, pair(1, 4)}});
    c.options.padding = *rc::gen::weightedElement<Size2>({{1, Size2(0)}, {3, pair(0, 4)}});
  }
  const auto in_size = [&](std::int64_t k, std::int64_t padding, std::int64_t dilation) {
    const std::int64_t least =
        c.options.same_padding ? 1 : std::max<std::int64_t>(dilation * (k - 1) + 1 - 2 * padding, 1);
    return number(least, least + 12);
  };
  c.input = {number(0, 3), 1, in_size(kernel.h, c.options.padding.h, c.options.dilation.h),
             in_size(kernel.w, c.options.padding.w, c.options.dilation.w)};
  c.weight = {1, 1, kernel.h, kernel.w};
  c.bias = number(0, 1) == 1;
  c.format = number(0, 1) == 1 ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  c.dtype = *rc::gen::weightedElement<DType>(
      {{4, DType::Float32}, {2, DType::Float64}, {1, DType::BFloat16}, {1, DType::Float16}});
  c.parameter_dtype = c.dtype == DType::Float64 || number(0, 1) == 1 ? c.dtype : DType::Float32;
  c.unaligned = number(0, 2) == 0;
  return c;
}

}  // namespace lamella::test
