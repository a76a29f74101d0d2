#include "lamella/autograd/autocast.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autograd/autocast.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/layers/conv.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "lamella/layers/linear.h"
#include "lamella/layers/loss.h"
#include "lamella/models/mobilenet_v2.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/matmul.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"

namespace lamella {
namespace {

Tensor numbers(const Shape& shape, std::uint64_t seed, bool learns = false) {
  return testing::random_tensor(shape, seed, {.dtype = float32, .requires_grad = learns});
}

TEST(AutocastTest, lowers_what_its_table_names) {
  const Tensor image = numbers({2, 4, 5, 5}, 1), rows = numbers({3, 4}, 2);
  for (const DType dtype : {bfloat16, float16}) {
    const Autocast mixed(dtype);
    EXPECT_EQ(autocast_dtype(), dtype);
    EXPECT_EQ(conv2d(image, numbers({6, 4, 3, 3}, 3)).dtype(), dtype);
    EXPECT_EQ(depthwise_conv2d(image, numbers({4, 1, 3, 3}, 4)).dtype(), dtype);
    EXPECT_EQ(linear(rows, numbers({2, 4}, 5), numbers({2}, 6)).dtype(), dtype);
    EXPECT_EQ(matmul(rows, numbers({4, 2}, 7)).dtype(), dtype);
    EXPECT_EQ((rows + rows).dtype(), float32);
    EXPECT_EQ(conv2d(image.to(float64), numbers({6, 4, 3, 3}, 3).to(float64)).dtype(), float64);
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2}, {3});
    EXPECT_EQ(cross_entropy(rows.to(dtype), labels).dtype(), float32);
    EXPECT_EQ(mse_loss(rows.to(dtype), rows).dtype(), float32);
  }
  EXPECT_EQ(autocast_dtype(), std::nullopt);
  EXPECT_EQ(matmul(rows, numbers({4, 2}, 7)).dtype(), float32);
}

TEST(AutocastTest, computes_with_rounded_operands_and_float32_gradients) {
  const Tensor x = numbers({2, 4, 6, 6}, 1, true), weight = numbers({6, 4, 1, 1}, 2, true);
  Tensor y;
  {
    const Autocast mixed(bfloat16);
    y = conv2d(x, weight);
  }
  const Tensor expected = conv2d(x.detach().to(bfloat16), weight.detach().to(bfloat16));
  EXPECT_TRUE(testing::equal_bits(y.detach(), expected).ok);
  y.backward(ones_like(y));
  EXPECT_EQ(weight.grad().dtype(), float32);
  EXPECT_EQ(x.grad().dtype(), float32);
  const Tensor exact_x = x.detach().to(float64),
               exact_weight = weight.detach().to(float64).set_requires_grad(true);
  const Tensor exact = conv2d(exact_x, exact_weight);
  exact.backward(ones_like(exact));
  EXPECT_LT(testing::relative_error(weight.grad(), exact_weight.grad()), 4e-3);
}

TEST(AutocastTest, sees_a_parameter_that_changed) {
  Tensor weight = numbers({2, 4}, 1);
  const Tensor x = numbers({3, 4}, 2);
  const Autocast mixed(bfloat16);
  const Tensor before = linear(x, weight);
  EXPECT_TRUE(testing::equal_bits(linear(x, weight), before).ok);
  weight.fill_(0.5);
  EXPECT_TRUE(
      testing::equal_bits(linear(x, weight), linear(x.to(bfloat16), full({2, 4}, 0.5, {.dtype = bfloat16})))
          .ok);
}

TEST(AutocastTest, ends_with_its_scope_and_can_be_off_inside) {
  const Tensor x = numbers({3, 4}, 1), weight = numbers({2, 4}, 2);
  {
    const Autocast outer(bfloat16);
    {
      const Autocast off(bfloat16, false);
      EXPECT_EQ(linear(x, weight).dtype(), float32);
    }
    EXPECT_EQ(linear(x, weight).dtype(), bfloat16);
  }
  EXPECT_EQ(linear(x, weight).dtype(), float32);
  EXPECT_THROW(Autocast{float32}, DTypeError);
}

TEST(AutocastTest, a_network_keeps_float32_parameters_and_gradients) {
  auto net = models::mobilenet_v2({.classes = 4, .width = 0.35, .small_stem = true});
  const Tensor images = numbers({4, 3, 16, 16}, 3);
  Tensor loss;
  {
    const Autocast mixed(bfloat16);
    const Tensor logits = net(images);
    EXPECT_EQ(logits.dtype(), bfloat16);
    loss = cross_entropy(logits, from_vector<std::int64_t>({0, 1, 2, 3}, {4}));
  }
  EXPECT_EQ(loss.dtype(), float32);
  loss.backward();
  for (const auto& [name, parameter] : net.named_parameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_EQ(parameter.grad().dtype(), float32) << name;
  }
}

TEST(AutocastTest, rounds_together_what_is_not_up_to_date) {
  Tensor a = numbers({2, 4}, 5, true), b = numbers({3, 4, 3, 3}, 6).contiguous(MemoryFormat::ChannelsLast);
  const Tensor c = numbers({4}, 7), other = numbers({4}, 8).to(float64),
               turned = numbers({3, 5}, 9).permute({1, 0});
  const Tensors all{a, other, b, Tensor(), turned};
  detail::round_together(all);  // nothing asks for it
  EXPECT_TRUE(detail::rounded_among(all).empty());
  const Autocast mixed(bfloat16);
  const Tensor input = numbers({3, 4}, 2).to(bfloat16);
  const auto copy_of = [&](const Tensor& of) { return detail::lowered_parameter(input, of); };
  detail::round_together(all);
  EXPECT_EQ(detail::rounded_among({a, b, c, turned}).size(), 3u);
  for (const Tensor& tensor : {a, b, turned})
    EXPECT_TRUE(testing::equal_bits(copy_of(tensor), tensor.detach().to(bfloat16)).ok);
  EXPECT_EQ(copy_of(b).memory_format(), MemoryFormat::ChannelsLast);
  const void* const of_a = copy_of(a).data<BFloat16>();
  {
    const NoGrad no_grad;
    b.fill_(0.3);
  }
  detail::round_together(all);
  EXPECT_EQ(copy_of(a).data<BFloat16>(), of_a);
  EXPECT_TRUE(testing::equal_bits(copy_of(b), b.to(bfloat16)).ok);
}

TEST(AutocastTest, a_recording_uses_no_copy_from_before_and_leaves_none) {
  const Tensor weight = numbers({2, 4}, 5, true);
  const Autocast mixed(bfloat16);
  const Tensor input = numbers({3, 4}, 2).to(bfloat16);
  const auto address = [&] { return detail::lowered_parameter(input, weight).data<BFloat16>(); };
  const void* const before = address();
  EXPECT_EQ(address(), before);
  {
    const detail::FreshRounding fresh;
    const void* const within = address();
    EXPECT_NE(within, before);
    EXPECT_EQ(address(), within);
  }
  EXPECT_EQ(address(), before);
}

}  // namespace
}  // namespace lamella
