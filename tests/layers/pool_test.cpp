#include "lamella/layers/pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

#include "lamella/core/error.h"
#include "lamella/core/threads.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};

enum class Kind { Max, Average, AverageWithoutPadding, Adaptive };

struct Case {
  Kind kind = Kind::Max;
  Shape shape;
  Size2 kernel = 1, stride = 1, padding = 0, dilation = 1, out = 1;
  bool ceil_mode = false;

  Tensor run(const Tensor& x) const {
    switch (kind) {
      case Kind::Max:
        return max_pool2d(x, {kernel, stride, padding, dilation, ceil_mode});
      case Kind::Adaptive:
        return adaptive_avg_pool2d(x, out);
      default:
        return avg_pool2d(x, {kernel, stride, padding, ceil_mode, kind == Kind::Average});
    }
  }
};

std::int64_t windows_of(std::int64_t in, std::int64_t k, std::int64_t s, std::int64_t p, std::int64_t d,
                        bool ceil_mode) {
  const double last = static_cast<double>(in + 2 * p - d * (k - 1) - 1) / static_cast<double>(s);
  auto count = static_cast<std::int64_t>(ceil_mode ? std::ceil(last) : std::floor(last)) + 1;
  if (ceil_mode && (count - 1) * s - p >= in) --count;
  return count;
}

struct Result {
  Tensor y, dx;
  std::vector<double> y_terms, dx_terms;  // sums of absolute terms
};

/// By the definition, in float64: the gradient is spread from each window.
Result reference(const Case& c, const Tensor& x, const std::vector<double>& grad) {
  const std::vector<double> xs = x.to_vector<double>();
  const std::int64_t planes = c.shape[0] * c.shape[1], H = c.shape[2], W = c.shape[3];
  const bool adaptive = c.kind == Kind::Adaptive;
  const std::int64_t OH =
      adaptive ? c.out.h : windows_of(H, c.kernel.h, c.stride.h, c.padding.h, c.dilation.h, c.ceil_mode);
  const std::int64_t OW =
      adaptive ? c.out.w : windows_of(W, c.kernel.w, c.stride.w, c.padding.w, c.dilation.w, c.ceil_mode);
  std::vector<double> y, dx(xs.size(), 0.0), y_terms, dx_terms(xs.size(), 0.0);
  for (std::int64_t p = 0; p < planes; ++p)
    for (std::int64_t oh = 0; oh < OH; ++oh)
      for (std::int64_t ow = 0; ow < OW; ++ow) {
        std::vector<std::size_t> inside;
        double padded = 0;
        if (adaptive) {
          for (std::int64_t h = oh * H / OH; h < ((oh + 1) * H + OH - 1) / OH; ++h)
            for (std::int64_t w = ow * W / OW; w < ((ow + 1) * W + OW - 1) / OW; ++w)
              inside.push_back(static_cast<std::size_t>((p * H + h) * W + w));
        } else {
          for (std::int64_t i = 0; i < c.kernel.h; ++i)
            for (std::int64_t j = 0; j < c.kernel.w; ++j) {
              const std::int64_t h = oh * c.stride.h - c.padding.h + i * c.dilation.h;
              const std::int64_t w = ow * c.stride.w - c.padding.w + j * c.dilation.w;
              if (h < H + c.padding.h && w < W + c.padding.w) ++padded;
              if (h >= 0 && h < H && w >= 0 && w < W)
                inside.push_back(static_cast<std::size_t>((p * H + h) * W + w));
            }
        }
        const std::size_t o = y.size();
        if (c.kind == Kind::Max) {
          double best = -std::numeric_limits<double>::infinity();
          std::ptrdiff_t where = -1;
          for (const std::size_t i : inside)
            if (xs[i] > best || std::isnan(xs[i]) || where < 0)
              best = xs[i], where = static_cast<std::ptrdiff_t>(i);
          if (where >= 0) {
            dx[static_cast<std::size_t>(where)] += grad[o % grad.size()];
            dx_terms[static_cast<std::size_t>(where)] += std::abs(grad[o % grad.size()]);
          }
          y.push_back(best);
          y_terms.push_back(0);
        } else {
          const double count = c.kind == Kind::Average ? padded : static_cast<double>(inside.size());
          double sum = 0, terms = 0;
          for (const std::size_t i : inside) {
            sum += xs[i];
            terms += std::abs(xs[i]);
            dx[i] += grad[o % grad.size()] / count;
            dx_terms[i] += std::abs(grad[o % grad.size()]) / count;
          }
          y.push_back(sum / count);
          y_terms.push_back(terms / count);
        }
      }
  return {from_vector(y, {c.shape[0], c.shape[1], OH, OW}), from_vector(dx, c.shape), y_terms, dx_terms};
}

