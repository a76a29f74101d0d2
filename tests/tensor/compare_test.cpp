#include "lamella/tensor/compare.h"

#include "tests/tensor/elementwise_help.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::kFloatingTypes;
using testing::kLayouts;
using testing::laid_out;
using testing::Layout;
using testing::message_of;
using testing::plain_map;
using testing::random_tensor;
using ::testing::StartsWith;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Case {
  const char* name;
  Tensor (*op)(const Tensor&, const Tensor&);
  Tensor (*with_number)(const Tensor&, double);
  bool (*formula)(double, double);
};

const Case kCases[] = {
    {"equal", equal, equal, [](double a, double b) { return a == b; }},
    {"not_equal", not_equal, not_equal, [](double a, double b) { return a != b; }},
    {"less", less, less, [](double a, double b) { return a < b; }},
    {"less_equal", less_equal, less_equal, [](double a, double b) { return a <= b; }},
    {"greater", greater, greater, [](double a, double b) { return a > b; }},
    {"greater_equal", greater_equal, greater_equal, [](double a, double b) { return a >= b; }},
    {"logical_and", logical_and, nullptr, [](double a, double b) { return a != 0 && b != 0; }},
    {"logical_or", logical_or, nullptr, [](double a, double b) { return a != 0 || b != 0; }},
};

/// Small whole numbers, so that all outcomes occur, and some NaN where the type has it.
Tensor few_values(const Shape& shape, std::uint64_t seed, DType dtype) {
  const Tensor whole = random_tensor(shape, seed, {.low = 0, .high = 3}).to(uint8).to(dtype);
  if (is_floating(dtype) && whole.numel() > 8) {
    auto values = whole.to_vector<double>();
    values[3] = values[8] = kNaN;
    return from_vector(values, shape).to(dtype);
  }
  return whole;
}

TEST(CompareTest, follows_the_definitions_in_every_type_and_layout) {
  const Shape shape{2, 5, 3, 7};
  for (const Case& c : kCases)
    for (const DType dtype : {float32, float64, bfloat16, float16, int64, int32, uint8, boolean})
      for (const Layout layout : kLayouts) {
        SCOPED_TRACE(::testing::Message() << c.name << ' ' << name(dtype) << ' ' << static_cast<int>(layout));
        const Tensor a = laid_out(few_values(shape, 1, dtype), layout);
        for (const Shape& other : {shape, Shape{5, 1, 1}, Shape{2, 5, 1, 1}, Shape{}}) {
          const Tensor b = few_values(other, 2, dtype);
          const Tensor y = c.op(a, b);
          EXPECT_EQ(y.dtype(), boolean);
          EXPECT_EQ(y.memory_format(), a.memory_format());
          EXPECT_THAT(y, IsClose(plain_map(shape, c.formula, a, b), {0, 0})) << other.to_string();
        }
        if (c.with_number == nullptr) continue;
        EXPECT_THAT(c.with_number(a, 1), IsClose(plain_map(
                                                     shape, [&](double x) { return c.formula(x, 1); }, a),
                                                 {0, 0}));
      }
}

TEST(CompareTest, numbers_are_rounded_to_floating_types_only) {
  for (const DType dtype : kFloatingTypes)
    EXPECT_TRUE(equal(full({1}, 0.1, {.dtype = dtype}), 0.1).item<bool>()) << name(dtype);
  EXPECT_TRUE(less(full({1}, 2, {.dtype = int32}), 2.5).item<bool>());
  EXPECT_FALSE(equal(full({1}, 2, {.dtype = int32}), 2.5).item<bool>());
  const std::int64_t large = (std::int64_t{1} << 53) + 1;
  EXPECT_TRUE(greater(from_vector<std::int64_t>({large}, {1}), from_vector<std::int64_t>({large - 1}, {1}))
                  .item<bool>());
}

TEST(CompareTest, types_mix) {
  EXPECT_TRUE(less(full({1}, 2, {.dtype = int64}), full({1}, 2.5)).item<bool>());
  EXPECT_TRUE(equal(full({1}, 1, {.dtype = boolean}), full({1}, 1, {.dtype = float16})).item<bool>());
  // 0.1 in float32 and in float64 are different numbers.
  EXPECT_FALSE(equal(full({1}, 0.1), full({1}, 0.1, {.dtype = float64})).item<bool>());
}

TEST(CompareTest, logical_not_and_isnan) {
  const Tensor x = tensor({0, 1, kNaN, -2, std::numeric_limits<double>::infinity()});
  for (const DType dtype : kFloatingTypes) {
    EXPECT_THAT(logical_not(x.to(dtype)), HasSameBits(tensor({1, 0, 0, 0, 0}, {.dtype = boolean})));
    EXPECT_THAT(isnan(x.to(dtype)), HasSameBits(tensor({0, 0, 1, 0, 0}, {.dtype = boolean})));
  }
  const Tensor flags = tensor({0, 1}, {.dtype = boolean});
  EXPECT_THAT(logical_not(flags), HasSameBits(tensor({1, 0}, {.dtype = boolean})));
  EXPECT_THAT(isnan(flags), HasSameBits(tensor({0, 0}, {.dtype = boolean})));
}

TEST(CompareTest, records_no_gradient) {
  const Tensor x = ones({2}).set_requires_grad();
  EXPECT_FALSE(less(x, 2).requires_grad());
  EXPECT_FALSE(equal(x, x).requires_grad());
  EXPECT_FALSE(isnan(x).requires_grad());
  EXPECT_EQ(less(zeros({0, 3}), 1).shape(), (Shape{0, 3}));
}

TEST(CompareTest, errors_name_the_operator_and_both_operands) {
  EXPECT_THAT(message_of<ShapeError>([] { less(zeros({2}), zeros({3})); }),
              AllOf(StartsWith("less: "), HasSubstr("[2]"), HasSubstr("[3]")));
  EXPECT_THAT(message_of<Error>([] { equal(Tensor(), 1); }), StartsWith("equal: "));
  EXPECT_THAT(message_of<Error>([] { logical_or(zeros({2}), Tensor()); }), StartsWith("logical_or: "));
}

}  // namespace
}  // namespace lamella
