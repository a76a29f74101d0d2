#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::all_close;
using ::testing::AllOf;
using testing::Comparison;
using testing::equal_bits;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using ::testing::Not;
using testing::random_tensor;
using testing::relative_error;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor of(const std::vector<double>& values, DType dtype = DType::Float64) {
  return from_vector(values, {static_cast<std::int64_t>(values.size())}).to(dtype);
}
bool close(double actual, double expected, testing::Tolerance tolerance = {}) {
  return all_close(of({actual}), of({expected}), tolerance).ok;
}

TEST(AllCloseTest, allows_the_absolute_part_and_the_relative_one_of_expected) {
  EXPECT_TRUE(close(1.0000099, 1));
  EXPECT_FALSE(close(1.0000101, 1));
  EXPECT_TRUE(close(-1.0000099, -1));
  EXPECT_TRUE(close(0.9e-8, 0));
  EXPECT_FALSE(close(1.1e-8, 0));
  EXPECT_FALSE(close(1, -1));
  EXPECT_TRUE(close(103.9, 100, {.relative = 0.03, .absolute = 1}));
  EXPECT_FALSE(close(104.1, 100, {.relative = 0.03, .absolute = 1}));
  // Relative to what is expected, not to what came.
  EXPECT_FALSE(close(2, 1, {.relative = 0.6, .absolute = 0}));
  EXPECT_TRUE(close(1, 2, {.relative = 0.6, .absolute = 0}));
  EXPECT_TRUE(close(3, 3, {.relative = 0, .absolute = 0}));
  EXPECT_FALSE(close(std::nextafter(3, 4), 3, {.relative = 0, .absolute = 0}));
}

TEST(AllCloseTest, nan_equals_nan_and_infinities_equal_themselves_only) {
  EXPECT_TRUE(close(kNaN, kNaN));
  EXPECT_TRUE(close(kNaN, -kNaN));
  EXPECT_FALSE(close(kNaN, 1));
  EXPECT_FALSE(close(1, kNaN));
  EXPECT_TRUE(close(kInfinity, kInfinity));
  EXPECT_TRUE(close(-kInfinity, -kInfinity));
  const testing::Tolerance any{.relative = 10, .absolute = kInfinity};
  for (const double wrong : {-kInfinity, kNaN, 1e308}) {
    EXPECT_FALSE(close(wrong, kInfinity, any)) << wrong;
    EXPECT_FALSE(close(kInfinity, wrong, any)) << wrong;
  }
  EXPECT_FALSE(close(1, 2, {.relative = kNaN}));
}

TEST(AllCloseTest, says_how_many_which_first_and_which_worst) {
  const Tensor expected = from_vector<double>({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor actual = from_vector<double>({1, 2, 3.5, 4, 15, 6.25}, {2, 3});
  const Comparison result = all_close(actual, expected);
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message,
              AllOf(HasSubstr("3 of 6 elements of [2,3] float64 cpu differ"),
                    HasSubstr("first at [0,2]: actual 3.5, expected 3, off by 0.5 (allowed 3.001e-05)"),
                    HasSubstr("worst at [1,1]: actual 15, expected 5, off by 10 (allowed 5.001e-05)")));
}

TEST(AllCloseTest, the_worst_is_judged_by_what_is_allowed_there) {
  const Comparison result = all_close(of({1001, 1.5, 1}), of({1000, 1, kNaN}));
  EXPECT_THAT(result.message,
              AllOf(HasSubstr("first at [0]"), HasSubstr("worst at [2]: actual 1, expected nan")));
  EXPECT_THAT(all_close(of({1001, 1.5}), of({1000, 1})).message, HasSubstr("worst at [1]"));
  EXPECT_THAT(all_close(of({1, 1.5}), of({1, 1})).message,
              AllOf(HasSubstr("1 of 2"), HasSubstr("first at [1]"), Not(HasSubstr("worst"))));
}

TEST(AllCloseTest, shapes_must_agree_and_types_and_layouts_may_not) {
  const Comparison result = all_close(zeros({2, 3}), zeros({3, 2}));
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message, AllOf(HasSubstr("[2,3] float32 cpu"), HasSubstr("[3,2] float32 cpu")));
  EXPECT_FALSE(all_close(zeros({1}), zeros({1, 1})));
  EXPECT_FALSE(all_close(scalar(1), ones({1})));
  EXPECT_FALSE(all_close(zeros({0, 2}), zeros({2, 0})));
  EXPECT_TRUE(all_close(zeros({0, 2}), zeros({0, 2})));
  EXPECT_TRUE(all_close(of({1, 0, 3}, DType::Int64), of({1, 0, 3}, DType::Float16)));
  EXPECT_FALSE(all_close(of({1, 0, 3}, DType::Int64), of({1, 0, 2}, DType::Float16)));

  const Tensor x = random_tensor({2, 3, 4, 5}, 1);
  EXPECT_TRUE(all_close(x.contiguous(MemoryFormat::ChannelsLast), x));
  EXPECT_TRUE(all_close(x.transpose(1, 3).contiguous().transpose(1, 3), x));
  EXPECT_FALSE(all_close(x.transpose(2, 3).reshape({2, 3, 4, 5}), x));
}

