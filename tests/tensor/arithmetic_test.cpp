#include "lamella/tensor/arithmetic.h"

#include <functional>

#include "lamella/core/threads.h"
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
using testing::Layout;
using testing::message_of;
using testing::Passes;
using testing::plain_map;
using testing::random_tensor;
using testing::rounding_bound;
using ::testing::StartsWith;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using TwoTensors = Tensor (*)(const Tensor&, const Tensor&);

struct BinaryCase {
  const char* name;
  TwoTensors op;
  double (*formula)(double, double);
  double (*by_a)(double, double);  ///< derivatives
  double (*by_b)(double, double);
  double roundings;
};

const BinaryCase kBinary[] = {
    {"add", [](const Tensor& a, const Tensor& b) { return a + b; }, [](double a, double b) { return a + b; },
     [](double, double) { return 1.0; }, [](double, double) { return 1.0; }, 1},
    {"sub", [](const Tensor& a, const Tensor& b) { return a - b; }, [](double a, double b) { return a - b; },
     [](double, double) { return 1.0; }, [](double, double) { return -1.0; }, 1},
    {"mul", [](const Tensor& a, const Tensor& b) { return a * b; }, [](double a, double b) { return a * b; },
     [](double, double b) { return b; }, [](double a, double) { return a; }, 1},
    {"div", [](const Tensor& a, const Tensor& b) { return a / b; }, [](double a, double b) { return a / b; },
     [](double, double b) { return 1 / b; }, [](double a, double b) { return -a / (b * b); }, 3},
    {"maximum", maximum, [](double a, double b) { return std::max(a, b); },
     [](double a, double b) { return a == b  ? 0.5
                                     : a > b ? 1.0
                                             : 0.0; },
     [](double a, double b) { return a == b  ? 0.5
                                     : b > a ? 1.0
                                             : 0.0; }, 0},
    {"minimum", minimum, [](double a, double b) { return std::min(a, b); },
     [](double a, double b) { return a == b  ? 0.5
                                     : a < b ? 1.0
                                             : 0.0; },
     [](double a, double b) { return a == b  ? 0.5
                                     : b < a ? 1.0
                                             : 0.0; }, 0},
    {"pow", [](const Tensor& a, const Tensor& b) { return pow(a, b); },
     [](double a, double b) { return std::pow(a, b); },
     [](double a, double b) { return b * std::pow(a, b - 1); },
     [](double a, double b) { return std::pow(a, b) * std::log(a); }, 16},
};

/// Positive, so that every operator is defined.
Tensor positive(const Shape& shape, std::uint64_t seed, DType dtype = DType::Float64) {
  return random_tensor(shape, seed, {.low = 0.5, .high = 3, .dtype = dtype});
}

TEST(ArithmeticTest, follows_the_formulas_in_every_type_and_layout) {
  const Shape shape{2, 5, 3, 7};
  for (const BinaryCase& c : kBinary)
    for (const DType dtype : kFloatingTypes)
      for (const Layout la : kLayouts)
        for (const Layout lb : kLayouts) {
          SCOPED_TRACE(::testing::Message() << c.name << ' ' << name(dtype) << ' ' << static_cast<int>(la)
                                            << ' ' << static_cast<int>(lb));
          const Tensor a = laid_out(positive(shape, 1, dtype), la),
                       b = laid_out(positive(shape, 2, dtype), lb);
          const Tensor y = c.op(a, b);
          EXPECT_EQ(y.dtype(), dtype);
          EXPECT_TRUE(y.is_contiguous(la == Layout::ChannelsLast ? MemoryFormat::ChannelsLast
                                                                 : MemoryFormat::Contiguous));
          // A difference may cancel: its bound is that of the operands' sizes.
          auto bound = rounding_bound(dtype, c.roundings);
          bound.absolute += 0x1p-22 * (dtype == DType::Float64 ? 0x1p-29 : 1);
          EXPECT_THAT(y, IsClose(plain_map(shape, c.formula, a, b), bound));
        }
}

