#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamella/core/error.h"
#include "lamella/core/threads.h"
#include "lamella/layers/loss.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;
using testing::IsClose;
using testing::Passes;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};
constexpr testing::Tolerance kDouble{.relative = 1e-13, .absolute = 1e-14};

Tensor f64(const std::vector<double>& values, const Shape& shape) { return from_vector(values, shape); }

template <class E, class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& other) {
    return std::string("another error: ") + other.what();
  }
  return "no error";
}

TEST(MseLossTest, is_the_mean_of_squares) {
  const Tensor x = f64({1, 2, -3, 0.5}, {2, 2}).set_requires_grad(),
               t = f64({0, 2, 1, 1}, {2, 2}).set_requires_grad();
  EXPECT_THAT(mse_loss(x, t, Reduction::None), IsClose(f64({1, 0, 16, 0.25}, {2, 2}), kDouble));
  EXPECT_DOUBLE_EQ(mse_loss(x, t, Reduction::Sum).item(), 17.25);
  const Tensor loss = mse_loss(x, t);
  EXPECT_DOUBLE_EQ(loss.item(), 17.25 / 4);
  loss.backward();
  EXPECT_THAT(x.grad(), IsClose(f64({0.5, 0, -2, -0.25}, {2, 2}), kDouble));
  EXPECT_THAT(t.grad(), IsClose(f64({-0.5, 0, 2, 0.25}, {2, 2}), kDouble));
  EXPECT_TRUE(std::isnan(mse_loss(empty({0, 2}), empty({0, 2})).item()));
}

TEST(BceWithLogitsTest, agrees_with_pytorch) {
  // torch.nn.functional.binary_cross_entropy_with_logits in float64.
  const Tensor x = f64({-100, -2, 0, 1, 30}, {5}).set_requires_grad();
  const Tensor t = f64({0, 1, 0.25, 1, 0.1}, {5}).set_requires_grad();
  const BceOptions options{.weight = f64({1, 2, 0.5, 1, 3}, {5}),
                           .pos_weight = f64({1, 3, 0.5, 2, 4}, {5}),
                           .reduction = Reduction::None};
  const Tensor loss = bce_with_logits(x, t, options);
  EXPECT_THAT(loss, IsClose(f64({3.720075976020836e-44, 12.76156806625784, 0.3032518914949761,
                                 0.6265233750364457, 81.00000000000037},
                                {5}),
                            kDouble));
  loss.backward(ones({5}, {.dtype = float64}));
  EXPECT_THAT(x.grad(), IsClose(f64({3.720075976020836e-44, -5.284782467867295, 0.15625, -0.5378828427399902,
                                     2.699999999999635},
                                    {5}),
                                kDouble));
  EXPECT_THAT(
      t.grad(),
      IsClose(
          f64({100, 12.50771204417189, -0.1732867951399863, -0.6867383124817771, -89.99999999999916}, {5}),
          kDouble));
}

TEST(PointwiseLossTest, gradients_agree_with_differences) {
  for (const MemoryFormat format : kFormats)
    for (const Reduction reduction : {Reduction::None, Reduction::Mean, Reduction::Sum}) {
      const Tensor x =
          random_tensor({2, 3, 2, 2}, 1, {.kinks = {0}, .format = format, .requires_grad = true});
      const Tensor t = random_tensor({2, 3, 2, 2}, 2, {.low = 0, .high = 1, .requires_grad = true});
      const BceOptions options{.weight = random_tensor({3, 1, 1}, 3, {.low = 0.5, .high = 2}),
                               .pos_weight = random_tensor({2}, 4, {.low = 0.5, .high = 2}),
                               .reduction = reduction};
      EXPECT_TRUE(Passes(
          testing::gradcheck([&](const Tensors& in) { return mse_loss(in[0], in[1], reduction); }, {x, t})));
      EXPECT_TRUE(Passes(testing::gradcheck(
          [&](const Tensors& in) { return bce_with_logits(in[0], in[1], options); }, {x, t})));
    }
}

TEST(PointwiseLossTest, half_types_add_up_in_more_digits) {
  for (const DType dtype : {DType::BFloat16, DType::Float16}) {
    const Tensor x = ones({70000}, {.dtype = dtype}), t = full({70000}, 0.5, {.dtype = dtype});
    EXPECT_EQ(mse_loss(x, t).item(), 0.25) << "a running sum of this type stops growing";
    EXPECT_NEAR(bce_with_logits(x, t).item(), 0.5 + std::log1p(std::exp(-1)), 0.004);
  }
}

TEST(PointwiseLossTest, long_sums_keep_the_digits_of_float32) {
  const float value = 0.3f;
  const Tensor x = full({1000003}, value), t = zeros({1000003});
  EXPECT_EQ(mse_loss(x, t).to_vector<float>()[0], value * value);
}

TEST(PointwiseLossTest, gives_the_same_bits_for_any_number_of_threads) {
  const int threads = num_threads();
  Tensors results;
  for (const int count : {1, 2}) {
    set_num_threads(count);
    const Tensor x = random_tensor({100001}, 1, {.dtype = float32}),
                 t = random_tensor({100001}, 2, {.dtype = float32});
    results.push_back(mse_loss(x, t));
    results.push_back(bce_with_logits(x, t));
  }
  set_num_threads(threads);
  EXPECT_THAT(results[2], HasSameBits(results[0]));
  EXPECT_THAT(results[3], HasSameBits(results[1]));
}

TEST(PointwiseLossTest, says_what_does_not_fit) {
  const Tensor x = zeros({2, 3});
  EXPECT_THAT(error_of<ShapeError>([&] { mse_loss(x, zeros({3})); }),
              HasSubstr("mse_loss: input [2,3] float32 cpu and target [3] float32 cpu"));
  EXPECT_THAT(error_of<DTypeError>([&] {
                mse_loss(x, zeros({2, 3}, {.dtype = float64}));
              }),
              HasSubstr("mse_loss"));
  EXPECT_THAT(error_of<DTypeError>([&] { bce_with_logits(x.to(int64), x); }), HasSubstr("bce_with_logits"));
  EXPECT_THAT(error_of<ShapeError>([&] { bce_with_logits(x, x, {.weight = ones({2})}); }),
              HasSubstr("bce_with_logits"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                bce_with_logits(x, x, {.pos_weight = ones({4, 2, 3})});
              }),
              HasSubstr("pos_weight [4,2,3]"));
  EXPECT_THAT(error_of<Error>([&] { mse_loss(Tensor(), x); }), HasSubstr("mse_loss"));
}

}  // namespace
}  // namespace lamella
