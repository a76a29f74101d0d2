#include "lamella/train/inference.h"

#include <gmock/gmock.h>

#include "lamella/lamella.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"

namespace lamella::train {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;

TEST(InferenceTest, is_the_network_in_eval_mode_without_gradients) {
  Sequential net(Conv2d(3, 4, 3), BatchNorm2d(4), ReLU(), Flatten(), Linear(4 * 9, 2), Dropout(0.5));
  Inference predict(net);
  const Tensor x = testing::random_tensor({2, 3, 5, 5}, 1, {.dtype = float32});
  const Tensor y = predict(x);
  EXPECT_FALSE(net.is_training());
  EXPECT_FALSE(y.requires_grad());
  EXPECT_THAT(y, HasSameBits(net(x).detach()));
  net.train();
  EXPECT_THAT(predict(x), HasSameBits(y));
  EXPECT_EQ(predict.replayed(), 0);
}

TEST(InferenceTest, computes_in_another_type_where_asked) {
  Linear net(4, 2);
  const Tensor x = testing::random_tensor({3, 4}, 1, {.dtype = float32});
  Inference predict(net, {.autocast = bfloat16});
  EXPECT_EQ(predict(x).dtype(), bfloat16);
}

TEST(InferenceTest, refuses_what_it_cannot_do) {
  const auto message = [](Module& net, bool capture) {
    try {
      Inference predict(net, {.capture = capture});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  Linear net(2, 2);
  EXPECT_THAT(message(net, true), HasSubstr("only a GPU can capture, and the network is on cpu"));
  ReLU empty;
  EXPECT_THAT(message(empty, false), HasSubstr("the network has no parameters"));
}

}  // namespace
}  // namespace lamella::train
