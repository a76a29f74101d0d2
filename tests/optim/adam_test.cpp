#include "lamella/optim/adam.h"

#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::Adam;
using optim::AdamOptions;
using optim::AdamW;
using optim::AdamWOptions;

TEST(AdamTest, gives_the_numbers_of_pytorch) {
  check_optimizer("adam", maker<Adam>(AdamOptions{.lr = 0.01}));
  check_optimizer("adam_decay", maker<Adam>(AdamOptions{
                                    .lr = 0.01, .betas = {0.8, 0.95}, .eps = 1e-3, .weight_decay = 0.1}));
  check_optimizer("adam_amsgrad", maker<Adam>(AdamOptions{.lr = 0.01, .betas = {0.5, 0.6}, .amsgrad = true}));
}

TEST(AdamWTest, gives_the_numbers_of_pytorch) {
  check_optimizer("adamw", maker<AdamW>(AdamWOptions{.lr = 0.01}));
  check_optimizer(
      "adamw_amsgrad",
      maker<AdamW>(AdamWOptions{.lr = 0.01, .betas = {0.5, 0.6}, .weight_decay = 0.3, .amsgrad = true}));
}

TEST(AdamTest, counts_updates_for_each_parameter) {
  const Tensors params = make_params();
  Adam adam(params);
  for (int step = 0; step < kSteps; ++step) train_step(adam, params, step);
  const StateDict state = adam.state_dict();
  EXPECT_EQ(state.at("state.0.step").item<std::int64_t>(), 6);
  EXPECT_EQ(state.at("state.1.step").item<std::int64_t>(), 4);
  EXPECT_EQ(adam.steps(), 6);
}

TEST(AdamTest, refuses_bad_options) {
  const Tensors params = make_params();
  const auto refused = [&](const AdamOptions& options, const char* part) {
    return throws<Error>([&] { Adam(params, options); }, part);
  };
  EXPECT_TRUE(refused({.lr = -1}, "Adam: lr is -1"));
  EXPECT_TRUE(refused({.betas = {1.0, 0.9}}, "Adam: betas.first is 1; it must be in [0, 1)"));
  EXPECT_TRUE(refused({.betas = {-0.1, 0.9}}, "Adam: betas.first is -0.1"));
  EXPECT_TRUE(refused({.betas = {0.9, 1.5}}, "Adam: betas.second is 1.5"));
  EXPECT_TRUE(refused({.betas = {0.9, NAN}}, "Adam: betas.second is nan"));
  EXPECT_TRUE(refused({.eps = -1e-8}, "Adam: eps is -1e-08"));
  EXPECT_TRUE(refused({.weight_decay = INFINITY}, "Adam: weight_decay is inf"));
  EXPECT_TRUE(throws<Error>([&] { AdamW(params, {.lr = -1}); }, "AdamW: lr is -1"));
  EXPECT_TRUE(throws<Error>([&] { AdamW(params, {.betas = {0.9, 1}}); }, "AdamW: betas.second is 1"));
}

}  // namespace
}  // namespace lamella::test
