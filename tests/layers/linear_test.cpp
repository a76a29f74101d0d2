#include "lamella/layers/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <limits>

#include "lamella/core/error.h"
#include "lamella/core/threads.h"
#include "lamella/testing/matchers.h"
#include "tests/support/error_bound.h"

namespace lamella {
namespace {

using test::absolute;
using test::explained_by_rounding;
using testing::gradcheck;
using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::Passes;
using testing::random_tensor;

/// x [rows,in], weight [out,in].
Tensor expected(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  Tensor y = testing::reference::matmul(x, weight.transpose(0, 1));
  if (!bias.defined()) return y;
  std::vector<double> values = y.to_vector<double>();
  const std::vector<double> b = bias.to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += b[i % b.size()];
  return from_vector(values, y.shape());
}

/// Result and gradients against the definition; one thread and two give the same bits.
void check(std::int64_t rows, std::int64_t in, std::int64_t out, DType dtype, DType parameter_dtype) {
  const Tensor grad = random_tensor({rows, out}, 4, {.dtype = dtype});
  Tensors first;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    const Tensor x = random_tensor({rows, in}, 1, {.dtype = dtype, .requires_grad = true});
    const Tensor w = random_tensor({out, in}, 2, {.dtype = parameter_dtype, .requires_grad = true});
    const Tensor b = random_tensor({out}, 3, {.dtype = parameter_dtype, .requires_grad = true});
    const Tensor y = linear(x, w, b);
    y.backward(grad);
    if (threads == 2) {
      EXPECT_THAT(y, HasSameBits(first[0]));
      EXPECT_THAT(x.grad(), HasSameBits(first[1]));
      EXPECT_THAT(w.grad(), HasSameBits(first[2]));
      EXPECT_THAT(b.grad(), HasSameBits(first[3]));
      return;
    }
    first = {y, x.grad(), w.grad(), b.grad()};
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_EQ(w.grad().dtype(), parameter_dtype);
    EXPECT_TRUE(
        explained_by_rounding(y, expected(x, w, b), expected(absolute(x), absolute(w), absolute(b)), in + 1));
    const Tensor ag = absolute(grad);
    const auto product = [](const Tensor& p, const Tensor& q) { return testing::reference::matmul(p, q); };
    EXPECT_TRUE(explained_by_rounding(x.grad(), product(grad, w), product(ag, absolute(w)), out));
    EXPECT_TRUE(explained_by_rounding(w.grad(), product(grad.transpose(0, 1), x),
                                      product(ag.transpose(0, 1), absolute(x)), rows));
    const Tensor one = ones({rows, 1}, {.dtype = float64});
    EXPECT_TRUE(explained_by_rounding(b.grad(), product(grad.transpose(0, 1), one).reshape({out}),
                                      product(ag.transpose(0, 1), one).reshape({out}), rows));
  }
}

TEST(LinearTest, multiplies_by_the_transposed_weight_and_adds_the_bias) {
  const Tensor x = from_vector<double>({1, 2, 3}, {1, 3});
  const Tensor w = from_vector<double>({1, 10, 100, 0, 0, 1}, {2, 3}),
               b = from_vector<double>({0.5, -1}, {2});
  EXPECT_THAT(linear(x, w, b), HasSameBits(from_vector<double>({321.5, 2}, {1, 2})));
  EXPECT_THAT(linear(x.select(0, 0), w), HasSameBits(from_vector<double>({321, 3}, {2})));
}

TEST(LinearTest, keeps_leading_axes) {
  const Tensor x = random_tensor({2, 3, 4, 5}, 1), w = random_tensor({7, 5}, 2), b = random_tensor({7}, 3);
  EXPECT_THAT(linear(x, w, b), HasSameBits(linear(x.reshape({24, 5}), w, b).reshape({2, 3, 4, 7})));
}

TEST(LinearTest, classifiers) {
  check(64, 1280, 10, float32, float32);
  check(1, 1280, 1000, float32, float32);
  check(3, 100, 200, float64, float64);
  check(16, 300, 33, bfloat16, float32);
  check(16, 300, 33, bfloat16, bfloat16);
  check(16, 300, 33, float16, float32);
}

TEST(LinearTest, an_empty_batch_gives_zero_parameter_gradients) {
  Tensor w = ones({4, 3}).set_requires_grad(), b = ones({4}).set_requires_grad();
  const Tensor y = linear(zeros({0, 3}), w, b);
  EXPECT_EQ(y.shape(), Shape({0, 4}));
  y.backward(zeros({0, 4}));
  EXPECT_THAT(w.grad(), HasSameBits(zeros({4, 3})));
  EXPECT_THAT(b.grad(), HasSameBits(zeros({4})));
}

TEST(LinearTest, differentiates) {
  const auto leaf = [](const Shape& shape, std::uint64_t seed) {
    return random_tensor(shape, seed, {.requires_grad = true});
  };
  EXPECT_TRUE(Passes(gradcheck([](const Tensors& t) { return linear(t[0], t[1], t[2]); },
                               {leaf({2, 3, 5}, 1), leaf({4, 5}, 2), leaf({4}, 3)},
                               {.step = 1, .tolerance = 1e-10})));
}

TEST(LinearTest, adds_to_gradients_and_replaces_stale_ones) {
  Tensor x = random_tensor({3, 5}, 1, {.requires_grad = true}),
         w = random_tensor({4, 5}, 2, {.requires_grad = true}),
         b = random_tensor({4}, 3, {.requires_grad = true});
  const Tensor grad = random_tensor({3, 4}, 4);
  linear(x, w, b).backward(grad);
  const Tensors once = {x.grad().clone(), w.grad().clone(), b.grad().clone()};
  linear(x, w, b).backward(grad);
  const Tensor leaves[] = {x, w, b};
  for (std::size_t i = 0; i < 3; ++i) {
    Tensor twice = once[i].clone();
    for (std::int64_t j = 0; j < twice.numel(); ++j) twice.mutable_data<double>()[j] *= 2;
    EXPECT_THAT(leaves[i].grad(), testing::IsClose(twice, {.relative = 1e-14, .absolute = 1e-15}));
    leaves[i].grad().fill_(std::numeric_limits<double>::quiet_NaN());
  }
  x.zero_grad();
  w.zero_grad();
  b.zero_grad();
  linear(x, w, b).backward(grad);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_THAT(leaves[i].grad(), HasSameBits(once[i]));
}

TEST(LinearTest, says_what_does_not_fit) {
  const auto message = [](auto&& run) -> std::string {
    try {
      run();
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(message([] {
              linear(zeros({8, 32}), zeros({10, 24}));
            }),
            "linear: weight takes 24 features but input has 32 (input [8,32] float32 cpu, weight [10,24] "
            "float32 cpu)");
  EXPECT_THAT(message([] {
                linear(zeros({8, 32}), zeros({10, 32}), zeros({9}));
              }),
              HasSubstr("linear: bias must have 10"));
  EXPECT_THAT(message([] {
                linear(zeros({8, 32}), zeros({32}));
              }),
              HasSubstr("linear: weight must have 2 axes"));
  EXPECT_THAT(message([] { linear(scalar(1), zeros({4, 1})); }), HasSubstr("linear: input needs"));
  EXPECT_THROW(linear(zeros({8, 32}), zeros({10, 32}, {.dtype = float64})), DTypeError);
  EXPECT_THROW(linear(zeros({8, 32}, {.dtype = int64}), zeros({10, 32})), DTypeError);
  EXPECT_THROW(linear(Tensor(), zeros({10, 32})), Error);
  EXPECT_THROW(linear(zeros({8, 32}), Tensor()), Error);
}

RC_GTEST_PROP(LinearTest, agrees_with_the_definition, ()) {
  const auto size = [](std::int64_t high) { return *rc::gen::inRange<std::int64_t>(1, high); };
  const DType dtype = *rc::gen::element(float32, float64, bfloat16, float16);
  check(size(40), size(200), size(60), dtype,
        dtype == float64 || *rc::gen::arbitrary<bool>() ? dtype : float32);
  RC_ASSERT(!::testing::Test::HasFailure());
}

}  // namespace
}  // namespace lamella