double unit(DType dtype) {
  if (dtype == DType::Float64) return 0x1p-52;
  if (dtype == DType::Float32) return 0x1p-23;
  return dtype == DType::Float16 ? 0x1p-10 : 0x1p-7;
}

/// Empty if forward and gradient are within the rounding of the type.
std::string difference(const Case& c, DType dtype, MemoryFormat format) {
  Tensor x = random_tensor(c.shape, 1, {.format = format}).to(dtype).detach().set_requires_grad();
  const Tensor y = c.run(x);
  if (y.memory_format() != x.memory_format() && y.numel() != y.size(0) * y.size(1)) return "format";
  const Tensor grad = random_tensor(y.shape(), 2, {.format = format}).to(dtype);
  x.set_grad(full(c.shape, NAN, {.dtype = dtype, .format = format}));
  x.zero_grad();
  y.backward(grad);
  const Result want = reference(c, x, grad.to_vector<double>());
  if (y.shape() != want.y.shape())
    return "shape " + y.shape().to_string() + " not " + want.y.shape().to_string();
  const double u = unit(dtype), sums = size_of(dtype) == 2 ? 0x1p-23 : u;
  const double smallest = dtype == DType::Float16 ? 0x1p-24 : 0;  // its numbers lie no closer
  const auto compare = [&](const Tensor& got, const Tensor& expected, const std::vector<double>& terms,
                           const char* what) {
    const std::vector<double> a = got.to_vector<double>(), b = expected.to_vector<double>();
    for (std::size_t i = 0; i < a.size(); ++i)
      if (!(a[i] == b[i] || std::abs(a[i] - b[i]) <= u * std::abs(b[i]) + 16 * sums * terms[i] + smallest))
        return std::string(what) + "[" + std::to_string(i) + "] is " + std::to_string(a[i]) + " not " +
               std::to_string(b[i]);
    return std::string();
  };
  const std::string forward = compare(y, want.y, want.y_terms, "y");
  return forward.empty() ? compare(x.grad(), want.dx, want.dx_terms, "dx") : forward;
}

RC_GTEST_PROP(PoolTest, agrees_with_the_definition, ()) {
  const auto in = [](std::int64_t low, std::int64_t high) {
    return *rc::gen::inRange<std::int64_t>(low, high + 1);
  };
  Case c;
  c.kind = static_cast<Kind>(in(0, 3));
  c.shape = {in(1, 3), in(1, 20), in(1, 12), in(1, 12)};
  c.kernel = {in(1, 5), in(1, 5)};
  c.stride = {in(1, 4), in(1, 4)};
  c.padding = {in(0, c.kernel.h / 2), in(0, c.kernel.w / 2)};
  if (c.kind == Kind::Max) c.dilation = {in(1, 3), in(1, 3)};
  c.ceil_mode = in(0, 1) == 1;
  c.out = {in(1, 15), in(1, 15)};
  const auto fits = [](std::int64_t size, std::int64_t k, std::int64_t s, std::int64_t p, std::int64_t d,
                       bool up) { return (up ? size + s - 1 : size) + 2 * p >= d * (k - 1) + 1; };
  RC_PRE(c.kind == Kind::Adaptive ||
         (fits(c.shape[2], c.kernel.h, c.stride.h, c.padding.h, c.dilation.h, c.ceil_mode) &&
          fits(c.shape[3], c.kernel.w, c.stride.w, c.padding.w, c.dilation.w, c.ceil_mode)));
  const DType types[] = {DType::Float32, DType::Float64, DType::BFloat16, DType::Float16};
  const DType dtype = types[in(0, 3)];
  for (const MemoryFormat format : kFormats) {
    const std::string wrong = difference(c, dtype, format);
    if (!wrong.empty()) RC_FAIL(wrong);
  }
}

