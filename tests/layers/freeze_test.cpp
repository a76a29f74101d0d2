#include "lamella/layers/freeze.h"

#include <gmock/gmock.h>

#include "lamella/layers/layers.h"
#include "lamella/layers/loss.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/create.h"

namespace lamella::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Sequential small_network() {
  return Sequential(Conv2d(3, 4, 3, {.bias = false}), BatchNorm2d(4), BatchNorm2d(4),
                    BatchNorm2d(4, {.affine = false}), AdaptiveAvgPool2d(1), Flatten(), Linear(4, 2));
}

TEST(FreezeTest, patterns_match_whole_names) {
  Sequential net = small_network();
  EXPECT_THAT(freeze(net, {}), ElementsAre());
  EXPECT_THAT(freeze(net, {"[01].weight", "2*"}), ElementsAre("0.weight", "1.weight", "2.weight", "2.bias"));
  for (const auto& [name, parameter] : net.named_parameters())
    EXPECT_EQ(parameter.requires_grad(), name == "1.bias" || name.starts_with("6.")) << name;
  EXPECT_THAT(freeze(net, {"?.bias"}), ElementsAre("1.bias", "2.bias", "6.bias"));
  EXPECT_THAT(freeze(net, {"*"}).size(), 7u);
}

TEST(FreezeTest, a_pattern_that_matches_nothing_is_an_error_and_changes_nothing) {
  Sequential net = small_network();
  EXPECT_THAT(
      [&] {
        freeze(net, {"0.weight", "weight"});
      },
      ThrowsMessage<Error>(AllOf(HasSubstr("freeze: no parameter of Sequential matches \"weight\""),
                                 HasSubstr("0.weight … 6.bias"))));
  for (const Tensor& parameter : net.parameters()) EXPECT_TRUE(parameter.requires_grad());
  Sequential empty;
  EXPECT_THAT([&] { freeze(empty, {"*"}); }, ThrowsMessage<Error>(HasSubstr("it has none")));
}

TEST(FreezeTest, norms_whose_parameters_are_all_frozen_are_held) {
  Sequential net = small_network();
  freeze(net, {"1.*", "2.weight"});
  hold_frozen_norms(net);
  EXPECT_FALSE(net[1].is_training());
  EXPECT_TRUE(net[2].is_training());  // its bias learns
  EXPECT_TRUE(net[3].is_training());  // has nothing to freeze
  EXPECT_TRUE(net[0].is_training());
  EXPECT_TRUE(net.is_training());
}

TEST(FreezeTest, a_frozen_part_does_not_change_in_training) {
  Sequential net = small_network();
  optim::SGD sgd(net.parameters(), {.lr = 0.5, .momentum = 0.9, .weight_decay = 0.1});
  // A step that everything takes part in, so that there are gradients and momentum.
  cross_entropy(net(rand({4, 3, 6, 6})), tensor({0, 1, 1, 0}, {.dtype = int64})).backward();
  sgd.step();
  freeze(net, {"[0-5].*"});
  const StateDict before = net.state_dict().clone();
  net.train();
  hold_frozen_norms(net);
  for (int step = 0; step < 3; ++step) {
    const Tensor x = rand({4, 3, 6, 6});
    sgd.zero_grad();
    cross_entropy(net(x), tensor({0, 1, 1, 0}, {.dtype = int64})).backward();
    sgd.step();
  }
  for (const auto& [name, tensor] : net.state_dict()) {
    const bool same = tensor.to_vector<double>() == before.at(name).to_vector<double>();
    EXPECT_EQ(same, !name.starts_with("3.running") && !name.starts_with("3.num") && !name.starts_with("6."))
        << name;
  }
  EXPECT_FALSE(net.child("0").parameters()[0].grad().defined());
}

}  // namespace
}  // namespace lamella::test
