#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using testing::random_tensor;

TEST(RandomTensorTest, is_uniform_and_depends_on_the_seed_alone) {
  const RandomState before = random_state();
  const Tensor x = random_tensor({40000}, 1, {.low = 2, .high = 6});
  EXPECT_TRUE(random_state() == before);
  next_random_step();
  EXPECT_THAT(random_tensor({40000}, 1, {.low = 2, .high = 6}), HasSameBits(x));
  EXPECT_THAT(random_tensor({40000}, 2, {.low = 2, .high = 6}), ::testing::Not(HasSameBits(x)));
  int below[4] = {};
  for (const double value : x.to_vector<double>()) {
    ASSERT_TRUE(value >= 2 && value < 6) << value;
    ++below[static_cast<int>(value) - 2];
  }
  for (const int count : below) EXPECT_NEAR(count, 10000, 500);  // more than five standard deviations
}

TEST(RandomTensorTest, keeps_its_distance_from_every_kink) {
  // The kinks lie so close together that a value moved away from one comes too near to another.
  const testing::RandomOptions options{.low = -1, .high = 1, .kinks = {-0.3, 0, 0.15, 0.9}, .gap = 0.1};
  const auto values = random_tensor({20000}, 3, options).to_vector<double>();
  for (const double value : values) {
    ASSERT_TRUE(value >= -1 && value < 1) << value;
    for (const double kink : options.kinks) ASSERT_GE(std::abs(value - kink), 0.1) << value;
  }
  const auto at_edge = std::count_if(values.begin(), values.end(), [](double v) {
    return std::abs(std::abs(v) - 0.1) < 1e-9;  // pushed there rather than drawn
  });
  EXPECT_LT(at_edge, 10);
  EXPECT_LT(*std::min_element(values.begin(), values.end()), -0.99);
  EXPECT_GT(*std::max_element(values.begin(), values.end()), 0.79);
}

TEST(RandomTensorTest, keeps_range_and_distance_after_rounding) {
  for (const DType dtype : {DType::Float32, DType::Float16, DType::BFloat16})
    for (const double value :
         random_tensor({20000}, 4, {.low = 0.1, .high = 1, .kinks = {0.7}, .dtype = dtype})
             .to_vector<double>()) {
      ASSERT_TRUE(value >= 0.1 && value < 1) << name(dtype) << ' ' << value;
      ASSERT_GE(std::abs(value - 0.7), 0.01) << name(dtype);
    }
}

TEST(RandomTensorTest, has_the_shape_type_and_format_asked_for) {
  const Tensor x =
      random_tensor({2, 3, 4, 5}, 5,
                    {.dtype = DType::Float32, .format = MemoryFormat::ChannelsLast, .requires_grad = true});
  EXPECT_EQ(x.describe(), "[2,3,4,5] float32 cpu channels_last");
  EXPECT_TRUE(x.requires_grad() && x.is_leaf());
  EXPECT_THAT(x, HasSameBits(random_tensor({2, 3, 4, 5}, 5, {.dtype = DType::Float32})));
  EXPECT_EQ(random_tensor({}, 5).describe(), "[] float64 cpu");
  EXPECT_FALSE(random_tensor({}, 5).requires_grad());
  EXPECT_EQ(random_tensor({0, 3}, 5).numel(), 0);
  const Tensor integers = random_tensor({1000}, 6, {.low = 0, .high = 3, .dtype = DType::Int64});
  int counts[3] = {};
  for (const std::int64_t value : integers.to_vector<std::int64_t>()) ++counts[value];
  for (const int count : counts) EXPECT_GT(count, 250);
}

TEST(RandomTensorTest, refuses_what_leaves_no_room) {
  EXPECT_THROW(random_tensor({2}, 1, {.low = -0.1, .high = 0.1, .kinks = {0}, .gap = 0.2}), Error);
  EXPECT_THROW(random_tensor({2}, 1, {.low = 1, .high = 1}), Error);
  EXPECT_THROW(random_tensor({2}, 1, {.low = 1.001, .high = 1.002, .dtype = DType::BFloat16}), Error);
  EXPECT_THROW(random_tensor({2}, 1, {.dtype = DType::Int64, .requires_grad = true}), DTypeError);
}

}  // namespace
}  // namespace lamella
