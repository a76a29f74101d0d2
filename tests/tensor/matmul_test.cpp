#include "lamella/tensor/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "tests/support/error_bound.h"

namespace lamella {
namespace {

using test::absolute;
using test::explained_by_rounding;
using testing::gradcheck;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

template <class E, class F>
std::string message_of(F&& run) {
  try {
    run();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

/// Batches broadcast by hand, each product by the reference.
Tensor expected_product(const Tensor& a, const Tensor& b) {
  Shape ab = a.shape(), bb = b.shape();
  for (int i = 0; i < 2; ++i) ab.erase(ab.size() - 1), bb.erase(bb.size() - 1);
  Shape batch = broadcast_shapes("test", ab, bb), as = batch, bs = batch, cs = batch;
  as.push_back(a.size(-2)), as.push_back(a.size(-1));
  bs.push_back(b.size(-2)), bs.push_back(b.size(-1));
  cs.push_back(a.size(-2)), cs.push_back(b.size(-1));
  const std::int64_t count = batch.product();
  const Tensor x = a.expand(as).reshape({count, a.size(-2), a.size(-1)});
  const Tensor y = b.expand(bs).reshape({count, b.size(-2), b.size(-1)});
  Tensor c = zeros({count, a.size(-2), b.size(-1)}, {.dtype = DType::Float64});
  for (std::int64_t i = 0; i < count; ++i)
    c.select(0, i).copy_(testing::reference::matmul(x.select(0, i), y.select(0, i)));
  return c.reshape(cs);
}

void check(const Tensor& a, const Tensor& b) {
  EXPECT_TRUE(explained_by_rounding(matmul(a, b), expected_product(a, b),
                                    expected_product(absolute(a), absolute(b)), a.size(-1)));
}

TEST(MatmulTest, follows_the_rules_for_vectors) {
  const Tensor v = from_vector<double>({1, 2, 3}, {3}), w = from_vector<double>({4, 5, 6}, {3});
  EXPECT_EQ(matmul(v, w).shape(), Shape{});
  EXPECT_EQ(matmul(v, w).item(), 32);
  const Tensor m = from_vector<double>({1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_THAT(matmul(m, v), testing::HasSameBits(from_vector<double>({14, 32}, {2})));
  const Tensor u = from_vector<double>({1, -1}, {2});
  EXPECT_THAT(matmul(u, m), testing::HasSameBits(from_vector<double>({-3, -3, -3}, {3})));
  EXPECT_EQ(matmul(v, zeros({5, 3, 2}, {.dtype = float64})).shape(), Shape({5, 2}));
  EXPECT_EQ(matmul(zeros({5, 2, 3}, {.dtype = float64}), v).shape(), Shape({5, 2}));
}

TEST(MatmulTest, broadcasts_batches) {
  const auto random = [](const Shape& shape) { return random_tensor(shape, 1, {.dtype = float32}); };
  check(random({7, 5}), random({5, 9}));
  check(random({4, 1, 7, 5}), random({3, 5, 9}));
  check(random({2, 3, 7, 5}), random({5, 9}));
  check(random({7, 5}), random({2, 3, 5, 9}));
  check(random({1, 7, 5}), random({6, 5, 9}));
  check(random({9, 7}).transpose(0, 1).slice(1, {0, 9, 2}), random({9, 5}).transpose(0, 1));
  check(random({3, 7, 5}).expand({4, 3, 7, 5}), random({4, 1, 5, 1}));
}

TEST(MatmulTest, takes_empty_operands) {
  EXPECT_THAT(matmul(zeros({3, 0}), zeros({0, 2})), testing::HasSameBits(zeros({3, 2})));
  EXPECT_THAT(matmul(zeros({4, 3, 0}), zeros({0, 2})), testing::HasSameBits(zeros({4, 3, 2})));
  EXPECT_EQ(matmul(zeros({0, 3}), zeros({3, 2})).shape(), Shape({0, 2}));
  EXPECT_EQ(matmul(zeros({0, 4, 3}), zeros({0, 3, 2})).shape(), Shape({0, 4, 2}));
  Tensor w = ones({3, 2}).set_requires_grad();
  matmul(zeros({0, 3}), w).backward(zeros({0, 2}));
  EXPECT_THAT(w.grad(), testing::HasSameBits(zeros({3, 2})));
  Tensor s = ones({1, 3, 2}).set_requires_grad();
  matmul(zeros({0, 4, 3}), s).backward(zeros({0, 4, 2}));
  EXPECT_THAT(s.grad(), testing::HasSameBits(zeros({1, 3, 2})));
}

TEST(MatmulTest, differentiates_by_both_operands) {
  const auto leaf = [](const Shape& shape, std::uint64_t seed) {
    return random_tensor(shape, seed, {.requires_grad = true});
  };
  const auto product = [](const Tensors& x) { return matmul(x[0], x[1]); };
  const testing::GradcheckOptions linear{.step = 1, .tolerance = 1e-10};
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({5}, 1), leaf({5}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({4, 5}, 1), leaf({5}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({5}, 1), leaf({3, 5, 2}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({4, 5}, 1), leaf({5, 3}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({2, 3, 4, 5}, 1), leaf({5, 3}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({2, 1, 4, 5}, 1), leaf({3, 5, 2}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck(product, {leaf({4, 5}, 1), leaf({3, 5, 2}, 2)}, linear)));
  EXPECT_TRUE(
      Passes(gradcheck([](const Tensors& x) { return matmul(x[0].transpose(0, 1), x[1].transpose(1, 2)); },
                       {leaf({5, 4}, 1), leaf({3, 2, 5}, 2)}, linear)));
  EXPECT_TRUE(Passes(gradcheck([](const Tensors& x) { return matmul(x[0], x[0]); }, {leaf({4, 4}, 1)},
                               {.tolerance = 1e-8})));
}

TEST(MatmulTest, adds_to_gradients_and_replaces_stale_ones) {
  Tensor a = random_tensor({3, 4}, 1, {.requires_grad = true}),
         b = random_tensor({4, 2}, 2, {.requires_grad = true});
  const Tensor seed = ones({3, 2}, {.dtype = float64});
  matmul(a, b).backward(seed);
  const Tensor da = a.grad().clone(), db = b.grad().clone();
  matmul(a, b).backward(seed);
  for (const auto& [leaf, once] : {std::pair{a, da}, std::pair{b, db}}) {
    Tensor twice = once.clone();
    for (std::int64_t i = 0; i < twice.numel(); ++i) twice.mutable_data<double>()[i] *= 2;
    EXPECT_THAT(leaf.grad(), IsClose(twice));
    leaf.grad().fill_(std::numeric_limits<double>::quiet_NaN());
  }
  a.zero_grad();
  b.zero_grad();
  matmul(a, b).backward(seed);
  EXPECT_THAT(a.grad(), testing::HasSameBits(da));
  EXPECT_THAT(b.grad(), testing::HasSameBits(db));
}

TEST(MatmulTest, rounds_half_types_once) {
  for (const DType dtype : {bfloat16, float16}) {
    const Tensor a = random_tensor({9, 300}, 1, {.dtype = dtype}),
                 b = random_tensor({300, 20}, 2, {.dtype = dtype});
    check(a, b);
    EXPECT_EQ(matmul(a, b).dtype(), dtype);
  }
}

TEST(MatmulTest, names_operands_that_do_not_fit) {
  EXPECT_EQ(message_of<ShapeError>([] {
              matmul(zeros({3, 4}), zeros({5, 2}));
            }),
            "matmul: the left operand has 4 columns but the right one has 5 rows ([3,4] float32 cpu times "
            "[5,2] float32 "
            "cpu)");
  EXPECT_THAT(message_of<ShapeError>([] {
                matmul(zeros({2, 3, 4}), zeros({5, 4, 2}));
              }),
              HasSubstr("matmul: "));
  EXPECT_THAT(message_of<ShapeError>([] { matmul(scalar(1), zeros({5})); }), HasSubstr("at least one axis"));
  EXPECT_THAT(message_of<DTypeError>([] {
                matmul(zeros({3, 4}), zeros({4, 2}, {.dtype = float64}));
              }),
              HasSubstr("matmul: "));
  EXPECT_THAT(message_of<DTypeError>([] {
                matmul(zeros({3, 4}, {.dtype = int64}), zeros({4, 2}, {.dtype = int64}));
              }),
              HasSubstr("matmul: "));
  EXPECT_THAT(message_of<Error>([] { matmul(Tensor(), zeros({4, 2})); }), HasSubstr("matmul: "));
}

RC_GTEST_PROP(MatmulTest, agrees_with_the_reference, ()) {
  const auto size = [] { return *rc::gen::inRange<std::int64_t>(1, 20); };
  const std::int64_t m = size(), n = size(), k = *rc::gen::inRange<std::int64_t>(1, 300);
  Shape a, b;
  for (int axis = *rc::gen::inRange(0, 3); axis > 0; --axis) {
    const std::int64_t batch = *rc::gen::inRange<std::int64_t>(1, 5);
    a.push_back(*rc::gen::element<std::int64_t>(1, batch));
    if (!b.empty() || *rc::gen::arbitrary<bool>()) b.push_back(*rc::gen::element<std::int64_t>(1, batch));
  }
  a.push_back(m), a.push_back(k), b.push_back(k), b.push_back(n);
  const DType dtype = *rc::gen::element(float32, float64, bfloat16);
  check(random_tensor(a, 1, {.dtype = dtype}), random_tensor(b, 2, {.dtype = dtype}));
  RC_ASSERT(!::testing::Test::HasFailure());
}

}  // namespace
}  // namespace lamella
