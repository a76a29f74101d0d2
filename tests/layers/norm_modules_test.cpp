#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lamella/core/error.h"
#include "lamella/layers/modules/norm.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"

namespace {

namespace lm = lamella;
using lm::testing::check_layer;
using lm::testing::IsClose;
using lm::testing::Passes;
using lm::testing::random_tensor;

TEST(LayerNorm2dTest, normalises_the_channels_of_each_pixel) {
  lm::LayerNorm2d layer(5);
  EXPECT_EQ(layer.state_dict().at("bias").shape(), (lm::Shape{5}));
  const lm::Tensor x = random_tensor({2, 5, 3, 4}, 1);
  EXPECT_TRUE(Passes(check_layer(layer, x)));
  const lm::Tensor mean = lm::mean(x, {.axes = {1}, .keep_axes = true});
  const lm::Tensor var = lm::var(x, {.axes = {1}, .keep_axes = true}, 0);
  EXPECT_THAT(layer(x), IsClose((x - mean) / lm::sqrt(var + 1e-5)));
  EXPECT_TRUE(layer(x).is_contiguous());
  EXPECT_EQ(layer(x.contiguous(lm::MemoryFormat::ChannelsLast)).memory_format(),
            lm::MemoryFormat::ChannelsLast);
  EXPECT_THROW(layer(lm::randn({2, 4, 3, 3})), lm::ShapeError);
}

TEST(GroupNormTest, normalises_groups) {
  lm::GroupNorm layer(2, 6);
  const lm::Tensor x = random_tensor({3, 6, 4, 5}, 1);
  EXPECT_TRUE(Passes(check_layer(layer, x)));
  const lm::Tensor grouped = x.reshape({3, 2, 3 * 4 * 5});
  const lm::Tensor mean = lm::mean(grouped, {.axes = {2}, .keep_axes = true});
  const lm::Tensor var = lm::var(grouped, {.axes = {2}, .keep_axes = true}, 0);
  EXPECT_THAT(layer(x), IsClose(((grouped - mean) / lm::sqrt(var + 1e-5)).reshape({3, 6, 4, 5})));
  EXPECT_THROW(lm::GroupNorm(4, 6), lm::ShapeError);
}

}  // namespace