TEST(ArithmeticTest, broadcasts_in_both_formats) {
  const Shape shape{3, 6, 4, 5};
  const Shape others[] = {{6, 1, 1}, {3, 6, 1, 1}, {1, 6, 1, 1}, {5}, {4, 1}, {3, 1, 4, 5}, {1}, {}};
  for (const BinaryCase& c : kBinary)
    for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
      for (const DType dtype : {DType::Float32, DType::Float16})
        for (const Shape& other : others) {
          SCOPED_TRACE(::testing::Message()
                       << c.name << ' ' << name(format) << ' ' << name(dtype) << ' ' << other.to_string());
          const Tensor x = positive(shape, 3, dtype).contiguous(format), v = positive(other, 4, dtype);
          auto bound = rounding_bound(dtype, c.roundings);
          bound.absolute += 0x1p-22;
          for (const bool first : {true, false}) {
            const Tensor& a = first ? x : v;
            const Tensor& b = first ? v : x;
            const Tensor y = c.op(a, b);
            EXPECT_EQ(y.memory_format(), format);
            EXPECT_THAT(y, IsClose(plain_map(shape, c.formula, a, b), bound));
          }
        }
  const Tensor outer = positive({4, 1, 3}, 5) * positive({1, 5, 1}, 6);
  EXPECT_THAT(outer, IsClose(plain_map(
                         {4, 5, 3}, [](double a, double b) { return a * b; }, positive({4, 1, 3}, 5),
                         positive({1, 5, 1}, 6))));
}

// Rows longer than a block, just short enough for several to share one, and cut by threads; with tails.
TEST(ArithmeticTest, rows_of_any_length) {
  for (const std::int64_t width : {1, 2, 31, 511, 512, 513, 1024, 1025, 5000})
    for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Int32}) {
      SCOPED_TRACE(::testing::Message() << width << ' ' << name(dtype));
      const Tensor a = (random_tensor({37, width}, 7) * 100).to(dtype);
      for (const Shape& other : {Shape{37, width}, Shape{37, 1}, Shape{width}, Shape{1}}) {
        const Tensor b = (random_tensor(other, 8) * 100).to(dtype);
        auto bound = rounding_bound(dtype, 1);
        if (dtype == DType::Int32) bound = {0, 0};
        bound.absolute += dtype == DType::Int32 ? 0 : 1e-4;
        const auto difference = [](double x, double y) { return x - y; };
        EXPECT_THAT(a - b, IsClose(plain_map({37, width}, difference, a, b), bound)) << other.to_string();
        const Tensor spread = laid_out(a, Layout::Spread);
        EXPECT_THAT(spread - b, HasSameBits(a - b)) << other.to_string();
      }
    }
}

TEST(ArithmeticTest, gradients_follow_the_derivatives_and_add_up) {
  const Shape shape{2, 3, 4, 5};
  for (const BinaryCase& c : kBinary)
    for (const DType dtype : kFloatingTypes)
      for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
        for (const Shape& other : {shape, Shape{3, 1, 1}, Shape{2, 3, 1, 1}, Shape{}}) {
          SCOPED_TRACE(::testing::Message()
                       << c.name << ' ' << name(dtype) << ' ' << name(format) << ' ' << other.to_string());
          const Tensor a = positive(shape, 9, dtype).contiguous(format).detach().set_requires_grad();
          const Tensor b = positive(other, 10, dtype).set_requires_grad();
          const Tensor g = positive(shape, 11, dtype);
          const auto da = [&](double x, double y, double by) { return by * c.by_a(x, y); };
          const auto db = [&](double x, double y, double by) { return by * c.by_b(x, y); };
          auto bound = rounding_bound(dtype, c.roundings + 4);
          bound.relative += 2 * testing::unit_roundoff(dtype);
          bound.absolute += 40 * testing::unit_roundoff(dtype);  // sums cancel
          expect_gradients(c.op(a, b), g, {a, b},
                           {plain_map(shape, da, a, b, g), sum_to(plain_map(shape, db, a, b, g), other)},
                           bound);
        }
}

// Many rows of a repeated operand in several threads, whose first block may be a short one.
TEST(ArithmeticTest, repeated_rows_survive_cuts_by_threads) {
  const Tensor a = random_tensor({40, 300, 16}, 25, {.dtype = float32}),
               b = random_tensor({16}, 26, {.dtype = float32});
  EXPECT_THAT(laid_out(a, Layout::Spread) * b, HasSameBits(a * b));
}

