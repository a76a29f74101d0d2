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

/// y = x; notes whether it is the only one that contributes to x's gradient.
Tensor counts(const Tensor& x, bool& sole) {
  return detail::record("counts", {x}, Output::of(x.detach().clone()), [&sole](GradientContext& context) {
    sole = context.is_sole_contribution(0);
    context.add(0, context.grad());
  });
}

TEST(SumsTest, a_contribution_is_the_only_one_if_nothing_else_has_read_the_tensor) {
  bool came = false, sole = false;
  const Tensor x = leaf();
  sum(counts(asks(x, came), sole)).backward();
  EXPECT_TRUE(sole);
  for (const bool first : {false, true}) {
    sole = true;
    const Tensor a = asks(x, came);
    Tensor other;
    if (first) other = a * 2.0;
    const Tensor b = counts(a, sole);
    if (!first) other = a * 2.0;
    sum(b + other).backward();
    EXPECT_FALSE(sole) << first;
  }
  {
    // Read by a block that runs again, which no edge tells of.
    const Tensor a = asks(x, came);
    const Tensor z = tensor({1, 1, 1}, {.dtype = float64, .requires_grad = true});
    const Tensor again = recompute([&](const Tensors& in) { return a * in[0]; }, {z});
    sole = true;
    sum(counts(a, sole) + again).backward();
    EXPECT_FALSE(sole);
  }
  sum(counts(asks(x, came), sole)).backward();
  EXPECT_TRUE(sole);
  sum(counts(x, sole)).backward();  // a leaf
  EXPECT_FALSE(sole);
}

/// y = Σ x · w of [3] and [3]; the gradient of w in two parts of three rows, with a number between them that
/// belongs to nobody. Says whether it could.
Tensor in_parts(const Tensor& x, const Tensor& w, bool& may) {
  const auto y = Output::of(sum(x * w).detach());
  return detail::record("in_parts", {w}, y, [x, &may](GradientContext& context) {
    may = context.takes_parts(0);
    if (!may) return context.add(0, x * context.grad().item());
    detail::GradientParts parts(Device::cpu());
    float* const to = parts.take(2, 3, 1, 2);
    const auto g = static_cast<float>(context.grad().item());
    const std::vector<float> numbers = x.to_vector<float>();
    for (std::size_t part = 0; part < 2; ++part)
      for (std::size_t i = 0; i < 3; ++i) {
        to[(part * 3 + i) * 2] = g * numbers[i] * (part == 0 ? 0.25F : 0.75F);
        to[(part * 3 + i) * 2 + 1] = 1e9F;
      }
    context.add_parts(0, parts);
  });
}

Tensor floats(const std::vector<float>& numbers, bool learns = false) {
  Tensor made = from_vector(numbers, {static_cast<std::int64_t>(numbers.size())});
  if (learns) made.set_requires_grad(true);
  return made;
}

TEST(GradientPartsTest, are_added_up_at_the_end) {
  const Tensor x = floats({4, 8, 12});
  Tensor w = floats({1, 1, 1}, true);
  bool may = false;
  const auto run = [&] {
    Tensor y = in_parts(x, w, may);
    y.backward();
  };
  run();
  EXPECT_TRUE(may);
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{4, 8, 12}));
  const void* const place = w.grad().data<float>();
  run();
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{8, 16, 24}));
  w.zero_grad();
  run();
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{4, 8, 12}));
  EXPECT_EQ(w.grad().data<float>(), place);

  // Several of one leaf, and what others add before and behind them.
  for (const int order : {0, 1, 2}) {
    w.zero_grad();
    Tensor y;
    if (order == 0) y = in_parts(x, w, may) + in_parts(x, w, may);
    if (order == 1) y = in_parts(x, w, may) + sum(w);
    if (order == 2) y = sum(w) + in_parts(x, w, may);
    y.backward();
    EXPECT_EQ(w.grad().to_vector<float>(),
              order == 0 ? (std::vector<float>{8, 16, 24}) : (std::vector<float>{5, 9, 13}))
        << order;
  }
}

TEST(GradientPartsTest, are_not_taken_where_somebody_looks_or_memory_lies_otherwise) {
  const Tensor x = floats({4, 8, 12});
  bool may = true;
  {
    Tensor w = floats({1, 1, 1}, true);
    w.register_hook([](const Tensor& g) { return g * 2.0; });
    in_parts(x, w, may).backward();
    EXPECT_FALSE(may);
    EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{8, 16, 24}));
  }
  {
    const Tensor w = floats({1, 1, 1}, true);
    EXPECT_EQ(gradients_of({in_parts(x, w, may)}, {w})[0].to_vector<float>(), (std::vector<float>{4, 8, 12}));
    EXPECT_FALSE(may);
    const Tensor made = w * 1.0;
    in_parts(x, made, may).backward();
    EXPECT_FALSE(may);
  }
  {
    Tensor w = floats({1, 1, 1}, true);
    w.set_grad(floats({1, 0, 2, 0, 3, 0}).slice(0, {0, {}, 2}));
    in_parts(x, w, may).backward();
    EXPECT_FALSE(may);
    EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{5, 10, 15}));
  }
  {
    const Tensor w = floats({1, 1, 1}, true);
    const AnomalyMode anomaly;
    in_parts(x, w, may).backward();
    EXPECT_FALSE(may);
  }
}

TEST(GradientPartsTest, of_a_block_that_runs_again_are_added_up_too) {
  const Tensor x = floats({4, 8, 12});
  const Tensor w = floats({1, 1, 1}, true), z = floats({2}, true);
  bool may = false;
  recompute([&](const Tensors& in) { return in_parts(x, w, may) * sum(in[0]); }, {z}).backward();
  EXPECT_TRUE(may);
  EXPECT_EQ(w.grad().to_vector<float>(), (std::vector<float>{8, 16, 24}));
  EXPECT_EQ(z.grad().to_vector<float>(), std::vector<float>{24});
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
