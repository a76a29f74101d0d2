#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "lamella/autograd/autograd.h"
#include "lamella/core/error.h"
#include "lamella/core/random.h"
#include "lamella/layers/init.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "tests/models/networks.h"

namespace {

namespace lm = lamella;
namespace models = lamella::models;
using testing::HasSubstr;

TEST(MobileNetTest, full_networks_have_the_published_numbers_of_parameters) {
  // timm's mobilenetv1_100; torchvision's metadata for the others.
  EXPECT_EQ(models::mobilenet_v1().num_parameters(), 4231976);
  EXPECT_EQ(models::mobilenet_v2().num_parameters(), 3504872);
  EXPECT_EQ(models::mobilenet_v3_small().num_parameters(), 2542856);
  EXPECT_EQ(models::mobilenet_v3_large().num_parameters(), 5483032);
}

TEST(MobileNetTest, keys_are_timms_and_torchvisions) {
  const lm::StateDict v1 = models::mobilenet_v1({.classes = 10}).state_dict();
  EXPECT_EQ(v1.at("conv_stem.weight").shape(), (lm::Shape{32, 3, 3, 3}));
  EXPECT_EQ(v1.at("bn1.running_var").shape(), (lm::Shape{32}));
  EXPECT_EQ(v1.at("blocks.3.5.conv_dw.weight").shape(), (lm::Shape{512, 1, 3, 3}));
  EXPECT_EQ(v1.at("blocks.4.1.conv_pw.weight").shape(), (lm::Shape{1024, 1024, 1, 1}));
  EXPECT_EQ(v1.at("classifier.bias").shape(), (lm::Shape{10}));
  const lm::StateDict v2 = models::mobilenet_v2({.classes = 10}).state_dict();
  EXPECT_EQ(v2.at("features.1.conv.0.0.weight").shape(), (lm::Shape{32, 1, 3, 3}));
  EXPECT_EQ(v2.at("features.2.conv.3.num_batches_tracked").shape(), (lm::Shape{}));
  EXPECT_EQ(v2.at("features.17.conv.2.weight").shape(), (lm::Shape{320, 960, 1, 1}));
  EXPECT_EQ(v2.at("classifier.1.weight").shape(), (lm::Shape{10, 1280}));
  const lm::StateDict v3 = models::mobilenet_v3_small({.classes = 10}).state_dict();
  EXPECT_EQ(v3.at("features.1.block.1.fc1.weight").shape(), (lm::Shape{8, 16, 1, 1}));
  EXPECT_EQ(v3.at("features.11.block.3.1.weight").shape(), (lm::Shape{96}));
  EXPECT_EQ(v3.at("classifier.3.weight").shape(), (lm::Shape{10, 1024}));
}

TEST(MobileNetTest, width_rounds_channels_to_eight) {
  EXPECT_EQ(lm::make_divisible(32 * 0.35), 16);  // 11.2: 8 would lose more than 10 %
  EXPECT_EQ(lm::make_divisible(24 * 0.5), 16);
  EXPECT_EQ(lm::make_divisible(40 * 0.7), 32);
  EXPECT_EQ(lm::make_divisible(1), 8);
  EXPECT_EQ(lm::make_divisible(88), 88);
  EXPECT_THROW(lm::make_divisible(0), lm::ShapeError);
  const lm::StateDict narrow = models::mobilenet_v2({.classes = 10, .width = 0.35}).state_dict();
  EXPECT_EQ(narrow.at("features.0.0.weight").size(0), 16);
  EXPECT_EQ(narrow.at("features.18.0.weight").size(0), 1280);
  const lm::StateDict wide = models::mobilenet_v2({.classes = 10, .width = 1.4}).state_dict();
  EXPECT_EQ(wide.at("features.18.0.weight").size(0), 1792);
}

TEST(MobileNetTest, initialisation_is_the_peers) {
  lm::manual_seed(1);
  const auto deviation = [](const lm::Tensor& tensor) {
    return std::sqrt(lm::var(tensor.detach().to(lm::float64)).item());
  };
  const lm::StateDict v2 = models::mobilenet_v2().state_dict();
  EXPECT_NEAR(deviation(v2.at("features.18.0.weight")) / std::sqrt(2.0 / 1280), 1, 0.01);
  EXPECT_NEAR(deviation(v2.at("features.17.conv.1.0.weight")) / std::sqrt(2.0 / (960 * 9)), 1, 0.05);
  EXPECT_NEAR(deviation(v2.at("classifier.1.weight")), 0.01, 1e-4);
  EXPECT_EQ(lm::max(v2.at("classifier.1.bias")).item(), 0);
  const lm::StateDict v1 = models::mobilenet_v1().state_dict();
  EXPECT_NEAR(deviation(v1.at("blocks.4.1.conv_dw.weight")) / std::sqrt(2.0 / 9), 1, 0.05);
  EXPECT_NEAR(lm::max(v1.at("classifier.weight")).item(), 1 / std::sqrt(1000.0), 1e-5);
}

TEST(MobileNetTest, small_stem_keeps_maps_of_an_eighth) {
  const lm::NoGrad no_grad;
  const lm::Tensor x = lm::randn({2, 3, 32, 32});
  for (const char* name : lm::kNetworks)
    for (const bool small : {false, true}) {
      const auto net = lm::make_network(name, {.width = 0.25, .small_stem = small});
      const lm::Tensor map = [&] {
        if (std::string(name) != "mobilenet_v1") return net->child("features")(x);
        return net->child("blocks")(net->child("conv_stem")(x));
      }();
      EXPECT_EQ(map.size(2), small ? 4 : 1) << name;
      EXPECT_EQ((*net)(x).shape(), (lm::Shape{2, 10})) << name;
    }
}

TEST(MobileNetTest, small_stem_has_the_same_parameters) {
  for (const char* name : lm::kNetworks) {
    auto plain = lm::make_network(name, {.width = 0.25}),
         small = lm::make_network(name, {.width = 0.25, .small_stem = true});
    EXPECT_TRUE(small->load_state_dict(plain->state_dict()).ok()) << name;
  }
}

TEST(MobileNetTest, takes_other_channels_and_odd_sizes) {
  auto net = models::mobilenet_v2({.classes = 3, .width = 0.25, .in_channels = 1, .small_stem = true});
  net.eval();
  EXPECT_EQ(net(lm::randn({2, 1, 9, 17})).shape(), (lm::Shape{2, 3}));
  EXPECT_THROW(net(lm::randn({2, 3, 9, 17})), lm::ShapeError);
  EXPECT_THROW(net(lm::randn({1, 9, 17})), lm::ShapeError);
}

TEST(MobileNetTest, dropout_and_drop_path_act_in_training_alone) {
  auto net = models::mobilenet_v3_small({.classes = 10, .width = 0.5, .dropout = 0.5, .drop_path = 0.5});
  const lm::Tensor x = lm::randn({4, 3, 32, 32});
  const lm::NoGrad no_grad;
  net.eval();
  EXPECT_EQ(net(x).to_vector<float>(), net(x).to_vector<float>());
  net.train();
  EXPECT_NE(net(x).to_vector<float>(), net(x).to_vector<float>());
}

TEST(MobileNetTest, clones_train_apart) {
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.25});
  auto copy = lm::clone(net);
  net.eval();
  const lm::Tensor x = lm::randn({2, 3, 32, 32});
  const auto before = net(x).to_vector<float>();
  EXPECT_TRUE(copy.is_training());
  copy(x);  // moves its running statistics
  lm::init::zeros_(copy.child("classifier.1").parameters()[0]);
  EXPECT_EQ(net(x).to_vector<float>(), before);
  copy.load_state_dict(net.state_dict());
  copy.eval();
  EXPECT_EQ(copy(x).to_vector<float>(), before);
}

TEST(MobileNetTest, bad_options_are_named) {
  const auto message = [](const std::function<void()>& make) -> std::string {
    try {
      make();
    } catch (const lm::ShapeError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(message([] { models::mobilenet_v2({.width = 0}); }), HasSubstr("mobilenet_v2: width 0"));
  EXPECT_THAT(message([] { models::mobilenet_v1({.width = -1}); }), HasSubstr("mobilenet_v1: width -1"));
  EXPECT_THAT(message([] { models::mobilenet_v1({.width = std::nan("")}); }), HasSubstr("width nan"));
  EXPECT_THAT(message([] { models::mobilenet_v3_small({.classes = 0}); }),
              HasSubstr("mobilenet_v3_small: 0 classes"));
  EXPECT_THAT(message([] { models::mobilenet_v3_large({.in_channels = 0}); }), HasSubstr("0 input channels"));
  EXPECT_THAT(message([] { models::mobilenet_v3_large({.dropout = 1.5}); }), HasSubstr("dropout 1.5"));
  EXPECT_THAT(message([] { models::mobilenet_v2({.drop_path = -0.1}); }), HasSubstr("drop_path -0.1"));
}

}  // namespace
