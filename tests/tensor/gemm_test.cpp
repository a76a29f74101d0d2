#include "tensor/kernels/gemm.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>

#include "lamella/core/threads.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "tensor/door.h"
#include "tests/support/error_bound.h"

namespace lamella {
namespace {

using detail::Gemm;
using detail::GemmOperand;
using detail::GradientWrite;
using test::absolute;
using test::explained_by_rounding;
using testing::random_tensor;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// A [batch…, rows, columns] tensor whose axes lie in memory in `order`, with unused elements between.
Tensor strided(const Shape& shape, const Dims& order, std::int64_t gap, std::uint64_t seed, DType dtype) {
  Shape storage = Dims::filled(shape.size(), 0);
  Dims back = storage;
  for (int axis = 0; axis < shape.size(); ++axis) {
    storage[axis] = shape[static_cast<int>(order[axis])];
    back[static_cast<int>(order[axis])] = axis;
  }
  const int last = shape.size() - 1;
  const std::int64_t size = storage[last];
  storage[last] += gap;
  return random_tensor(storage, seed, {.dtype = dtype}).slice(last, {gap / 2, gap / 2 + size}).permute(back);
}

GemmOperand operand(const Tensor& x) {
  const detail::ConstTensorView view = detail::read(x);
  GemmOperand result{view.data, view.dtype, view.strides[x.dim() - 2], view.strides[x.dim() - 1], {}};
  for (int axis = 0; axis < x.dim() - 2; ++axis) result.batch.push_back(view.strides[axis]);
  return result;
}

/// c (float64, all batch axes kept or of size 1) from the definition.
Tensor reference(const Tensor& a, const Tensor& b, const Tensor& start) {
  const Shape as = a.shape();
  std::vector<double> c = start.to_vector<double>();
  const std::vector<double> av = a.to_vector<double>(), bv = b.to_vector<double>();
  const std::int64_t m = as[as.size() - 2], k = as.back(), n = b.shape().back();
  const std::int64_t batches = k == 0 || m == 0 ? 0 : a.numel() / (m * k);
  const Strides target = dense_strides(start.shape());
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    std::int64_t offset = 0, rest = batch;
    for (int axis = as.size() - 3; axis >= 0; --axis) {
      if (start.shape()[axis] != 1) offset += rest % as[axis] * target[axis];
      rest /= as[axis];
    }
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double& sum = c[static_cast<std::size_t>(offset + i * n + j)];
        for (std::int64_t p = 0; p < k; ++p)
          sum += av[static_cast<std::size_t>((batch * m + i) * k + p)] *
                 bv[static_cast<std::size_t>((batch * k + p) * n + j)];
      }
  }
  return from_vector(c, start.shape());
}

struct Case {
  Tensor a, b, bias, c;
  Shape batch;
  std::vector<bool> summed;
  GradientWrite write = GradientWrite::Overwrite;
};

void run(const Case& test) {
  Gemm g;
  g.m = test.a.size(-2);
  g.k = test.a.size(-1);
  g.n = test.b.size(-1);
  g.batch = test.batch;
  g.a = operand(test.a);
  g.b = operand(test.b);
  if (test.bias.defined()) g.bias = operand(test.bias);
  const GemmOperand c = operand(test.c);
  g.c = const_cast<void*>(c.data);
  g.c_dtype = c.dtype;
  g.c_row = c.row;
  g.c_column = c.column;
  g.c_batch = c.batch;
  for (int axis = 0; axis < g.batch.size(); ++axis)
    if (test.summed[static_cast<std::size_t>(axis)]) g.c_batch[axis] = 0;
  g.write = test.write;
  cpu::gemm(g);
}

/// Runs the case with one thread and with two, and compares with the definition.
void check(const Case& test) {
  const bool overwrite = test.write == GradientWrite::Overwrite;
  const Tensor before = test.c.clone();
  Tensor expected = zeros(test.c.shape(), {.dtype = DType::Float64}), magnitude = expected.clone();
  if (!overwrite) {
    expected.copy_(before);
    magnitude = absolute(before);
  } else if (test.bias.defined()) {
    expected.copy_(test.bias);
    magnitude = absolute(expected);
  }
  expected = reference(test.a, test.b, expected);
  magnitude = reference(absolute(test.a), absolute(test.b), magnitude);
  Tensor c = test.c;
  if (overwrite) c.fill_(kNan);
  set_num_threads(1);
  run(test);
  const Tensor first = c.clone();
  const std::int64_t terms =
      test.a.numel() / std::max<std::int64_t>(c.numel() / std::max<std::int64_t>(test.b.size(-1), 1), 1) + 2;
  EXPECT_TRUE(explained_by_rounding(first, expected, magnitude, terms));
  c.copy_(before);
  if (overwrite) c.fill_(kNan);
  set_num_threads(2);
  run(test);
  EXPECT_THAT(c, testing::HasSameBits(first));
}

Case make_case(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype = DType::Float32) {
  return {random_tensor({m, k}, 1, {.dtype = dtype}),
          random_tensor({k, n}, 2, {.dtype = dtype}),
          {},
          random_tensor({m, n}, 3, {.dtype = dtype}),
          {},
          {},
          GradientWrite::Overwrite};
}

TEST(GemmTest, multiplies_every_small_size) {
  for (const DType dtype : {DType::Float32, DType::Float64})
    for (std::int64_t m = 0; m <= 14; ++m)
      for (std::int64_t n = 0; n <= 34; n += n < 20 ? 1 : 7)
        for (const std::int64_t k : {0, 1, 2, 5, 16, 33}) {
          Case test = make_case(m, n, k, dtype);
          check(test);
          test.a = random_tensor({k, m}, 4, {.dtype = dtype}).transpose(0, 1);
          check(test);
          test.b = random_tensor({n, k}, 5, {.dtype = dtype}).transpose(0, 1);
          check(test);
          test.c = random_tensor({n, m}, 6, {.dtype = dtype}).transpose(0, 1);
          test.write = GradientWrite::Accumulate;
          check(test);
        }
}

