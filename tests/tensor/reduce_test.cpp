#include "lamella/tensor/reduce.h"

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

using testing::gradcheck;
using testing::HasSameBits;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

/// Σ over `axes` by plain loops, in float64.
std::vector<double> plain_sum(const Tensor& x, const std::vector<bool>& reduced) {
  const auto values = x.to_vector<double>();
  Shape kept = x.shape();
  for (int axis = 0; axis < x.dim(); ++axis)
    if (reduced[static_cast<std::size_t>(axis)]) kept[axis] = 1;
  std::vector<double> result(static_cast<std::size_t>(kept.product()), 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::int64_t rest = static_cast<std::int64_t>(i), at = 0, step = 1;
    for (int axis = x.dim() - 1; axis >= 0; --axis) {
      const std::int64_t position = rest % x.size(axis);
      rest /= x.size(axis);
      if (!reduced[static_cast<std::size_t>(axis)]) at += position * step;
      step *= kept[axis];
    }
    result[static_cast<std::size_t>(at)] += values[i];
  }
  return result;
}

RC_GTEST_PROP(ReduceProperty, sums_over_any_axes_in_both_formats, ()) {
  const auto s = *rc::gen::container<std::vector<std::int64_t>>(4, rc::gen::inRange<std::int64_t>(1, 9));
  const auto reduced = *rc::gen::container<std::vector<bool>>(4, rc::gen::arbitrary<bool>());
  const bool channels_last = *rc::gen::arbitrary<bool>();
  Dims axes;
  for (int axis = 0; axis < 4; ++axis)
    if (reduced[static_cast<std::size_t>(axis)]) axes.push_back(axis);
  RC_PRE(!axes.empty());
  const Tensor x =
      random_tensor({s[0], s[1], s[2], s[3]}, 3,
                    {.format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous});
  const auto expected = plain_sum(x, reduced);
  const auto actual = sum(x, {.axes = axes}).to_vector<double>();
  RC_ASSERT(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) RC_ASSERT(std::abs(actual[i] - expected[i]) < 1e-12);
}

TEST(ReduceTest, long_sums_keep_their_precision_and_do_not_depend_on_threads) {
  const Tensor x = full({3'000'001}, 0.1);
  const int before = num_threads();
  set_num_threads(1);
  const Tensor one = sum(x);
  set_num_threads(4);
  const Tensor four = sum(x);
  set_num_threads(before);
  EXPECT_THAT(four, HasSameBits(one));
  EXPECT_NEAR(one.item(), 3'000'001 * static_cast<double>(0.1f), 0.02);
}

