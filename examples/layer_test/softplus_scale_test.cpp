// How to test a layer of your own: copy this file, and see lamella/testing.h.
#include "softplus_scale.h"

#include <gtest/gtest.h>
#include <lamella/testing/matchers.h>

namespace lm = lamella;
using lm::testing::check_layer;
using lm::testing::gradcheck;
using lm::testing::IsClose;
using lm::testing::Passes;
using lm::testing::random_tensor;

// Numbers: against a formula that is as plain as can be.
TEST(SoftplusTest, computes_the_formula) {
  const lm::Tensor x = lm::tensor({-100, -1, 0, 2, 100}, {.dtype = lm::DType::Float64});
  const lm::Tensor expected =
      lm::tensor({0, std::log1p(std::exp(-1.0)), std::log(2.0), std::log1p(std::exp(2.0)), 100},
                 {.dtype = lm::DType::Float64});
  EXPECT_THAT(lm::apply<Softplus>({x})[0], IsClose(expected, {.relative = 1e-12, .absolute = 1e-15}));
}

// The gradient: against differences of the function itself, in float64. |x| has a kink at 0: keep
// away from it.
TEST(SoftplusTest, gradient) {
  const lm::Tensor x = random_tensor({2, 3, 4}, /*seed=*/1, {.kinks = {0}, .requires_grad = true});
  EXPECT_TRUE(Passes(gradcheck([](const lm::Tensors& in) { return lm::apply<Softplus>(in)[0]; }, {x})));
}

// The layer as a whole: gradients of input and parameters, accumulation, repeatability, threads, memory
// formats and state_dict, in one call.
TEST(SoftplusScaleTest, is_a_good_layer) {
  SoftplusScale layer(3);
  EXPECT_TRUE(Passes(check_layer(layer, random_tensor({2, 3, 5, 5}, /*seed=*/2, {.kinks = {0}}))));
}

// Errors: what does not fit must be refused, not computed.
TEST(SoftplusScaleTest, refuses_other_channels) {
  SoftplusScale layer(3);
  EXPECT_THROW(layer(lm::zeros({2, 4, 5, 5})), lm::ShapeError);
}