TEST(GemmTest, cuts_large_products_into_blocks) {
  check(make_case(1000, 70, 40));   // row blocks
  check(make_case(13, 1100, 600));  // column blocks, several depths
  check(make_case(20, 24, 40000));  // partial sums
  check(make_case(211, 300, 521, DType::Float64));
  check(make_case(1, 999, 1001));  // a row times a matrix
  check(make_case(999, 1, 1001));
  Case transposed = make_case(24, 20, 30011);
  transposed.a = random_tensor({30011, 24}, 7, {.dtype = DType::Float32}).transpose(0, 1);
  transposed.write = GradientWrite::Accumulate;
  check(transposed);
}

TEST(GemmTest, adds_products_along_batch_axes_without_a_target_stride) {
  for (const DType dtype : {DType::Float32, DType::BFloat16}) {
    Case test;
    test.batch = {3, 70};
    test.summed = {false, true};
    test.a = random_tensor({3, 70, 5, 49}, 1, {.dtype = dtype});
    test.b = random_tensor({3, 70, 49, 11}, 2, {.dtype = dtype});
    test.c = random_tensor({3, 1, 5, 11}, 3, {.dtype = dtype});
    check(test);
    test.write = GradientWrite::Accumulate;
    check(test);
    test.a = random_tensor({3, 5, 70, 49}, 4, {.dtype = dtype}).permute({0, 2, 1, 3});  // merges into k
    test.b = random_tensor({3, 3430, 11}, 5, {.dtype = dtype}).reshape({3, 70, 49, 11});
    check(test);
    test.batch = {3, 0};
    test.a = random_tensor({3, 0, 5, 49}, 6, {.dtype = dtype});
    test.b = random_tensor({3, 0, 49, 11}, 7, {.dtype = dtype});
    check(test);
    test.write = GradientWrite::Overwrite;
    check(test);  // zero
  }
}

TEST(GemmTest, leaves_other_memory_alone) {
  const Tensor whole = random_tensor({3, 40, 50}, 1, {.dtype = DType::Float32});
  for (const bool transposed : {false, true}) {
    const Tensor before = whole.clone();
    Case test;
    test.batch = {2};
    test.summed = {false};
    test.a = random_tensor({2, 31, 9}, 2, {.dtype = DType::Float32});
    test.b = random_tensor({2, 9, 37}, 3, {.dtype = DType::Float32});
    test.c = whole.slice(0, {1, 3}).slice(1, {3, 34}).slice(2, {5, 42});
    if (transposed) {
      test.a = random_tensor({2, 37, 9}, 2, {.dtype = DType::Float32});
      test.b = random_tensor({2, 9, 31}, 3, {.dtype = DType::Float32});
      test.c = test.c.transpose(1, 2);
    }
    check(test);
    Tensor after = whole.clone();
    const auto inner = [](const Tensor& t) { return t.slice(0, {1, 3}).slice(1, {3, 34}).slice(2, {5, 42}); };
    inner(after).copy_(inner(before));
    EXPECT_THAT(after, testing::HasSameBits(before));
  }
}

RC_GTEST_PROP(GemmTest, agrees_with_the_definition_for_any_layout, ()) {
  const auto size = [](int low, int high) { return *rc::gen::inRange<std::int64_t>(low, high); };
  const DType wide = DType::Float64;
  const bool use_wide = *rc::gen::inRange(0, 4) == 0;
  const auto dtype = [&] {
    return use_wide ? wide
                    : *rc::gen::element(DType::Float32, DType::Float32, DType::BFloat16, DType::Float16);
  };
  Case test;
  const int axes = *rc::gen::inRange(0, 3);
  const std::int64_t m = size(0, 40), n = size(0, 60),
                     k = *rc::gen::element<std::int64_t>(0, 1, 3, 17, 64, 300, 700);
  Shape a, b, c;
  for (int axis = 0; axis < axes; ++axis) {
    test.batch.push_back(size(0, 6));
    test.summed.push_back(*rc::gen::arbitrary<bool>());
    a.push_back(test.batch[axis]);
    c.push_back(test.summed.back() ? 1 : test.batch[axis]);
  }
  b = a;
  Shape bias = c;
  a.push_back(m), a.push_back(k), b.push_back(k), b.push_back(n), c.push_back(m), c.push_back(n);
  bias.push_back(1), bias.push_back(1);
  const auto random = [&](const Shape& shape, DType type) {
    std::vector<std::int64_t> order;
    for (int axis = 0; axis < shape.size(); ++axis) order.push_back(axis);
    for (std::size_t i = order.size() - 1; i > 0; --i)
      std::swap(order[i], order[*rc::gen::inRange<std::size_t>(0, i + 1)]);
    return strided(shape, Dims(order), size(0, 3) * 2, *rc::gen::arbitrary<std::uint64_t>(), type);
  };
  test.a = random(a, dtype());
  test.b = random(b, dtype());
  test.c = random(c, dtype());
  if (*rc::gen::arbitrary<bool>()) {
    const int along = *rc::gen::inRange(0, 3);
    if (along == 1) bias[axes] = m;
    if (along == 2) bias[axes + 1] = n;
    test.bias = random(bias, dtype()).expand(c);
  }
  test.write = *rc::gen::element(GradientWrite::Overwrite, GradientWrite::Accumulate);
  check(test);
  RC_ASSERT(!::testing::Test::HasFailure());
}

}  // namespace
}  // namespace lamella
