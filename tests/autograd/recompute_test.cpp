#include <gtest/gtest.h>

#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::gradcheck;
using testing::HasSameBits;
using testing::Passes;
using testing::random_tensor;

TEST(RecomputeTest, gives_the_gradients_of_the_plain_block) {
  const Tensor x = random_tensor({4}, 1, {.requires_grad = true}),
               w = random_tensor({4}, 2, {.requires_grad = true});
  const auto block = [&w](const Tensors& in) { return exp(in[0] * w) * in[0]; };
  EXPECT_TRUE(Passes(gradcheck([&](const Tensors& in) { return recompute(block, {in[0]}) * w; }, {x, w})));
  sum(recompute(block, {x}) * w).backward();
  const Tensor gx = x.grad().clone(), gw = w.grad().clone();
  Tensor(x).zero_grad();
  Tensor(w).zero_grad();
  sum(block({x}) * w).backward();
  EXPECT_THAT(gx, HasSameBits(x.grad()));
  EXPECT_TRUE(Passes(testing::all_close(gw, w.grad(), {1e-14, 1e-14})));
}

TEST(RecomputeTest, a_parameter_inside_gets_its_gradient_even_if_no_input_wants_one) {
  const Tensor x = random_tensor({4}, 1), w = random_tensor({4}, 2, {.requires_grad = true});
  sum(recompute([&](const Tensors& in) { return in[0] * w; }, {x})).backward();
  EXPECT_THAT(w.grad(), HasSameBits(x));
}

TEST(RecomputeTest, lets_other_gradients_alone_and_asks_for_hidden_ones) {
  const Tensor x = random_tensor({4}, 1), w = random_tensor({4}, 2, {.requires_grad = true});
  const Tensor y = sum(recompute([&](const Tensors& in) { return in[0] * w; }, {x}));
  EXPECT_THAT(gradients_of({y}, {w})[0], HasSameBits(x));
  EXPECT_FALSE(w.grad().defined());
}

TEST(RecomputeTest, a_block_may_use_results_made_before_it) {
  const Tensor x = random_tensor({4}, 1, {.requires_grad = true}),
               w = random_tensor({4}, 2, {.requires_grad = true});
  int hooked = 0;
  Tensor(w).register_hook([&](const Tensor&) { return ++hooked, Tensor(); });
  const auto loss = [&](bool again) {
    const Tensor v = exp(w);
    const auto outer = [v, w, again](const Tensors& in) {
      const auto inner = [v, w](const Tensors& deeper) { return deeper[0] * v * w; };
      return again ? recompute(inner, in) * v : inner(in) * v;
    };
    return sum((again ? recompute(outer, {x}) : outer({x})) + v);
  };
  loss(true).backward();
  EXPECT_EQ(hooked, 1);
  const Tensor gx = x.grad().clone(), gw = w.grad().clone();
  Tensor(x).zero_grad();
  Tensor(w).zero_grad();
  loss(false).backward();
  EXPECT_TRUE(Passes(testing::all_close(gx, x.grad(), {1e-14, 1e-14})));
  EXPECT_TRUE(Passes(testing::all_close(gw, w.grad(), {1e-14, 1e-14})));
}

TEST(RecomputeTest, repeats_its_random_draws_and_leaves_the_sequence_where_it_was) {
  manual_seed(3);
  const Tensor x = random_tensor({64}, 1, {.requires_grad = true});
  Tensor drawn;
  int runs = 0;
  const Tensor y = recompute(
      [&](const Tensors& in) {
        const Tensor mask = rand({64}, {.dtype = float64});
        EXPECT_EQ(recomputing(), runs == 1);
        if (runs++ == 0) drawn = mask;
        return in[0] * mask;
      },
      {x});
  (void)rand({3});
  const RandomState before = random_state();
  sum(y).backward();
  EXPECT_EQ(runs, 2);
  EXPECT_THAT(x.grad(), HasSameBits(drawn));
  EXPECT_EQ(random_state(), before);
}

TEST(RecomputeTest, records_nothing_without_gradients) {
  const NoGrad no_grad;
  const Tensor x = random_tensor({4}, 1, {.requires_grad = true});
  EXPECT_FALSE(recompute([](const Tensors& in) { return in[0] * 2.0; }, {x}).requires_grad());
}

TEST(RecomputeTest, gradients_of_finds_tensors_behind_results_that_a_block_uses) {
  const Tensor x = random_tensor({4}, 1), w = random_tensor({4}, 2, {.requires_grad = true}),
               other = random_tensor({4}, 3, {.requires_grad = true});
  const Tensor v = exp(w * 2.0), aside = exp(other);
  const auto block = [v, aside](const Tensors& in) { return in[0] * v * aside; };
  const Tensors got = gradients_of({sum(recompute(block, {x}))}, {w}, {}, true),
                want = gradients_of({sum(block({x}))}, {w});
  ASSERT_TRUE(got[0].defined());
  EXPECT_THAT(got[0], HasSameBits(want[0]));
  EXPECT_FALSE(w.grad().defined());
  EXPECT_FALSE(other.grad().defined());
}

}  // namespace
}  // namespace lamella
