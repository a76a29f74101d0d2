#include <gtest/gtest.h>

#include "autograd/record.h"
#include "lamella/autograd/autograd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "tensor/moments.h"

// What gradient functions leave for one another: GradientContext::leave_sums().
namespace lamella {
namespace {

using detail::GradientContext;
using detail::GradientTarget;
using detail::Output;

/// y = x; notes whether sums came with the gradient.
Tensor asks(const Tensor& x, bool& came) {
  return detail::record("asks", {x}, Output::of(x.clone().detach()), [&came](GradientContext& context) {
    came = context.sums().defined();
    context.add(0, context.grad());
  });
}

/// y = x; leaves sums where it may.
Tensor leaves(const Tensor& x, bool& may) {
  return detail::record("leaves", {x}, Output::of(x.clone().detach()), [&may](GradientContext& context) {
    const GradientTarget dx = context.target(0);
    const Tensor dense = context.grad().contiguous();
    const detail::ConstTensorView g = detail::read(dense);
    for (std::int64_t i = 0; i < dx.view.numel(); ++i) {
      double& to = dx.view.as<double>()[i];
      to = g.as<double>()[i] + (dx.write == detail::GradientWrite::Accumulate ? to : 0);
    }
    may = dx.write == detail::GradientWrite::Overwrite && context.is_between_operators(0);
    if (may) context.leave_sums(0, ones({1}));
  });
}

Tensor leaf() { return tensor({1, 2, 3}, {.dtype = float64, .requires_grad = true}); }

TEST(SumsTest, come_with_the_gradient) {
  bool came = false, may = false;
  const Tensor x = leaf();
  sum(leaves(asks(x, came), may)).backward();
  EXPECT_TRUE(may && came);
}

TEST(SumsTest, are_gone_when_something_is_added) {
  for (const bool first : {false, true}) {
    bool came = true, may = false;
    const Tensor x = leaf(), a = asks(x, came);
    // The walk meets the operator that was recorded last first.
    Tensor b, c;
    if (first) c = a * 2.0;
    b = leaves(a, may);
    if (!first) c = a * 2.0;
    sum(b + c).backward();
    EXPECT_EQ(may, first);
    EXPECT_FALSE(came) << first;
    EXPECT_EQ(x.grad().to_vector<double>(), (std::vector<double>{3, 3, 3}));
  }
}

TEST(SumsTest, may_not_be_left_where_somebody_looks) {
  bool came = false, may = true;
  {
    const Tensor x = leaf();
    Tensor a = asks(x, came);
    a.register_hook([](const Tensor&) { return Tensor(); });
    sum(leaves(a, may)).backward();
    EXPECT_FALSE(may || came);
  }
  {
    may = true;
    const Tensor x = leaf(), a = asks(x, came);
    Tensor kept = a;
    kept.retain_grad();
    sum(leaves(a, may)).backward();
    EXPECT_FALSE(may || came);
  }
  {
    may = true;
    const Tensor x = leaf(), a = asks(x, came);
    gradients_of({sum(leaves(a, may))}, {a});
    EXPECT_FALSE(may || came);
  }
  may = true;
  sum(leaves(leaf(), may)).backward();  // a leaf's gradient is the user's
  EXPECT_FALSE(may);
}

TEST(MomentsTest, are_taken_once_and_gone_when_the_tensor_changes) {
  {
    const detail::MomentsRequest request(true);
    EXPECT_TRUE(detail::take_moments_request());
    EXPECT_FALSE(detail::take_moments_request());
  }
  EXPECT_FALSE(detail::take_moments_request());
  const Tensor x = zeros({2, 3}, {.dtype = float64});
  EXPECT_FALSE(detail::moments_of(x).parts.defined());
  detail::LeftParts left(x.device(), 3);
  left.take(DType::Float64, 5, 2, 7);
  detail::leave_moments(x, left);
  EXPECT_EQ(detail::moments_of(x).parts.shape(), Shape({5, 2, 3}));
  EXPECT_EQ(detail::moments_of(x).of_part, 7);
  Tensor same = x;
  same.fill_(1);
  EXPECT_FALSE(detail::moments_of(x).parts.defined());
}

}  // namespace
}  // namespace lamella
