// The one-operand functions and where() of lamella/tensor/arithmetic.h.
#include <functional>

#include "lamella/layers/activation.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/compare.h"
#include "lamella/tensor/reduce.h"
#include "tests/tensor/elementwise_help.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::expect_gradients;
using testing::gradcheck;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::kFloatingTypes;
using testing::kLayouts;
using testing::laid_out;
using testing::message_of;
using testing::Passes;
using testing::plain_map;
using testing::random_tensor;
using testing::rounding_bound;
using ::testing::StartsWith;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  const char* name;
  std::function<Tensor(const Tensor&)> op;
  std::function<double(double)> formula;
  double low, high;           ///< where to try it
  std::vector<double> kinks;  ///< to stay away from
  double roundings;
};

const Case kCases[] = {
    {"neg", neg, [](double x) { return -x; }, -3, 3, {}, 0},
    {"abs", abs, [](double x) { return std::abs(x); }, -3, 3, {0}, 0},
    {"exp", exp, [](double x) { return std::exp(x); }, -4, 4, {}, 3},
    {"log", log, [](double x) { return std::log(x); }, 0.1, 0.9, {}, 3},
    {"sqrt", sqrt, [](double x) { return std::sqrt(x); }, 0.1, 4, {}, 1},
    {"clamp",
     [](const Tensor& x) { return clamp(x, -1, 1.5); },
     [](double x) { return std::min(std::max(x, -1.0), 1.5); },
     -3,
     3,
     {-1, 1.5},
     0},
    {"clamp low",
     [](const Tensor& x) { return clamp(x, 0.25); },
     [](double x) { return std::max(x, 0.25); },
     -3,
     3,
     {0.25},
     0},
    {"clamp high",
     [](const Tensor& x) { return clamp(x, {}, 0.25); },
     [](double x) { return std::min(x, 0.25); },
     -3,
     3,
     {0.25},
     0},
};

TEST(MathTest, follows_the_formulas_in_every_type_and_layout) {
  for (const Case& c : kCases)
    for (const DType dtype : kFloatingTypes)
      for (const auto layout : kLayouts) {
        SCOPED_TRACE(::testing::Message() << c.name << ' ' << name(dtype) << ' ' << static_cast<int>(layout));
        const Tensor x = laid_out(
            random_tensor({2, 5, 3, 7}, 1, {.low = c.low, .high = c.high, .kinks = c.kinks, .dtype = dtype}),
            layout);
        const Tensor y = c.op(x);
        EXPECT_EQ(y.dtype(), dtype);
        EXPECT_EQ(y.memory_format(), x.memory_format());
        EXPECT_THAT(y, IsClose(plain_map(x.shape(), c.formula, x), rounding_bound(dtype, c.roundings)));
      }
}

TEST(MathTest, gradients_agree_with_differences_and_add_up) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
      const Tensor x = random_tensor(
          {2, 3, 4, 5}, 2,
          {.low = c.low, .high = c.high, .kinks = c.kinks, .format = format, .requires_grad = true});
      EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return c.op(t[0]); }, {x})));
      const Tensor g = random_tensor({2, 3, 4, 5}, 3);
      const Tensor exact = gradients_of({c.op(x)}, {x}, {g})[0];
      expect_gradients(c.op(x), g, {x}, {exact}, {1e-13, 0});
      for (const DType dtype : {float32, bfloat16, float16}) {
        const Tensor narrow = x.detach().to(dtype).set_requires_grad(), by = g.to(dtype);
        const Tensor wide = narrow.detach().to(float64).set_requires_grad();
        const Tensor expected = gradients_of({c.op(wide)}, {wide}, {by.to(float64)})[0];
        auto bound = rounding_bound(dtype, 8);
        bound.relative += 2 * testing::unit_roundoff(dtype);  // of the saved output
        expect_gradients(c.op(narrow), by, {narrow}, {expected}, bound);
      }
    }
  }
}