TEST(PoolTest, global_average_keeps_its_digits) {
  for (const MemoryFormat format : kFormats)
    for (const Shape& shape :
         {Shape{2, 70, 7, 7}, Shape{3, 5, 200, 190}, Shape{1, 1, 1, 1}, Shape{2, 3, 1, 9}}) {
      Case c;
      c.kind = Kind::Adaptive;
      c.shape = shape;
      for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16})
        EXPECT_EQ(difference(c, dtype, format), "") << shape.to_string() << ' ' << name(format);
    }
}

Tensor sample() {  // 5 x 7 with repeated maxima
  std::vector<double> values;
  for (int i = 0; i < 35; ++i) values.push_back(i * i * 7 % 23);
  return from_vector(values, {1, 1, 5, 7}).set_requires_grad();
}

void expect_values(const Tensor& x, const Tensor& y, const std::vector<double>& values,
                   const std::vector<double>& gradient) {
  EXPECT_THAT(y, IsClose(from_vector(values, y.shape()), {.relative = 1e-14}));
  std::vector<double> grad;
  for (std::int64_t i = 1; i <= y.numel(); ++i) grad.push_back(static_cast<double>(i));
  y.backward(from_vector(grad, y.shape()));
  EXPECT_THAT(x.grad(), IsClose(from_vector(gradient, x.shape()), {.relative = 1e-14}));
}

TEST(PoolTest, max_pool2d_agrees_with_pytorch) {
  Tensor x = sample();
  expect_values(x, max_pool2d(x, {.kernel = 3, .stride = 2, .padding = 1}),
                {21, 17, 20, 22, 21, 22, 22, 20, 22, 22, 17, 20},
                {0, 0, 0, 2, 3, 0, 4, 6, 0,  0,  0, 0,  0, 0, 0, 0, 0, 13,
                 0, 8, 0, 0, 0, 0, 0, 0, 11, 12, 0, 19, 0, 0, 0, 0, 0});
  x = sample();
  expect_values(x, max_pool2d(x, {.kernel = 2, .ceil_mode = true}),
                {21, 17, 20, 22, 15, 22, 20, 20, 22, 21, 15, 19},
                {0, 0, 0, 2, 3, 0, 4, 1, 0, 0, 0, 0, 0,  0, 5,  0, 0, 6,
                 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 9, 10, 0, 11, 0, 12});
  x = sample();
  expect_values(x,
                max_pool2d(x, {.kernel = {2, 3},
                               .stride = Size2{3, 2},
                               .padding = {0, 1},
                               .dilation = {2, 1},
                               .ceil_mode = true}),
                {15, 22, 22, 22, 7, 7, 17, 20}, {0, 0, 0, 0, 0,  0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 5,
                                                 0, 0, 0, 0, 11, 0, 0, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0});
}

TEST(PoolTest, avg_pool2d_agrees_with_pytorch) {
  Tensor x = sample();
  const Tensor y = avg_pool2d(x, {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true});
  EXPECT_THAT(y, IsClose(from_vector<double>({39.0 / 9, 65.0 / 9, 11, 65.0 / 9, 70.0 / 9, 104.0 / 9,
                                              133.0 / 9, 103.0 / 9, 48.0 / 9, 68.0 / 9, 65.0 / 9, 66.0 / 9},
                                             {1, 1, 3, 4}),
                         {.relative = 1e-14}));
  expect_values(x,
                avg_pool2d(x, {.kernel = {2, 3},
                               .stride = Size2{2, 2},
                               .padding = {0, 1},
                               .ceil_mode = true,
                               .count_include_pad = false}),
                {9.75, 65.0 / 6, 16.5, 16.25, 9.5, 34.0 / 3, 85.0 / 6, 18.5, 18, 18, 12, 14.5},
                {0.25,    7.0 / 12, 1.0 / 3,  5.0 / 6,  0.5,  1.5,      1,        0.25,    7.0 / 12,
                 1.0 / 3, 5.0 / 6,  0.5,      1.5,      1,    1.25,     2.25,     1,       13.0 / 6,
                 7.0 / 6, 19.0 / 6, 2,        1.25,     2.25, 1,        13.0 / 6, 7.0 / 6, 19.0 / 6,
                 2,       4.5,      47.0 / 6, 10.0 / 3, 7,    11.0 / 3, 29.0 / 3, 6});
}