TEST(ReduceTest, integers_add_up_in_64_bits) {
  const Tensor x = full({1000}, 255, {.dtype = uint8});
  EXPECT_EQ(sum(x).dtype(), int64);
  EXPECT_EQ(sum(x).item<std::int64_t>(), 255'000);
  EXPECT_EQ(sum(full({5}, 1, {.dtype = boolean})).item<std::int64_t>(), 5);
}

TEST(ReduceTest, mean_and_var_follow_their_formulas) {
  const Tensor x = tensor({1, 2, 3, 6}, {.dtype = float64});
  EXPECT_EQ(mean(x).item(), 3);
  EXPECT_NEAR(var(x).item(), 14.0 / 3, 1e-12);
  EXPECT_NEAR(var(x, {}, 0).item(), 3.5, 1e-12);
  EXPECT_NEAR(mean(full({70000}, 3, {.dtype = float16})).item(), 3, 1e-6);  // the sum itself would overflow
  EXPECT_THROW(mean(full({3}, 1, {.dtype = int64})), DTypeError);
  EXPECT_TRUE(std::isnan(mean(zeros({0})).item()));
  EXPECT_EQ(sum(zeros({0, 3}), {.axes = {0}}).to_vector<double>(), std::vector<double>(3, 0.0));
}

TEST(ReduceTest, extremes_and_their_positions) {
  const Tensor x = from_vector<float>({3, 1, 2, 2, 5, 5}, {2, 3});
  EXPECT_EQ(max(x).item(), 5);
  EXPECT_EQ(min(x, {.axes = {1}}).to_vector<double>(), (std::vector<double>{1, 2}));
  EXPECT_EQ(argmax(x, 1).to_vector<std::int64_t>(), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(argmin(x, 0).to_vector<std::int64_t>(), (std::vector<std::int64_t>{1, 0, 0}));
  EXPECT_EQ(argmax(x, 1, true).shape(), (Shape{2, 1}));
  EXPECT_TRUE(std::isnan(max(tensor({1, NAN, 3})).item()));
  EXPECT_EQ(argmax(tensor({1, NAN, 3})).item<std::int64_t>(), 1);
  EXPECT_EQ(max(full({2}, 0, {.dtype = boolean})).item(), 0);
  EXPECT_THROW(max(zeros({0})), ShapeError);
  EXPECT_THROW(argmax(zeros({2, 0}), 1), ShapeError);
}

TEST(ReduceTest, gradients) {
  const Tensor x = random_tensor({3, 4, 2}, 8, {.requires_grad = true});
  const auto check = [&](auto f, double step) {
    EXPECT_TRUE(Passes(gradcheck([&](const Tensors& in) { return f(in[0]); }, {x}, {.step = step})));
  };
  check([](const Tensor& t) { return sum(t); }, 1);
  check([](const Tensor& t) { return sum(t, {.axes = {0, 2}}); }, 1);
  check([](const Tensor& t) { return sum(t, {.axes = {-2}, .keep_axes = true}); }, 1);
  check([](const Tensor& t) { return mean(t, {.axes = {1}}); }, 1);
  check([](const Tensor& t) { return var(t, {.axes = {0, 1}}); }, 1e-5);
  check([](const Tensor& t) { return max(t, {.axes = {1}}); }, 1e-6);
  check([](const Tensor& t) { return min(t); }, 1e-6);
  check([](const Tensor& t) { return sum_to(t, {4, 1}); }, 1);
}

TEST(ReduceTest, equal_extremes_share_the_gradient) {
  const Tensor x = tensor({2, 5, 5}, {.dtype = float64, .requires_grad = true});
  max(x).backward();
  EXPECT_THAT(x.grad(), IsClose(tensor({0, 0.5, 0.5})));
}

TEST(ReduceTest, refuses_wrong_axes) {
  const Tensor x = zeros({2, 3});
  EXPECT_THROW(sum(x, {.axes = {2}}), ShapeError);
  EXPECT_THROW(sum(x, {.axes = {0, -2}}), ShapeError);
  EXPECT_THROW(sum_to(x, {2}), ShapeError);
  EXPECT_THROW(sum(Tensor()), Error);
}

TEST(ReduceTest, repeated_elements_are_told_from_neighbours) {
  // Offsets 0 0 0 5 5 5: first and last lie as far apart as in a dense row of six.
  const Tensor x = random_tensor({4, 3, 5}, 11).slice(1, {0, 2}).slice(2, {0, 1}).expand({4, 2, 3});
  const Tensor plain = x.clone();
  ASSERT_EQ(x.strides(), (Strides{15, 5, 0}));
  EXPECT_THAT(sum(x, {.axes = {0}}), HasSameBits(sum(plain, {.axes = {0}})));
  EXPECT_THAT(max(x, {.axes = {0}}), HasSameBits(max(plain, {.axes = {0}})));
}

TEST(ReduceTest, integer_sums_wrap_around) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(sum(from_vector<std::int64_t>({most, 2}, {2})).item<std::int64_t>(),
            std::numeric_limits<std::int64_t>::min() + 1);
}

TEST(ReduceTest, equal_extremes_beyond_what_float16_counts_share_the_gradient) {
  const Tensor x = full({70'000}, 1, {.dtype = DType::Float16, .requires_grad = true});
  max(x).backward();
  EXPECT_NEAR(x.grad().to(DType::Float64).select(0, 69'999).item(), 1.0 / 70'000, 1e-7);
}

}  // namespace
}  // namespace lamella
