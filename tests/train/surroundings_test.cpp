#include "train/surroundings.h"

#include <gtest/gtest.h>

#include <functional>

#include "lamella/lamella.h"
#include "tensor/door.h"

namespace lamella::train {
namespace {

Surroundings surroundings_of(Module& net) { return train::surroundings_of(net, tensors_of(net)); }

Sequential network() {
  Sequential net(Conv2d(3, 4, 3, {.bias = false}), BatchNorm2d(4), ReLU(), Sequential(Conv2d(4, 4, 3)));
  net.eval();
  return net;
}

TEST(SurroundingsTest, numbers_may_change_in_place) {
  const NoGrad no_grad;
  Sequential net = network();
  const Surroundings before = surroundings_of(net);
  Tensor weight = net.at<Conv2d>(0).weight();
  weight.fill_(3);
  net.load_state_dict(network().state_dict());
  net(ones({1, 3, 9, 9}));
  EXPECT_TRUE(surroundings_of(net) == before);
  net.train();
  net(ones({1, 3, 9, 9}));
  net.eval();
  EXPECT_TRUE(surroundings_of(net) == before);
}

TEST(SurroundingsTest, what_a_replay_would_not_see_makes_a_difference) {
  const NoGrad no_grad;
  using Change = std::function<void(Sequential&)>;
  const std::pair<const char*, Change> changes[] = {
      {"a mode", [](Sequential& net) { net.child("3.0").train(); }},
      {"requires_grad", [](Sequential& net) { net.child("3").set_requires_grad(false); }},
      {"a type", [](Sequential& net) { net.to(float64); }},
      {"a format", [](Sequential& net) { net.to(MemoryFormat::ChannelsLast); }},
      {"a module without tensors", [](Sequential& net) { net.push_back(ReLU()); }},
      {"another one for it",
       [](Sequential& net) {
         Sequential other(net.at<Conv2d>(0), net.at<BatchNorm2d>(1), ReLU(), net.at<Sequential>(3));
         net = other;
       }},
      {"a folded norm", [](Sequential& net) { fold_batch_norms(net); }}};
  for (const auto& [what, change] : changes) {
    Sequential net = network();
    const Surroundings before = surroundings_of(net);
    change(net);
    EXPECT_FALSE(surroundings_of(net) == before) << what;
    const Surroundings after = surroundings_of(net);
    EXPECT_TRUE(surroundings_of(net) == after) << what;
  }
}

TEST(SurroundingsTest, a_folded_norm_whose_numbers_change_is_none) {
  const NoGrad no_grad;
  using Change = std::function<void(Sequential&)>;
  const StateDict from_before = network().state_dict();
  // All in place: nothing moves.
  const std::pair<const char*, Change> changes[] = {
      {"loaded", [&](Sequential& net) { net.load_state_dict(from_before); }},
      {"trained",
       [](Sequential& net) {
         net.train();
         net(ones({2, 3, 9, 9}));
         net.eval();
       }},
      {"changed by hand", [](Sequential& net) {
         Tensor mean = net.at<BatchNorm2d>(1).running_mean();
         mean.fill_(1);
       }}};
  for (const auto& [what, change] : changes) {
    Sequential net = network();
    ASSERT_EQ(fold_batch_norms(net), 1);
    const Surroundings before = surroundings_of(net);
    EXPECT_TRUE(before.modules[2].folded);
    net(ones({1, 3, 9, 9}));
    EXPECT_TRUE(surroundings_of(net) == before) << what;
    change(net);
    const Surroundings after = surroundings_of(net);
    EXPECT_TRUE(after.tensors == before.tensors) << what;
    EXPECT_FALSE(after == before) << what;
    EXPECT_EQ(fold_batch_norms(net), 1) << what;
    EXPECT_FALSE(surroundings_of(net) == after) << what;
  }
  Sequential net = network();
  fold_batch_norms(net);
  const Surroundings before = surroundings_of(net);
  Tensor bias = net.at<BatchNorm2d>(1).bias();
  bias.fill_(1);  // which the convolution reads
  EXPECT_TRUE(surroundings_of(net) == before);
}

TEST(SurroundingsTest, settings_of_the_thread_make_a_difference) {
  Sequential net = network();
  const RandomState random = random_state();
  const Surroundings before = surroundings_of(net);
  {
    const detail::FusionGuard off(!detail::fusion_enabled());
    EXPECT_FALSE(surroundings_of(net) == before);
  }
  {
    const Autocast mixed(bfloat16);
    EXPECT_FALSE(surroundings_of(net) == before);
  }
  set_allow_tf32(!allow_tf32());
  EXPECT_FALSE(surroundings_of(net) == before);
  set_allow_tf32(!allow_tf32());
  next_random_step();
  EXPECT_TRUE(surroundings_of(net) == before);
  manual_seed(random.seed + 1);
  EXPECT_FALSE(surroundings_of(net) == before);
  set_random_state(random);
  EXPECT_TRUE(surroundings_of(net) == before);
  EXPECT_FALSE(train::surroundings_of(net, {}) == before);
  EXPECT_TRUE(train::surroundings_of(net, {Tensor()}) == train::surroundings_of(net, {Tensor()}));
}

TEST(ChangeWatchTest, a_training_step_leaves_a_frozen_folded_norm) {
  Sequential net = network();
  fold_batch_norms(net);
  net.at<BatchNorm2d>(1).set_requires_grad(false);
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  Tensors all = net.parameters();
  all.push_back(net.at<BatchNorm2d>(1).running_mean());
  all.push_back(net.at<BatchNorm2d>(1).running_var());
  all.push_back(Tensor());
  const ChangeWatch watch(all);
  EXPECT_TRUE(watch.changed().empty());
  sum(net(ones({1, 3, 9, 9}))).backward();
  EXPECT_TRUE(watch.changed().empty());
  sgd.step();
  const Tensors changed = watch.changed();
  ASSERT_EQ(changed.size(), 3U);  // of the two convolutions: two weights and a bias
  EXPECT_EQ(changed[0].data<float>(), net.at<Conv2d>(0).weight().data<float>());
  EXPECT_TRUE(surroundings_of(net).modules[2].folded);
}

}  // namespace
}  // namespace lamella::train