TEST(PoolTest, adaptive_avg_pool2d_agrees_with_pytorch) {
  const Tensor x = sample();
  EXPECT_THAT(adaptive_avg_pool2d(x, {3, 4}),
              IsClose(from_vector<double>({9.75, 65.0 / 6, 16.5, 16.25, 35.0 / 3, 104.0 / 9, 133.0 / 9,
                                           103.0 / 6, 12, 34.0 / 3, 65.0 / 6, 16.5},
                                          {1, 1, 3, 4}),
                      {.relative = 1e-14}));
}

TEST(PoolTest, gradients_agree_with_differences) {
  for (const MemoryFormat format : kFormats) {
    const Tensor x = random_tensor({2, 3, 5, 6}, 1, {.format = format, .requires_grad = true});
    const testing::GradcheckOptions exact{.step = 1};
    EXPECT_TRUE(Passes(testing::gradcheck(
        [](const Tensors& in) { return avg_pool2d(in[0], {.kernel = 3, .stride = 2, .padding = 1}); }, {x},
        exact)));
    EXPECT_TRUE(Passes(testing::gradcheck(
        [](const Tensors& in) {
          return adaptive_avg_pool2d(in[0], {2, 4});
        },
        {x}, exact)));
    EXPECT_TRUE(Passes(testing::gradcheck(
        [](const Tensors& in) { return max_pool2d(in[0], {.kernel = 3, .stride = 2}); }, {x})));
  }
}

TEST(PoolTest, nan_wins_over_numbers) {
  for (const MemoryFormat format : kFormats) {
    Tensor x = random_tensor({1, 2, 4, 4}, 1, {.format = format});
    x({0, 1, 1, 1}).fill_(NAN);
    const std::vector<double> y = max_pool2d(x, {.kernel = 2}).to_vector<double>();
    for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i == 4) << i;
  }
}

TEST(PoolTest, a_window_beside_the_input_gives_minus_infinity) {
  for (const MemoryFormat format : kFormats) {
    Tensor x = ones({1, 3, 1, 1}, {.format = format}).set_requires_grad();
    const Tensor y = max_pool2d(x, {.kernel = 2, .stride = 1, .padding = 1, .dilation = 2});
    EXPECT_THAT(y, HasSameBits(full({1, 3, 1, 1}, -std::numeric_limits<double>::infinity())));
    y.backward(ones({1, 3, 1, 1}));
    EXPECT_THAT(x.grad(), HasSameBits(zeros({1, 3, 1, 1})));
  }
}

TEST(PoolTest, gives_the_same_bits_for_any_number_of_threads) {
  const int threads = num_threads();
  for (const MemoryFormat format : kFormats)
    for (const Kind kind : {Kind::Max, Kind::Average, Kind::Adaptive}) {
      Case c{kind, {5, 33, 30, 31}, 3, 2, 1, 1, 1, false};
      Tensors results[2];
      for (const int count : {1, 2}) {
        set_num_threads(count);
        const Tensor x =
            random_tensor(c.shape, 1, {.dtype = float32, .format = format, .requires_grad = true});
        const Tensor y = c.run(x);
        y.backward(random_tensor(y.shape(), 2, {.dtype = float32}));
        results[count - 1] = {y, x.grad()};
      }
      EXPECT_THAT(results[1][0], HasSameBits(results[0][0]));
      EXPECT_THAT(results[1][1], HasSameBits(results[0][1]));
    }
  set_num_threads(threads);
}

