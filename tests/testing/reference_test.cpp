#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lamella/core/error.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "tests/support/temp_folder.h"

namespace lamella {
namespace {

using testing::IsClose;
using testing::random_tensor;
namespace reference = testing::reference;

Tensor of(const std::vector<double>& values, const Shape& shape) { return from_vector(values, shape); }
/// 1 … 9 as a picture.
Tensor nine() { return of({1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 1, 3, 3}); }
Tensor two_by_two() { return of({1, 2, 3, 4}, {1, 1, 2, 2}); }
double inner(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double total = 0;
  for (std::size_t i = 0; i < x.size(); ++i) total += x[i] * y[i];
  return total;
}

TEST(ReferenceConv2dTest, correlates) {
  EXPECT_THAT(reference::conv2d(nine(), two_by_two(), Tensor()), IsClose(of({37, 47, 67, 77}, {1, 1, 2, 2})));
  EXPECT_THAT(reference::conv2d(nine(), two_by_two(), of({0.5}, {1})),
              IsClose(of({37.5, 47.5, 67.5, 77.5}, {1, 1, 2, 2})));
  EXPECT_EQ(
      reference::conv2d(nine().to(DType::Float32), two_by_two().to(DType::Float32), Tensor()).describe(),
      "[1,1,2,2] float64 cpu");
}

TEST(ReferenceConv2dTest, takes_stride_padding_and_dilation_of_each_axis) {
  EXPECT_THAT(reference::conv2d(nine(), two_by_two(), Tensor(), 2, 1),
              IsClose(of({4, 18, 36, 77}, {1, 1, 2, 2})));
  EXPECT_THAT(reference::conv2d(nine(), two_by_two(), Tensor(), 1, 0, 2), IsClose(of({64}, {1, 1, 1, 1})));
  EXPECT_THAT(reference::conv2d(nine(), two_by_two(), Tensor(), {2, 1}, {1, 0}, {1, 2}),
              IsClose(of({15, 73}, {1, 1, 2, 1})));
  EXPECT_THAT(reference::conv2d(nine(), two_by_two(), Tensor(), {1, 2}, {0, 1}, {2, 1}),
              IsClose(of({30, 68}, {1, 1, 1, 2})));
}

TEST(ReferenceConv2dTest, sums_over_the_channels_of_a_group) {
  const Tensor x = of({5, 7}, {1, 2, 1, 1});
  EXPECT_THAT(reference::conv2d(x, of({1, 2, 3, 4}, {2, 2, 1, 1}), of({100, 200}, {2})),
              IsClose(of({119, 243}, {1, 2, 1, 1})));
  EXPECT_THAT(reference::conv2d(x, of({1, 2, 3, 4}, {4, 1, 1, 1}), Tensor(), 1, 0, 1, 2),
              IsClose(of({5, 10, 21, 28}, {1, 4, 1, 1})));
  const Tensor four = of({1, 10, 100, 1000}, {1, 4, 1, 1});
  EXPECT_THAT(reference::conv2d(four, of({1, 2, 3, 4}, {2, 2, 1, 1}), Tensor(), 1, 0, 1, 2),
              IsClose(of({21, 4300}, {1, 2, 1, 1})));
  // Two samples, in the other memory format.
  const Tensor batch = of({5, 7, 1, 2}, {2, 2, 1, 1}).contiguous(MemoryFormat::ChannelsLast);
  EXPECT_THAT(reference::conv2d(batch, of({1, 2}, {1, 2, 1, 1}), Tensor()),
              IsClose(of({19, 5}, {2, 1, 1, 1})));
  EXPECT_EQ(reference::conv2d(zeros({0, 1, 3, 3}), two_by_two(), Tensor()).shape(), (Shape{0, 1, 2, 2}));
}

TEST(ReferenceConv2dTest, gradients_by_hand) {
  const Tensor dy = two_by_two();
  EXPECT_THAT(reference::conv2d_backward_input(dy, two_by_two(), {1, 1, 3, 3}),
              IsClose(of({1, 4, 4, 6, 20, 16, 9, 24, 16}, {1, 1, 3, 3})));
  EXPECT_THAT(reference::conv2d_backward_weight(dy, nine(), {1, 1, 2, 2}),
              IsClose(of({37, 47, 67, 77}, {1, 1, 2, 2})));
  // Each tap at stride 2 with padding 1 meets one corner only.
  EXPECT_THAT(reference::conv2d_backward_input(dy, two_by_two(), {1, 1, 3, 3}, 2, 1),
              IsClose(of({4, 6, 8, 6, 4, 8, 12, 12, 16}, {1, 1, 3, 3})));
}

TEST(ReferenceConv2dTest, gradients_are_its_transposes) {
  const Size2 stride{2, 1}, padding{1, 2}, dilation{1, 2};
  const Tensor x = random_tensor({2, 4, 7, 6}, 1), w = random_tensor({6, 2, 3, 2}, 2);
  const Tensor y = reference::conv2d(x, w, Tensor(), stride, padding, dilation, 2);
  const Tensor dy = random_tensor(y.shape(), 3);
  const double expected = inner(y, dy);
  const Tensor dx = reference::conv2d_backward_input(dy, w, x.shape(), stride, padding, dilation, 2);
  const Tensor dw = reference::conv2d_backward_weight(dy, x, w.shape(), stride, padding, dilation, 2);
  EXPECT_NEAR(inner(dx, x), expected, 1e-11);
  EXPECT_NEAR(inner(dw, w), expected, 1e-11);
}

TEST(ReferenceConv2dTest, refuses_what_does_not_fit) {
  const Tensor x = zeros({1, 2, 3, 3}), w = zeros({4, 2, 2, 2}), dy = zeros({1, 4, 2, 2});
  EXPECT_THROW_WITH(reference::conv2d(x, zeros({4, 3, 2, 2}), Tensor()), ShapeError, "reference conv2d");
  EXPECT_THROW_WITH(reference::conv2d(x, w, zeros({2})), ShapeError,
                    "reference conv2d: bias is [2] float32 cpu, expected the shape [4]");
  EXPECT_THROW_WITH(reference::conv2d(x, w, zeros({0})), ShapeError, "bias");
  EXPECT_THROW_WITH(reference::conv2d(Tensor(), w, Tensor()), Error, "input is an undefined tensor");
  EXPECT_THROW_WITH(reference::conv2d(x, Tensor(), Tensor()), Error, "weight is an undefined tensor");
  EXPECT_NO_THROW(reference::conv2d_backward_input(dy, w, x.shape()));
  EXPECT_NO_THROW(reference::conv2d_backward_weight(dy, x, w.shape()));
  for (const Shape& wrong : {Shape{1, 4, 2, 1}, Shape{1, 4, 4}, Shape{1, 2, 4, 2}}) {
    EXPECT_THROW_WITH(reference::conv2d_backward_input(zeros(wrong), w, x.shape()), ShapeError,
                      "expected the shape [1,4,2,2]");
    EXPECT_THROW_WITH(reference::conv2d_backward_weight(zeros(wrong), x, w.shape()), ShapeError,
                      "expected the shape [1,4,2,2]");
  }
  EXPECT_THROW_WITH(reference::conv2d_backward_input(Tensor(), w, x.shape()), Error, "grad_output");
  EXPECT_THROW_WITH(reference::conv2d_backward_weight(dy, Tensor(), w.shape()), Error, "input");
}

TEST(ReferenceMatmulTest, multiplies) {
  const Tensor a = of({1, 2, 3, 4, 5, 6}, {2, 3}), b = of({7, 8, 9, 10, 11, 12}, {3, 2});
  EXPECT_THAT(reference::matmul(a, b), IsClose(of({58, 64, 139, 154}, {2, 2})));
  EXPECT_THAT(reference::matmul(b.transpose(0, 1), a.transpose(0, 1)),
              IsClose(of({58, 139, 64, 154}, {2, 2})));
  EXPECT_THAT(reference::matmul(zeros({2, 0}), zeros({0, 3})), IsClose(zeros({2, 3})));
  EXPECT_THROW_WITH(reference::matmul(a, a), ShapeError, "reference matmul: [2,3] float64 cpu times [2,3]");
  EXPECT_THROW_WITH(reference::matmul(a, of({1, 2, 3}, {3})), ShapeError, "expected [m,k] times [k,n]");
  EXPECT_THROW_WITH(reference::matmul(zeros({1, 2, 3}), b), ShapeError, "reference matmul");
  EXPECT_THROW_WITH(reference::matmul(Tensor(), b), Error, "a is an undefined tensor");
  EXPECT_THROW_WITH(reference::matmul(a, Tensor()), Error, "b is an undefined tensor");
}

TEST(ReferenceBatchNormTest, normalises_each_channel_with_the_biased_variance) {
  // Channel 0 holds 1, 3, 5, 7: mean 4, variance 5; channel 1 is constant.
  const Tensor x = of({1, 3, 2, 2, 5, 7, 2, 2}, {2, 2, 2});
  const double third = 1.0 / 3;
  EXPECT_THAT(reference::batch_norm(x, Tensor(), Tensor(), 4),
              IsClose(of({-1, -third, 0, 0, third, 1, 0, 0}, {2, 2, 2})));
  EXPECT_THAT(reference::batch_norm(x, of({3, 5}, {2}), of({10, -1}, {2}), 4),
              IsClose(of({7, 9, -1, -1, 11, 13, -1, -1}, {2, 2, 2})));
  EXPECT_NEAR(reference::batch_norm(of({-0.001, 0.001}, {2, 1}), Tensor(), Tensor()).to_vector<double>()[1],
              0.001 / std::sqrt(1.1e-5), 1e-12);
  EXPECT_EQ(reference::batch_norm(zeros({0, 2, 3}), Tensor(), Tensor()).shape(), (Shape{0, 2, 3}));
}

TEST(ReferenceBatchNormTest, refuses_what_does_not_fit) {
  const Tensor x = zeros({2, 3});
  EXPECT_THROW_WITH(reference::batch_norm(x, zeros({2}), Tensor()), ShapeError,
                    "reference batch_norm: weight is [2] float32 cpu, expected the shape [3]");
  EXPECT_THROW_WITH(reference::batch_norm(x, Tensor(), zeros({4})), ShapeError, "bias");
  EXPECT_THROW_WITH(reference::batch_norm(zeros({3}), Tensor(), Tensor()), ShapeError, "[3] float32 cpu");
  EXPECT_THROW_WITH(reference::batch_norm(Tensor(), Tensor(), Tensor()), Error, "x is an undefined tensor");
}

TEST(ReferenceLogSoftmaxTest, by_hand) {
  const double ln2 = std::log(2.0), ln3 = std::log(3.0);
  EXPECT_THAT(reference::log_softmax(of({0, ln3, 5, 5}, {2, 2})),
              IsClose(of({-2 * ln2, ln3 - 2 * ln2, -ln2, -ln2}, {2, 2}), {.relative = 1e-14}));
  EXPECT_THAT(reference::log_softmax(of({1000, 1000, -1000, -1000 + ln3}, {2, 2})),
              IsClose(of({-ln2, -ln2, -2 * ln2, ln3 - 2 * ln2}, {2, 2}), {.relative = 1e-12}));
  EXPECT_THAT(reference::log_softmax(of({0, -INFINITY}, {1, 2})), IsClose(of({0, -INFINITY}, {1, 2})));
  EXPECT_EQ(reference::log_softmax(zeros({0, 2})).shape(), (Shape{0, 2}));
  EXPECT_THROW_WITH(reference::log_softmax(zeros({2, 0})), ShapeError, "[2,0] float32 cpu");
  EXPECT_THROW_WITH(reference::log_softmax(zeros({2, 2, 2})), ShapeError, "expected [N,C]");
  EXPECT_THROW_WITH(reference::log_softmax(Tensor()), Error, "logits is an undefined tensor");
}

}  // namespace
}  // namespace lamella