TEST(MathTest, special_values) {
  const Tensor x = tensor({kNaN, kInfinity, -kInfinity, 0, -1});
  EXPECT_THAT(exp(x), IsClose(tensor({kNaN, kInfinity, 0, 1, std::exp(-1.0)})));
  EXPECT_THAT(log(x), IsClose(tensor({kNaN, kInfinity, kNaN, -kInfinity, kNaN})));
  EXPECT_THAT(sqrt(x), IsClose(tensor({kNaN, kInfinity, kNaN, 0, kNaN})));
  EXPECT_THAT(clamp(x, -0.5, 2), IsClose(tensor({kNaN, 2, -0.5, 0, -0.5})));
  EXPECT_THAT(abs(x), IsClose(tensor({kNaN, kInfinity, kInfinity, 0, 1})));
  EXPECT_TRUE(std::signbit((-tensor({0})).item()));
  EXPECT_THAT(clamp(tensor({1, 5}), 4, 2), IsClose(tensor({2, 2})));  // the upper bound wins
  const Tensor nan = full({5}, kNaN);
  EXPECT_THAT(clamp(x, kNaN), IsClose(nan));
  EXPECT_THAT(clamp(x, -0.5, kNaN), IsClose(nan));
  EXPECT_THAT(clamp(x, {}, kNaN), IsClose(nan));
  EXPECT_THAT(clamp(arange(0, 5, 1, {.dtype = int64}), kNaN, 2), IsClose(nan));
}

TEST(MathTest, gradients_at_kinks) {
  const auto slope = [](const std::function<Tensor(const Tensor&)>& op, std::initializer_list<double> at) {
    const Tensor x = tensor(at).set_requires_grad();
    op(x).backward(full(x.shape(), 3));
    return x.grad();
  };
  EXPECT_THAT(slope(abs, {-1, 0, 1}), IsClose(tensor({-3, 0, 3})));
  EXPECT_THAT(slope([](const Tensor& x) { return clamp(x, -1, 2); }, {-1.5, -1, 0, 2, 2.5, kNaN}),
              IsClose(tensor({0, 3, 3, 3, 0, 0})));
  EXPECT_THAT(slope([](const Tensor& x) { return clamp(x, {}, 2); }, {-9, 2, 3}), IsClose(tensor({3, 3, 0})));
  EXPECT_THAT(slope([](const Tensor& x) { return clamp(x, kNaN, 2); }, {-9, 2, 3}), IsClose(zeros({3})));
  EXPECT_THAT(slope([](const Tensor& x) { return clamp(x, kNaN) + x; }, {-9, 2}), IsClose(tensor({3, 3})));
}

/// The largest error of a float32 operator over [low, high], in units of the exact result's last place.
double worst_error(Tensor (*op)(const Tensor&), double (*exact)(double), float low, float high) {
  constexpr int kSteps = 200'000;
  std::vector<float> at(kSteps + 1);
  for (int i = 0; i <= kSteps; ++i)
    at[static_cast<std::size_t>(i)] = low + (high - low) * static_cast<float>(i) / kSteps;
  const auto got = op(from_vector(at, {kSteps + 1})).to_vector<float>();
  double most = 0;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const double expected = exact(static_cast<double>(at[i]));
    const float size = std::max(static_cast<float>(std::abs(expected)), std::numeric_limits<float>::min());
    const double ulp = static_cast<double>(std::nextafter(size, HUGE_VALF)) - static_cast<double>(size);
    most = std::max(most, std::abs(static_cast<double>(got[i]) - expected) / ulp);
  }
  return most;
}