TEST(PoolTest, takes_strided_inputs_and_adds_to_gradients) {
  const Tensor base = random_tensor({2, 6, 9, 8}, 1, {.requires_grad = true});
  for (const Kind kind : {Kind::Max, Kind::Average, Kind::Adaptive}) {
    Case c{kind, {2, 3, 8, 9}, 3, 2, 1, 1, {2, 3}, false};
    Tensor x = base.slice(1, {0, {}, 2}).transpose(2, 3);
    const Tensor y = c.run(x);
    const Tensor grad = random_tensor(y.shape(), 2);
    const Result want = reference(c, x, grad.to_vector<double>());
    EXPECT_THAT(y, IsClose(want.y, {.relative = 1e-13, .absolute = 1e-14}));
    Tensor leaf = x.detach().clone().set_requires_grad();
    leaf.set_grad(want.dx.transpose(0, 1).contiguous().transpose(0, 1));  // neither format
    c.run(leaf).backward(grad);
    std::vector<double> twice = want.dx.to_vector<double>();
    for (double& value : twice) value *= 2;
    EXPECT_THAT(leaf.grad(), IsClose(from_vector(twice, c.shape), {.relative = 1e-13, .absolute = 1e-14}));
    for (const MemoryFormat format : kFormats) {
      Tensor dense = x.detach().contiguous(format).clone().set_requires_grad();
      c.run(dense).backward(grad);
      c.run(dense).backward(grad);
      EXPECT_THAT(dense.grad(), IsClose(from_vector(twice, c.shape), {.relative = 1e-13, .absolute = 1e-14}));
    }
  }
}

TEST(PoolTest, an_empty_batch_gives_an_empty_result) {
  for (const MemoryFormat format : kFormats)
    for (const Kind kind : {Kind::Max, Kind::Average, Kind::Adaptive}) {
      const Tensor x = empty({0, 3, 8, 8}, {.format = format, .requires_grad = true});
      const Tensor y = Case{kind, x.shape(), 3, 2, 1, 1, 4, false}.run(x);
      EXPECT_EQ(y.shape(), (Shape{0, 3, 4, 4}));
      y.backward(empty_like(y));
      EXPECT_EQ(x.grad().shape(), x.shape());
    }
}

template <class E, class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& other) {
    return std::string("another error: ") + other.what();
  }
  return "no error";
}

TEST(PoolTest, says_what_does_not_fit) {
  const Tensor x = zeros({2, 3, 4, 5});
  EXPECT_THAT(error_of<ShapeError>([&] {
                max_pool2d(zeros({3, 4, 5}), {.kernel = 2});
              }),
              HasSubstr("max_pool2d: input [3,4,5] float32 cpu; it must be [N,C,H,W]"));
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, {}); }), HasSubstr("max_pool2d: kernel 0"));
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, {.kernel = 2, .stride = 0}); }),
              HasSubstr("stride 0"));
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, {.kernel = 3, .padding = 2}); }),
              HasSubstr("padding 2 for kernel 3"));
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, {.kernel = 3, .padding = -1}); }),
              HasSubstr("padding -1"));
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, {.kernel = 3, .dilation = 0}); }),
              HasSubstr("dilation 0"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                avg_pool2d(x, {.kernel = {5, 1}});
              }),
              HasSubstr("avg_pool2d: the dilated"));
  EXPECT_THAT(error_of<ShapeError>([&] { adaptive_avg_pool2d(x, {0, 2}); }), HasSubstr("output size 0 x 2"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                adaptive_avg_pool2d(zeros({1, 2, 0, 2}), 1);
              }),
              HasSubstr("H and W"));
  EXPECT_THAT(error_of<DTypeError>([&] { avg_pool2d(x.to(int64), {.kernel = 2}); }), HasSubstr("avg_pool2d"));
  EXPECT_THAT(error_of<Error>([&] { avg_pool2d(Tensor(), {.kernel = 2}); }), HasSubstr("avg_pool2d"));
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, {.kernel = 2, .stride = huge, .ceil_mode = true}); }),
              HasSubstr("max_pool2d: "));
  EXPECT_THAT(error_of<ShapeError>([&] {
                avg_pool2d(x, {.kernel = std::int64_t{1} << 33, .padding = std::int64_t{1} << 32});
              }),
              HasSubstr("avg_pool2d: kernel size 8589934592 must be at most 2147483647"));
  const std::int64_t most = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(max_pool2d(x, {.kernel = most, .stride = 1, .padding = most / 2}).shape(), x.shape())
      << "a window that is nearly all padding is no loop over its taps";
  EXPECT_EQ(avg_pool2d(x, {.kernel = most, .stride = most, .padding = most / 2}).shape(),
            (Shape{2, 3, 1, 1}));
  EXPECT_EQ(max_pool2d(x, {.kernel = 2, .stride = most, .ceil_mode = true}).shape(), (Shape{2, 3, 1, 1}));
}

}  // namespace
}  // namespace lamella
