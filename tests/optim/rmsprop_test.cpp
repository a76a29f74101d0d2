#include "lamella/optim/rmsprop.h"

#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::RMSprop;
using optim::RMSpropOptions;

TEST(RmspropTest, gives_the_numbers_of_pytorch) {
  check_optimizer("rmsprop", maker<RMSprop>(RMSpropOptions{}));
  check_optimizer("rmsprop_momentum",
                  maker<RMSprop>(RMSpropOptions{
                      .lr = 0.02, .alpha = 0.9, .eps = 1e-3, .weight_decay = 0.01, .momentum = 0.9}));
  check_optimizer("rmsprop_centered",
                  maker<RMSprop>(RMSpropOptions{.lr = 0.02, .alpha = 0.9, .centered = true}));
  check_optimizer(
      "rmsprop_centered_momentum",
      maker<RMSprop>(RMSpropOptions{.lr = 0.02, .alpha = 0.9, .momentum = 0.5, .centered = true}));
}

TEST(RmspropTest, puts_eps_inside_the_root) {
  check_optimizer("rmsprop_inside",
                  maker<RMSprop>(RMSpropOptions{
                      .lr = 0.02, .alpha = 0.9, .eps = 0.05, .weight_decay = 0.01, .eps_inside_sqrt = true}));
  check_optimizer("rmsprop_inside_all", maker<RMSprop>(RMSpropOptions{.lr = 0.02,
                                                                      .alpha = 0.9,
                                                                      .eps = 0.05,
                                                                      .momentum = 0.9,
                                                                      .centered = true,
                                                                      .eps_inside_sqrt = true}));
}

TEST(RmspropTest, survives_a_variance_that_rounding_makes_negative) {
  // Of gradients that do not change, s − a² tends to 0 and falls below it by rounding.
  Tensor p = full({1000}, 0).set_requires_grad();
  RMSprop rmsprop({p}, {.lr = 1e-3, .alpha = 0.5, .centered = true});
  p.set_grad(from_vector(rand({1000}).to_vector<float>(), {1000}));
  for (int step = 0; step < 100; ++step) rmsprop.step();
  for (const float value : p.to_vector<float>()) ASSERT_TRUE(std::isfinite(value));
}

TEST(RmspropTest, refuses_bad_options) {
  const Tensors params = make_params();
  const auto refused = [&](const RMSpropOptions& options, const char* part) {
    return throws<Error>([&] { RMSprop(params, options); }, part);
  };
  EXPECT_TRUE(refused({.lr = -1}, "RMSprop: lr is -1"));
  EXPECT_TRUE(refused({.alpha = -0.5}, "RMSprop: alpha is -0.5; it must be in [0, 1]"));
  EXPECT_TRUE(refused({.alpha = 1.5}, "RMSprop: alpha is 1.5"));
  EXPECT_TRUE(refused({.alpha = NAN}, "RMSprop: alpha is nan"));
  EXPECT_TRUE(refused({.eps = -1}, "RMSprop: eps is -1"));
  EXPECT_TRUE(refused({.weight_decay = -1}, "RMSprop: weight_decay is -1"));
  EXPECT_TRUE(refused({.momentum = -1}, "RMSprop: momentum is -1"));
}

}  // namespace
}  // namespace lamella::test