TEST(MathTest, float32_exponential_and_tangent_are_within_their_bounds) {
  EXPECT_LT(worst_error(exp, std::exp, -105, 88.7f), 1.5);
  EXPECT_LT(worst_error(exp, std::exp, -1, 1), 1.5);
  EXPECT_LT(worst_error(tanh, std::tanh, -10, 10), 3);
  EXPECT_LT(worst_error(tanh, std::tanh, -0.01f, 0.01f), 3);
  const double inf = kInfinity;
  // Many of each, so that vector code and the rest of the loop both see them.
  for (const std::int64_t copies : {1, 37}) {
    const auto over = [&](double x) { return full({copies}, x); };
    for (const double large : {89.0, 1e30, inf}) EXPECT_THAT(exp(over(large)), IsClose(over(inf)));
    for (const double low : {-105.0, -1e30, -inf}) EXPECT_THAT(exp(over(low)), HasSameBits(over(0)));
    EXPECT_THAT(exp(over(0)), HasSameBits(over(1)));
    EXPECT_THAT(exp(over(kNaN)), IsClose(over(kNaN)));
    EXPECT_THAT(tanh(over(inf)), HasSameBits(over(1)));
    EXPECT_THAT(tanh(over(-inf)), HasSameBits(over(-1)));
    EXPECT_THAT(tanh(over(-0.0)), HasSameBits(over(-0.0)));
    EXPECT_THAT(tanh(over(1e-40)), HasSameBits(over(1e-40)));
    EXPECT_THAT(tanh(over(-kNaN)), IsClose(over(kNaN)));
  }
}

TEST(MathTest, where_chooses_with_broadcasting) {
  const Shape shape{2, 3, 4, 5};
  const auto choose = [](double c, double a, double b) { return c != 0 ? a : b; };
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const DType dtype : {float32, float64, bfloat16, float16, int64, uint8})
      for (const Shape& of_condition : {shape, Shape{3, 1, 1}, Shape{}})
        for (const Shape& of_b : {shape, Shape{2, 3, 1, 1}, Shape{}}) {
          const Tensor condition = less(random_tensor(of_condition, 4), 0.2);
          const Tensor a = (random_tensor(shape, 5, {.low = 0, .high = 100})).to(dtype).contiguous(format);
          const Tensor b = (random_tensor(of_b, 6, {.low = 0, .high = 100})).to(dtype);
          const Tensor y = where(condition, a, b);
          EXPECT_EQ(y.dtype(), dtype);
          EXPECT_EQ(y.memory_format(), format);
          EXPECT_THAT(y, IsClose(plain_map(shape, choose, condition, a, b), {0, 0}));
          if (!is_floating(dtype)) continue;
          const Tensor la = a.detach().set_requires_grad(), lb = b.detach().set_requires_grad();
          const Tensor g = random_tensor(shape, 7, {.dtype = dtype});
          const auto none = [](double) { return 0.0; };
          const Tensor nothing = plain_map(shape, none, g);
          auto bound = rounding_bound(dtype, 4);
          bound.absolute = 8 * testing::unit_roundoff(dtype);
          expect_gradients(where(condition, la, lb), g, {la, lb},
                           {plain_map(shape, choose, condition, g, nothing),
                            sum_to(plain_map(shape, choose, condition, nothing, g), of_b)},
                           bound);
        }
  // What is not chosen does not leak, whatever it is.
  const Tensor flag = tensor({1, 0}, {.dtype = boolean});
  EXPECT_THAT(where(flag, tensor({1, kNaN}), tensor({kNaN, 2})), IsClose(tensor({1, 2})));
  const Tensor a = random_tensor({2, 3}, 8, {.requires_grad = true});
  const Tensor b = random_tensor({3}, 9, {.requires_grad = true});
  const Tensor mask = less(random_tensor({2, 3}, 10), 0);
  EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return where(mask, t[0], t[1]); }, {a, b})));
}

TEST(MathTest, errors_name_the_operator) {
  EXPECT_THAT(message_of<Error>([] { exp(Tensor()); }), StartsWith("exp: "));
  EXPECT_THAT(message_of<ShapeError>([] { clamp(ones({1}), {}, {}); }), StartsWith("clamp: "));
  EXPECT_THAT(message_of<DTypeError>([] { where(ones({2}), ones({2}), ones({2})); }),
              AllOf(StartsWith("where: "), HasSubstr("bool"), HasSubstr("float32")));
  EXPECT_THAT(message_of<ShapeError>([] { where(ones({2}, {.dtype = boolean}), ones({3}), ones({3})); }),
              AllOf(StartsWith("where: "), HasSubstr("[2]"), HasSubstr("[3]")));
  EXPECT_EQ(exp(zeros({0, 3})).shape(), (Shape{0, 3}));
}

}  // namespace
}  // namespace lamella
