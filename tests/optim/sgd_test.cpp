#include "lamella/optim/sgd.h"

#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::SGD;
using optim::SGDOptions;

TEST(SgdTest, gives_the_numbers_of_pytorch) {
  check_optimizer("sgd", maker<SGD>(SGDOptions{.lr = 0.1}));
  check_optimizer("sgd_decay", maker<SGD>(SGDOptions{.lr = 0.1, .weight_decay = 0.01}));
  check_optimizer("sgd_momentum", maker<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01}));
  check_optimizer("sgd_dampening", maker<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.3}));
  check_optimizer("sgd_nesterov",
                  maker<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true}));
}

TEST(SgdTest, keeps_a_buffer_only_for_momentum) {
  const Tensors params = make_params();
  SGD plain(params, {.lr = 0.1}), heavy(params, {.lr = 0.1, .momentum = 0.9});
  train_step(plain, params, 1);
  train_step(heavy, params, 1);
  EXPECT_FALSE(plain.state_dict().contains("state.0.momentum_buffer"));
  EXPECT_TRUE(heavy.state_dict().contains("state.2.momentum_buffer"));
}

TEST(SgdTest, takes_one_list_of_parameters) {
  Tensor p = tensor({1, 2}).set_requires_grad();
  SGD sgd({p}, {.lr = 0.5});
  p.set_grad(tensor({2, -4}));
  sgd.step();
  EXPECT_EQ(p.to_vector<float>(), (std::vector<float>{0, 4}));
}

TEST(SgdTest, refuses_bad_options) {
  const Tensors params = make_params();
  const auto refused = [&](const SGDOptions& options, const char* part) {
    return throws<Error>([&] { SGD(params, options); }, part);
  };
  EXPECT_TRUE(refused({.lr = -1}, "SGD: lr is -1; it must be finite and at least 0"));
  EXPECT_TRUE(refused({.lr = NAN}, "SGD: lr is nan"));
  EXPECT_TRUE(refused({.lr = INFINITY}, "SGD: lr is inf"));
  EXPECT_TRUE(refused({.momentum = -0.1}, "SGD: momentum is -0.1"));
  EXPECT_TRUE(refused({.momentum = NAN}, "SGD: momentum is nan"));
  EXPECT_TRUE(refused({.dampening = NAN}, "SGD: dampening is nan"));
  EXPECT_TRUE(refused({.weight_decay = -1}, "SGD: weight_decay is -1"));
  EXPECT_TRUE(refused({.nesterov = true}, "SGD: nesterov needs momentum above 0 and dampening 0"));
  EXPECT_TRUE(refused({.momentum = 0.9, .dampening = 0.1, .nesterov = true}, "SGD: nesterov needs"));
}

}  // namespace
}  // namespace lamella::test
