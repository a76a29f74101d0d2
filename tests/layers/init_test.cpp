#include "lamella/layers/init.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/tensor/create.h"

namespace {

namespace lm = lamella;
namespace init = lamella::init;

struct Moments {
  double mean = 0, deviation = 0, low = 0, high = 0;
};

Moments moments(const lm::Tensor& tensor) {
  const auto values = tensor.to_vector<double>();
  Moments m;
  const double n = static_cast<double>(values.size());
  for (const double v : values) m.mean += v / n;
  for (const double v : values) m.deviation += (v - m.mean) * (v - m.mean) / n;
  m.deviation = std::sqrt(m.deviation);
  m.low = *std::min_element(values.begin(), values.end());
  m.high = *std::max_element(values.begin(), values.end());
  return m;
}

class InitTest : public testing::Test {
 protected:
  InitTest() { lm::manual_seed(3); }
  // So many numbers that moments are within 5 standard errors of what they should be.
  lm::Tensor weight_ = lm::empty({500, 50, 3, 3});  // fan_in 450, fan_out 4500
  double standard_error_ = 5 / std::sqrt(500.0 * 450);
};

TEST_F(InitTest, counts_fans_of_groups_and_kernels) {
  const init::Fans fans = init::fans({32, 1, 3, 5});
  EXPECT_EQ(fans.in, 15);
  EXPECT_EQ(fans.out, 480);
  EXPECT_THROW(init::fans({3}), lm::ShapeError);
}

TEST_F(InitTest, gains_are_pytorchs) {
  EXPECT_EQ(init::gain(init::Nonlinearity::Linear), 1);
  EXPECT_DOUBLE_EQ(init::gain(init::Nonlinearity::Relu), std::numbers::sqrt2);
  EXPECT_DOUBLE_EQ(init::gain(init::Nonlinearity::Tanh), 5.0 / 3);
  EXPECT_DOUBLE_EQ(init::gain(init::Nonlinearity::LeakyRelu, std::sqrt(5.0)), 1 / std::sqrt(3.0));
}

TEST_F(InitTest, kaiming_uniform_fills_its_range) {
  const Moments m = moments(init::kaiming_uniform_(weight_, {.a = std::sqrt(5.0)}));
  const double bound = 1 / std::sqrt(450.0);
  EXPECT_NEAR(m.mean / bound, 0, standard_error_);
  EXPECT_NEAR(m.deviation / bound, 1 / std::sqrt(3.0), standard_error_);
  EXPECT_GE(m.low, -bound);
  EXPECT_LE(m.high, bound);
  EXPECT_LT(m.low, -0.999 * bound);
  EXPECT_GT(m.high, 0.999 * bound);
}

TEST_F(InitTest, kaiming_normal_by_fan_out) {
  const Moments m = moments(init::kaiming_normal_(
      weight_, {.mode = init::FanMode::FanOut, .nonlinearity = init::Nonlinearity::Relu}));
  const double deviation = std::sqrt(2 / 4500.0);
  EXPECT_NEAR(m.mean / deviation, 0, standard_error_);
  EXPECT_NEAR(m.deviation / deviation, 1, standard_error_);
  EXPECT_GT(m.high / deviation, 4);  // has tails
}

TEST_F(InitTest, xavier_uses_both_fans) {
  const double both = 450 + 4500;
  EXPECT_NEAR(moments(init::xavier_uniform_(weight_)).high / std::sqrt(6 / both), 1, 1e-3);
  EXPECT_NEAR(moments(init::xavier_normal_(weight_, 2)).deviation / (2 * std::sqrt(2 / both)), 1,
              standard_error_);
}

TEST_F(InitTest, trunc_normal_has_the_distribution_within_its_bounds) {
  auto values = init::trunc_normal_(weight_, 0.5, 2, -1, 3).to_vector<double>();
  std::sort(values.begin(), values.end());
  EXPECT_GE(values.front(), -1);
  EXPECT_LE(values.back(), 3);
  const auto phi = [](double x) { return 0.5 * std::erfc(-(x - 0.5) / 2 / std::numbers::sqrt2); };
  double worst = 0;  // Kolmogorov–Smirnov
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double expected = (phi(values[i]) - phi(-1)) / (phi(3) - phi(-1));
    worst = std::max(
        worst, std::abs(expected - (static_cast<double>(i) + 0.5) / static_cast<double>(values.size())));
  }
  EXPECT_LT(worst, 2 / std::sqrt(static_cast<double>(values.size())));
}

TEST_F(InitTest, trunc_normal_works_far_out) {
  const Moments m = moments(init::trunc_normal_(lm::empty({10000}), 0, 1, 6, 7));
  EXPECT_GE(m.low, 6);
  EXPECT_LE(m.high, 7);
  EXPECT_LT(m.mean, 6.3);
}

TEST_F(InitTest, numbers_depend_on_the_seed_alone) {
  const auto draw = [](const lm::TensorOptions& options) {
    lm::manual_seed(11);
    return init::kaiming_normal_(lm::empty({4, 3, 5, 5}, options)).to_vector<float>();
  };
  const auto expected = draw({});
  EXPECT_EQ(draw({}), expected);
  EXPECT_EQ(draw({.format = lm::MemoryFormat::ChannelsLast}), expected);
  EXPECT_EQ(draw({.dtype = lm::float64}), expected);
}

TEST_F(InitTest, fills_parameters_in_place) {
  lm::Tensor parameter = lm::zeros({3, 2}, {.requires_grad = true});
  init::constant_(parameter, 4);
  EXPECT_EQ(parameter.to_vector<float>(), std::vector<float>(6, 4));
  init::normal_(parameter, 10, 0);
  EXPECT_EQ(parameter.to_vector<float>(), std::vector<float>(6, 10));
  EXPECT_TRUE(parameter.requires_grad());
  EXPECT_TRUE(parameter.is_leaf());
}

TEST_F(InitTest, refuses_what_makes_no_sense) {
  EXPECT_THROW(init::uniform_(weight_, 2, 1), lm::ShapeError);
  EXPECT_THROW(init::normal_(weight_, 0, -1), lm::ShapeError);
  EXPECT_THROW(init::trunc_normal_(weight_, 0, 1, 2, 2), lm::ShapeError);
  EXPECT_THROW(init::kaiming_normal_(lm::empty({3})), lm::ShapeError);
  EXPECT_THROW(init::normal_(lm::empty({3}, {.dtype = lm::int64})), lm::DTypeError);
  EXPECT_THROW(init::constant_(lm::Tensor(), 1), lm::Error);
}

}  // namespace