TEST(ArithmeticTest, gradients_agree_with_differences) {
  const auto leaf = [](const Shape& shape, std::uint64_t seed,
                       MemoryFormat format = MemoryFormat::Contiguous) {
    return random_tensor(shape, seed, {.low = 0.5, .high = 3, .format = format, .requires_grad = true});
  };
  for (const BinaryCase& c : kBinary)
    for (const Shape& other : {Shape{2, 3, 2, 2}, Shape{3, 1, 1}, Shape{2, 3, 1, 1}, Shape{2}, Shape{}}) {
      SCOPED_TRACE(::testing::Message() << c.name << ' ' << other.to_string());
      const Tensors inputs{leaf({2, 3, 2, 2}, 12, MemoryFormat::ChannelsLast), leaf(other, 13)};
      EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return c.op(t[0], t[1]); }, inputs)));
      EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return c.op(t[1], t[0]); }, inputs)));
      const bool ties = std::string(c.name) == "maximum" || std::string(c.name) == "minimum";
      if (ties) continue;
      EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return c.op(t[0], t[0]); }, {inputs[0]})));
    }
}

using OneTensor = std::function<Tensor(const Tensor&)>;

TEST(ArithmeticTest, numbers_take_the_place_of_either_operand) {
  struct Case {
    const char* name;
    OneTensor op;
    std::function<double(double)> formula;
  };
  const Case cases[] = {
      {"x + s", [](const Tensor& x) { return x + 0.3; }, [](double x) { return x + 0.3; }},
      {"s + x", [](const Tensor& x) { return 0.3 + x; }, [](double x) { return x + 0.3; }},
      {"x - s", [](const Tensor& x) { return x - 0.3; }, [](double x) { return x - 0.3; }},
      {"s - x", [](const Tensor& x) { return 0.3 - x; }, [](double x) { return 0.3 - x; }},
      {"x * s", [](const Tensor& x) { return x * -2.5; }, [](double x) { return x * -2.5; }},
      {"s * x", [](const Tensor& x) { return -2.5 * x; }, [](double x) { return x * -2.5; }},
      {"x / s", [](const Tensor& x) { return x / 0.3; }, [](double x) { return x / 0.3; }},
      {"s / x", [](const Tensor& x) { return 0.3 / x; }, [](double x) { return 0.3 / x; }},
      {"-x", [](const Tensor& x) { return -x; }, [](double x) { return -x; }},
      {"pow(x, 2)", [](const Tensor& x) { return pow(x, 2); }, [](double x) { return x * x; }},
      {"pow(x, -1.5)", [](const Tensor& x) { return pow(x, -1.5); },
       [](double x) { return std::pow(x, -1.5); }},
      {"pow(x, 0)", [](const Tensor& x) { return pow(x, 0); }, [](double) { return 1.0; }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    for (const DType dtype : kFloatingTypes)
      for (const Layout layout : kLayouts) {
        const Tensor x = laid_out(positive({2, 3, 4, 5}, 14, dtype), layout);
        auto bound = rounding_bound(dtype, 16);
        bound.absolute += dtype == DType::Float64 ? 1e-15 : 1e-6;
        EXPECT_THAT(c.op(x), IsClose(plain_map(x.shape(), c.formula, x), bound)) << name(dtype);
        EXPECT_EQ(c.op(x).dtype(), dtype);
      }
    const Tensor x = random_tensor({2, 3, 4, 5}, 15, {.low = 0.5, .high = 3, .requires_grad = true});
    EXPECT_TRUE(Passes(gradcheck([&](const Tensors& t) { return c.op(t[0]); }, {x})));
    const Tensor g = positive({2, 3, 4, 5}, 16);
    const Tensor once = gradients_of({c.op(x)}, {x}, {g})[0];
    expect_gradients(c.op(x), g, {x}, {once}, {1e-13, 0});
  }
}

TEST(ArithmeticTest, types_promote) {
  const auto of = [](DType dtype, const Shape& shape = {2}) { return ones(shape, {.dtype = dtype}); };
  EXPECT_EQ((of(float32) + of(float64)).dtype(), float64);
  EXPECT_EQ((of(float16) + of(bfloat16)).dtype(), float32);
  EXPECT_EQ((of(int32) * of(float16)).dtype(), float16);
  EXPECT_EQ((of(uint8) + of(int64)).dtype(), int64);
  EXPECT_EQ((of(boolean) + of(boolean)).dtype(), boolean);
  EXPECT_EQ((of(boolean) * of(uint8)).dtype(), uint8);
  EXPECT_EQ((of(int32) / of(int32)).dtype(), float32);
  EXPECT_EQ((of(int32) + 1).dtype(), float32);
  EXPECT_EQ((of(bfloat16) * 3).dtype(), bfloat16);
  EXPECT_EQ(abs(of(int32)).dtype(), int32);
  EXPECT_EQ(exp(of(int32)).dtype(), float32);
  // Without axes, a tensor only counts by its kind.
  EXPECT_EQ((of(float32) + of(float64, {})).dtype(), float32);
  EXPECT_EQ((of(float64, {}) + of(bfloat16)).dtype(), bfloat16);
  EXPECT_EQ((of(int32) + of(float64, {})).dtype(), float64);
  EXPECT_EQ((of(float32, {}) + of(float64, {})).dtype(), float64);
  EXPECT_EQ((of(uint8) + of(int64, {})).dtype(), uint8);
}

TEST(ArithmeticTest, mixed_types_get_gradients_of_their_own_type) {
  const Tensor a = positive({2, 3}, 17, bfloat16).set_requires_grad();
  const Tensor b = positive({2, 3}, 18, float64).set_requires_grad();
  const Tensor c = positive({3}, 19, float16).set_requires_grad();
  const Tensor g = positive({2, 3}, 20, float64);
  const auto product = [](double x, double y) { return x * y; };
  const auto in_c = [](double x, double y) { return x * y; };
  expect_gradients(a * b, g, {a, b}, {plain_map({2, 3}, product, g, b), plain_map({2, 3}, product, g, a)},
                   {0x1p-8, 0});
  expect_gradients(b * c, g, {b, c},
                   {plain_map({2, 3}, product, g, c), sum_to(plain_map({2, 3}, in_c, g, b), {3})},
                   {0x1p-10, 0});
  expect_gradients(a + b, g, {a, b}, {g, g}, {0x1p-8, 0});
  const Tensor counts = tensor({1, 2, 3}, {.dtype = int64});
  expect_gradients(c * counts, ones({3}, {.dtype = float16}), {c}, {counts.to(float64)}, {0, 0});
}

TEST(ArithmeticTest, integers_wrap_around) {
  const Tensor a = from_vector<std::uint8_t>({250, 7, 0}, {3});
  const Tensor b = from_vector<std::uint8_t>({10, 9, 1}, {3});
  EXPECT_EQ((a + b).to_vector<std::int64_t>(), (std::vector<std::int64_t>{4, 16, 1}));
  EXPECT_EQ((a - b).to_vector<std::int64_t>(), (std::vector<std::int64_t>{240, 254, 255}));
  EXPECT_EQ((a * b).to_vector<std::int64_t>(), (std::vector<std::int64_t>{196, 63, 0}));
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const Tensor large = from_vector<std::int64_t>({most, -most - 1, (std::int64_t{1} << 53) + 1}, {3});
  const Tensor one = from_vector<std::int64_t>({1}, {1});
  EXPECT_EQ((large + one).to_vector<std::int64_t>()[0], -most - 1);
  EXPECT_EQ((large * one).to_vector<std::int64_t>()[2], (std::int64_t{1} << 53) + 1);  // not by way of double
  EXPECT_EQ((-large).to_vector<std::int64_t>()[1], -most - 1);
  EXPECT_EQ(maximum(large, one).to_vector<std::int64_t>()[0], most);
  const Tensor yes = ones({2}, {.dtype = boolean});
  EXPECT_EQ((yes + yes).to_vector<std::int64_t>(), (std::vector<std::int64_t>{1, 1}));
}

TEST(ArithmeticTest, extremes_pass_nan_and_share_ties) {
  for (const DType dtype : kFloatingTypes) {
    const Tensor a = tensor({kNaN, 1, kInfinity, 2, -1}, {.dtype = dtype}).set_requires_grad();
    const Tensor b = tensor({1, kNaN, 3, 2, 4}, {.dtype = dtype}).set_requires_grad();
    const Tensor up = maximum(a, b), down = minimum(a, b);
    EXPECT_THAT(up, IsClose(tensor({kNaN, kNaN, kInfinity, 2, 4}), {0, 0}));
    EXPECT_THAT(down, IsClose(tensor({kNaN, kNaN, 3, 2, -1}), {0, 0}));
    const Tensor g = full({5}, 8, {.dtype = dtype});
    expect_gradients(up, g, {a, b}, {tensor({8, 8, 8, 4, 0}), tensor({8, 8, 0, 4, 8})}, {0, 0});
    expect_gradients(down, g, {a, b}, {tensor({8, 8, 0, 4, 8}), tensor({8, 8, 8, 4, 0})}, {0, 0});
  }
}

TEST(ArithmeticTest, power_of_zero_has_finite_gradients) {
  const Tensor base = tensor({0, 0, 0, 2}, {.dtype = float64}).set_requires_grad();
  const Tensor exponent = tensor({0, 1, 2, 0}, {.dtype = float64}).set_requires_grad();
  pow(base, exponent).backward(ones({4}, {.dtype = float64}));
  EXPECT_THAT(base.grad(), IsClose(tensor({0, 1, 0, 0})));
  EXPECT_THAT(exponent.grad(), IsClose(tensor({0, 0, 0, std::log(2.0)}), {1e-7, 0}));
}

// The memory that the product would keep is the point: a tensor saved for nobody would trip this check.
TEST(ArithmeticTest, product_saves_only_what_its_gradients_read) {
  const Tensor a = ones({3}).set_requires_grad();
  Tensor b = full({3}, 2), c = full({3}, 3);
  const Tensor y = a * b + c * 1.0;
  c.fill_(9);
  y.backward(ones({3}));
  EXPECT_THAT(a.grad(), IsClose(full({3}, 2)));
  Tensor scale = full({3}, 2);
  const Tensor frozen = ones({3}).detach();
  const Tensor z = Tensor(frozen) * Tensor(scale).detach().set_requires_grad();
  scale.fill_(5);  // nobody needs it: the other factor wants no gradient
  z.backward(ones({3}));
  Tensor saved = full({3}, 2);
  const Tensor w = a * saved;
  saved.fill_(4);
  EXPECT_THAT(message_of<Error>([&] { w.backward(ones({3})); }),
              AllOf(HasSubstr("backward of mul"), HasSubstr("fill_")));
}

TEST(ArithmeticTest, empty_tensors_stay_empty) {
  for (const BinaryCase& c : kBinary) {
    const Tensor a = zeros({0, 3}).set_requires_grad(), b = ones({3}).set_requires_grad();
    const Tensor y = c.op(a, b);
    EXPECT_EQ(y.shape(), (Shape{0, 3})) << c.name;
    y.backward(zeros({0, 3}));
    EXPECT_EQ(a.grad().shape(), (Shape{0, 3})) << c.name;
    EXPECT_THAT(b.grad(), IsClose(zeros({3}))) << c.name;
  }
  EXPECT_EQ((zeros({2, 0}) * 2).numel(), 0);
}

TEST(ArithmeticTest, the_number_of_threads_does_not_show) {
  const int before = num_threads();
  const Tensor a = positive({5, 33, 40, 41}, 21, float32).contiguous(MemoryFormat::ChannelsLast);
  const Tensor b = positive({33, 1, 1}, 22, float32);
  const auto run = [&](int threads) {
    set_num_threads(threads);
    const Tensor x = a.detach().set_requires_grad(), s = b.detach().set_requires_grad();
    const Tensor y = exp(x * s) / s;
    y.backward(ones_like(y));
    return Tensors{y.detach(), x.grad(), s.grad()};
  };
  const Tensors one = run(1), three = run(3);
  set_num_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_THAT(three[i], HasSameBits(one[i]));
}

TEST(ArithmeticTest, errors_name_the_operator_and_both_operands) {
  const Tensor a = zeros({2, 3}), b = zeros({4});
  EXPECT_THAT(message_of<ShapeError>([&] { a + b; }),
              AllOf(StartsWith("add: "), HasSubstr("[2,3]"), HasSubstr("[4]")));
  EXPECT_THAT(message_of<ShapeError>([&] { pow(a, b); }), StartsWith("pow: "));
  EXPECT_THAT(message_of<Error>([&] { a* Tensor(); }),
              AllOf(StartsWith("mul: "), HasSubstr("second operand")));
  EXPECT_THAT(message_of<Error>([&] { Tensor() - 1; }), StartsWith("sub: "));
  const Tensor flag = zeros({2}, {.dtype = boolean});
  EXPECT_THAT(message_of<DTypeError>([&] { flag - flag; }), AllOf(StartsWith("sub: "), HasSubstr("bool")));
  EXPECT_THAT(message_of<DTypeError>([&] { -flag; }), AllOf(StartsWith("neg: "), HasSubstr("bool")));
  const Tensor count = zeros({2}, {.dtype = int64});
  EXPECT_THAT(message_of<DTypeError>([&] { pow(count, count); }),
              AllOf(StartsWith("pow: "), HasSubstr("int64")));
}

}  // namespace
}  // namespace lamella
