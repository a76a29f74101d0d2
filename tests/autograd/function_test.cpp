#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using ::testing::AllOf;
using testing::gradcheck;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

/// (scale · x · y, x + y)
class ScaledProductAndSum : public Function {
 public:
  explicit ScaledProductAndSum(double scale) : scale_(scale) {}
  std::string name() const override { return "scaled_product_and_sum"; }
  Tensors forward(const Tensors& in) override {
    save_for_backward(in);
    return {in[0] * in[1] * scale_, in[0] + in[1]};
  }
  Tensors backward(const Tensors& grads) override {
    const Tensors in = saved_tensors();
    Tensors result(2);
    for (std::size_t i = 0; i < 2; ++i) {
      if (!needs_input_grad(i)) continue;
      if (grads[0].defined()) result[i] = grads[0] * in[1 - i] * scale_;
      if (grads[1].defined()) result[i] = result[i].defined() ? result[i] + grads[1] : grads[1];
    }
    return result;
  }

 private:
  double scale_;
};

class WrongBackward : public Function {
 public:
  explicit WrongBackward(Tensors gradients) : gradients_(std::move(gradients)) {}
  std::string name() const override { return "wrong_backward"; }
  Tensors forward(const Tensors& in) override { return {in[0] * 1.0}; }
  Tensors backward(const Tensors&) override { return gradients_; }

 private:
  Tensors gradients_;
};

class PassThrough : public Function {
 public:
  std::string name() const override { return "pass_through"; }
  Tensors forward(const Tensors& in) override { return {in[0]}; }
  Tensors backward(const Tensors& grads) override { return {grads[0] * 2.0}; }
};

TEST(FunctionTest, passes_gradcheck) {
  const Tensor x = random_tensor({3}, 1, {.requires_grad = true}),
               y = random_tensor({3}, 2, {.requires_grad = true});
  EXPECT_TRUE(Passes(gradcheck(
      [](const Tensors& in) {
        const Tensors out = apply<ScaledProductAndSum>(in, 3.0);
        return out[0] * out[1];
      },
      {x, y})));
}

TEST(FunctionTest, results_nobody_used_have_no_gradient_and_inputs_may_want_none) {
  const Tensor x = random_tensor({3}, 1, {.requires_grad = true}), y = random_tensor({3}, 2);
  sum(apply<ScaledProductAndSum>({x, y}, 1.0)[1]).backward();
  EXPECT_THAT(x.grad(), IsClose(ones({3})));
  EXPECT_FALSE(y.grad().defined());
}

TEST(FunctionTest, wrong_gradients_are_refused_by_name) {
  const Tensor x = random_tensor({3}, 1, {.requires_grad = true});
  const auto error = [&](Tensors gradients) -> std::string {
    try {
      sum(apply<WrongBackward>({x}, std::move(gradients))[0]).backward();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(error({}), HasSubstr("wrong_backward"));
  EXPECT_THAT(error({zeros({4}, {.dtype = float64})}), AllOf(HasSubstr("wrong_backward"), HasSubstr("[4]")));
  EXPECT_THAT(error({zeros({3})}), AllOf(HasSubstr("wrong_backward"), HasSubstr("float32")));
}

TEST(FunctionTest, an_input_returned_as_it_is_keeps_its_own_graph) {
  const Tensor x = random_tensor({3}, 1, {.requires_grad = true});
  const Tensor y = x * 3.0;
  sum(apply<PassThrough>({y})[0]).backward();
  EXPECT_THAT(x.grad(), IsClose(full({3}, 6)));
}

TEST(FunctionTest, saved_tensors_notice_changes_and_go_with_the_graph) {
  const Tensor x = random_tensor({3}, 1, {.requires_grad = true});
  Tensor y = random_tensor({3}, 2);
  const Tensor out = apply<ScaledProductAndSum>({x, y}, 1.0)[0];
  y.fill_(1);
  EXPECT_THROW(sum(out).backward(), Error);

  const auto function = std::make_shared<ScaledProductAndSum>(1.0);
  { const Tensors dropped = apply_function(function, {x, x}); }
  EXPECT_THROW(apply_function(function, {x, x}), Error);
}

}  // namespace
}  // namespace lamella
