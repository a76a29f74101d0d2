#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ModesTest, guards_nest_and_belong_to_their_thread) {
  EXPECT_TRUE(grad_enabled());
  {
    const NoGrad outer;
    EXPECT_FALSE(grad_enabled());
    {
      const EnableGrad inner;
      EXPECT_TRUE(grad_enabled());
    }
    EXPECT_FALSE(grad_enabled());
    std::thread([] { EXPECT_TRUE(grad_enabled()); }).join();
  }
  EXPECT_TRUE(grad_enabled());
}

TEST(ModesTest, nothing_is_recorded_without_gradients) {
  const Tensor x = tensor({1}, {.requires_grad = true});
  const NoGrad no_grad;
  EXPECT_FALSE((x * 2.0).requires_grad());
}

std::string error_in_anomaly_mode(const std::function<void()>& f) {
  const AnomalyMode anomaly;
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ModesTest, anomaly_mode_names_the_operator_that_made_the_first_nan) {
  const Tensor x = tensor({-1, 4});
  EXPECT_THAT(error_in_anomaly_mode([&] { (void)(sqrt(x) * 2.0); }), HasSubstr("sqrt"));
  EXPECT_EQ(error_in_anomaly_mode([&] { (void)(abs(x) * 2.0); }), "");
}

TEST(ModesTest, anomaly_mode_names_the_gradient_that_made_the_first_nan) {
  const Tensor x = tensor({0}, {.requires_grad = true});
  // sqrt'(0) = ∞ and ∞ · 0 = NaN.
  EXPECT_THAT(error_in_anomaly_mode([&] { (sqrt(x * 1.0) * 0.0).backward(); }),
              AllOf(HasSubstr("backward of"), HasSubstr("sqrt")));
}

}  // namespace
}  // namespace lamella