TEST(AllCloseTest, undefined_tensors_are_close_to_each_other_alone) {
  EXPECT_TRUE(all_close(Tensor(), Tensor()));
  EXPECT_THAT(all_close(Tensor(), zeros({2})).message,
              AllOf(HasSubstr("actual is undefined"), HasSubstr("expected [2] float32 cpu")));
  EXPECT_FALSE(all_close(Tensor(), zeros({2})));
  EXPECT_FALSE(all_close(zeros({2}), Tensor()));
}

TEST(EqualBitsTest, finds_one_element_of_any_type) {
  for (const DType dtype : {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16, DType::Int64,
                            DType::Int32, DType::UInt8, DType::Bool}) {
    SCOPED_TRACE(name(dtype));
    const Tensor x = from_vector<double>({1, 0, 1, 1, 0, 1}, {3, 2}).to(dtype);
    EXPECT_TRUE(equal_bits(x.clone(), x));
    for (std::size_t i = 0; i < 6; ++i) {
      auto values = x.to_vector<double>();
      values[i] = 1 - values[i];
      const Comparison result = equal_bits(from_vector(values, {3, 2}).to(dtype), x);
      EXPECT_FALSE(result);
      const std::string at = "first at [" + std::to_string(i / 2) + "," + std::to_string(i % 2) + "]";
      EXPECT_THAT(result.message, HasSubstr(at));
    }
  }
}

TEST(EqualBitsTest, finds_the_last_bit_and_the_sign_of_zero) {
  const Comparison result = equal_bits(of({1, std::nextafter(2, 3), 9}), of({1, 2, 8}));
  EXPECT_FALSE(result);
  EXPECT_THAT(result.message, AllOf(HasSubstr("[3] float64 cpu"), HasSubstr("first at [1]"),
                                    HasSubstr("actual 2.0000000000000004, expected 2")));
  EXPECT_FALSE(equal_bits(of({-0.0}), of({0.0})));
  EXPECT_TRUE(equal_bits(of({kNaN, kInfinity}), of({kNaN, kInfinity})));
  EXPECT_FALSE(equal_bits(of({kNaN}), of({-kNaN})));
}

TEST(EqualBitsTest, compares_types_and_shapes_but_no_layouts) {
  EXPECT_THAT(equal_bits(zeros({2}), zeros({2}, {.dtype = DType::Float64})).message,
              AllOf(HasSubstr("[2] float32 cpu"), HasSubstr("[2] float64 cpu")));
  EXPECT_FALSE(equal_bits(zeros({2}), zeros({2}, {.dtype = DType::Int32})));
  EXPECT_FALSE(equal_bits(zeros({4}), zeros({2, 2})));
  const Tensor x = random_tensor({2, 3, 4, 5}, 1);
  EXPECT_TRUE(equal_bits(x.contiguous(MemoryFormat::ChannelsLast), x));
  EXPECT_TRUE(equal_bits(x.slice(3, {1, 5, 2}), x.slice(3, {1, 5, 2}).contiguous()));
  EXPECT_FALSE(equal_bits(x.slice(3, {0, 4, 2}), x.slice(3, {1, 5, 2})));
  EXPECT_TRUE(equal_bits(Tensor(), Tensor()));
  EXPECT_FALSE(equal_bits(Tensor(), x));
  EXPECT_FALSE(equal_bits(x, Tensor()));
}

TEST(RelativeErrorTest, is_the_quotient_of_norms) {
  EXPECT_DOUBLE_EQ(relative_error(of({3, 4}), of({0, 0})), 5);
  EXPECT_DOUBLE_EQ(relative_error(of({9, 16}), of({6, 12})), 5 / std::sqrt(180.0));
  EXPECT_DOUBLE_EQ(relative_error(of({-1, 0}), of({1, 0})), 2);
  EXPECT_EQ(relative_error(of({6, 8}), of({6, 8})), 0);
  EXPECT_EQ(relative_error(of({0, 0}), of({0, 0})), 0);
  EXPECT_EQ(relative_error(of({}), of({})), 0);
  EXPECT_DOUBLE_EQ(relative_error(of({2, 2}, DType::Int32), of({2, 1}, DType::Float32)), 1 / std::sqrt(5.0));
}

TEST(RelativeErrorTest, leaves_the_range_of_a_double_nowhere) {
  EXPECT_DOUBLE_EQ(relative_error(of({3e-200, 4e-200}), of({0, 2e-200})), std::sqrt(13.0) / 2);
  EXPECT_DOUBLE_EQ(relative_error(of({3e200, 4e200}), of({0, 2e200})), std::sqrt(13.0) / 2);
  EXPECT_DOUBLE_EQ(relative_error(of({1}), of({1e-200})), 1e200);
}

TEST(RelativeErrorTest, nan_shows) {
  EXPECT_TRUE(std::isnan(relative_error(of({1, kNaN}), of({1, 2}))));
  EXPECT_TRUE(std::isnan(relative_error(of({1, 2}), of({1, kNaN}))));
  EXPECT_TRUE(std::isnan(relative_error(of({1, kNaN}), of({0, 0}))));
  EXPECT_TRUE(std::isnan(relative_error(of({kNaN}), of({kNaN}))));
  EXPECT_EQ(relative_error(of({kInfinity, 2}), of({1, 2})), kInfinity);
}

TEST(RelativeErrorTest, refuses_other_shapes_and_undefined_tensors) {
  const auto message = [](const Tensor& actual, const Tensor& expected) -> std::string {
    try {
      relative_error(actual, expected);
    } catch (const ShapeError& error) {
      return std::string("ShapeError ") + error.what();
    } catch (const Error& error) {
      return std::string("Error ") + error.what();
    }
    return "nothing";
  };
  EXPECT_EQ(message(zeros({2}), zeros({1, 2})),
            "ShapeError relative_error: [2] float32 cpu against [1,2] float32 cpu");
  EXPECT_EQ(message(Tensor(), zeros({2})), "Error relative_error: undefined against [2] float32 cpu");
  EXPECT_EQ(message(zeros({2}), Tensor()), "Error relative_error: [2] float32 cpu against undefined");
}

TEST(MatchersTest, ask_all_close_and_equal_bits) {
  const Tensor x = of({1, 2}), near = of({1, 2.00001}), far = of({1, 3});
  EXPECT_THAT(near, IsClose(x));
  EXPECT_THAT(near, Not(HasSameBits(x)));
  EXPECT_THAT(x.clone(), HasSameBits(x));
  EXPECT_THAT(far, Not(IsClose(x)));
  EXPECT_THAT(far, IsClose(x, {.relative = 0.5}));
  EXPECT_THAT(near, Not(IsClose(x, {.relative = 1e-7})));
  EXPECT_THAT(of({1, 2}, DType::Float32), IsClose(x));
  EXPECT_THAT(of({1, 2}, DType::Float32), Not(HasSameBits(x)));
  EXPECT_THAT(Tensor(), Not(IsClose(x)));
}

TEST(MatchersTest, explain_themselves) {
  const Tensor x = of({1, 2}), far = of({1, 3});
  ::testing::StringMatchResultListener close, bits;
  EXPECT_FALSE(::testing::ExplainMatchResult(IsClose(x), far, &close));
  EXPECT_EQ(close.str(), all_close(far, x).message);
  EXPECT_FALSE(::testing::ExplainMatchResult(HasSameBits(x), far, &bits));
  EXPECT_EQ(bits.str(), equal_bits(far, x).message);

  const auto describe = [](const ::testing::Matcher<const Tensor&>& matcher, bool negated) {
    std::ostringstream out;
    negated ? matcher.DescribeNegationTo(&out) : matcher.DescribeTo(&out);
    return out.str();
  };
  EXPECT_THAT(describe(IsClose(x), false), AllOf(HasSubstr("is close to"), HasSubstr("2")));
  EXPECT_THAT(describe(IsClose(x), true), HasSubstr("is not close to"));
  EXPECT_THAT(describe(HasSameBits(x), false), HasSubstr("has the bits of"));
  EXPECT_THAT(describe(HasSameBits(x), true), HasSubstr("differs in some bit from"));
  EXPECT_THAT(describe(IsClose(Tensor()), false), HasSubstr("undefined"));
}

TEST(PassesTest, takes_over_the_answer_and_its_message) {
  EXPECT_TRUE(testing::Passes(Comparison{}));
  const ::testing::AssertionResult result = testing::Passes({false, "for a reason"});
  EXPECT_FALSE(result);
  EXPECT_STREQ(result.message(), "for a reason");
}

}  // namespace
}  // namespace lamella
