#include "lamella/layers/summary.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "lamella/core/random.h"
#include "lamella/layers/layers.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "tests/models/networks.h"

namespace lamella::test {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// A full-size network for ImageNet.
struct Known {
  const char* network;
  std::int64_t parameters, multiply_adds;
};

TEST(SummaryTest, totals_are_the_published_ones) {
  // Parameters and multiply-adds that torchvision (V2, V3) and timm (V1, 4.23 M and 0.58 G) state for 224x224
  // and 1000 classes; the last digits follow from the layers' shapes.
  for (const Known& known :
       {Known{"mobilenet_v1", 4231976, 568740352}, Known{"mobilenet_v2", 3504872, 300774272},
        Known{"mobilenet_v3_large", 5483032, 216589760}, Known{"mobilenet_v3_small", 2542856, 56510400}}) {
    const auto network = make_network(known.network, {.classes = 1000});
    const Summary summary = summarize(*network, zeros({1, 3, 224, 224}));
    EXPECT_EQ(summary.parameters, known.parameters) << known.network;
    EXPECT_EQ(summary.trainable_parameters, known.parameters);
    EXPECT_EQ(summary.parameter_bytes, 4 * known.parameters);
    EXPECT_EQ(summary.multiply_adds, known.multiply_adds) << known.network;
    std::int64_t parameters = 0;
    for (const LayerSummary& row : summary.rows) {
      parameters += row.parameters;
      EXPECT_EQ(row.calls, 1) << known.network << ' ' << row.path;
    }
    EXPECT_EQ(parameters, known.parameters) << known.network;
  }
}

TEST(SummaryTest, rows_are_the_layers_in_order) {
  Sequential net(Conv2d(3, 8, 3, {.stride = 2, .padding = 1}), BatchNorm2d(8), ReLU(),
                 DepthwiseConv2d(8, 5, {.padding = 2, .multiplier = 2}), AdaptiveAvgPool2d(1), Flatten(),
                 Linear(16, 10));
  const Summary summary = summarize(net, ones({2, 3, 7, 9}));
  ASSERT_EQ(summary.rows.size(), 7u);
  const auto expect = [&](std::size_t i, const std::string& kind, const Shape& output,
                          std::int64_t parameters, std::int64_t multiply_adds) {
    const LayerSummary& row = summary.rows[i];
    EXPECT_EQ(row.path, std::to_string(i));
    EXPECT_EQ(row.kind, kind);
    EXPECT_EQ(row.output, output) << kind;
    EXPECT_EQ(row.parameters, parameters) << kind;
    EXPECT_EQ(row.multiply_adds, multiply_adds) << kind;
    EXPECT_EQ(row.activation_bytes, 4 * zeros(output).numel()) << kind;
  };
  expect(0, "Conv2d", {2, 8, 4, 5}, 8 * 27 + 8, 2 * 8 * 4 * 5 * 27);
  expect(1, "BatchNorm2d", {2, 8, 4, 5}, 16, 0);
  expect(2, "ReLU", {2, 8, 4, 5}, 0, 0);
  expect(3, "DepthwiseConv2d", {2, 16, 4, 5}, 16 * 25 + 16, 2 * 16 * 4 * 5 * 25);
  expect(4, "AdaptiveAvgPool2d", {2, 16, 1, 1}, 0, 0);
  expect(5, "Flatten", {2, 16}, 0, 0);
  expect(6, "Linear", {2, 10}, 170, 2 * 160);
  EXPECT_EQ(summary.rows[0].settings, net[0].settings());
  EXPECT_EQ(summary.input, Shape({2, 3, 7, 9}));
}

struct Odd : Module {
  Linear shared{4, 4};
  Linear unused{4, 3};
  Parameter scale;
  Odd() : Module("Odd") {
    scale = add_parameter("scale", ones({4}));
    add("first", shared);
    add("second", shared);  // the same module under another name
    add("unused", unused);
  }
  Tensor forward(const Tensor& x) override { return shared(shared(x)) * scale.get(); }
};

TEST(SummaryTest, counts_shared_layers_once_and_their_calls_each) {
  Odd net;
  net.unused.set_requires_grad(false);
  const Summary summary = summarize(net, ones({3, 4}));
  ASSERT_EQ(summary.rows.size(), 3u);
  EXPECT_EQ(summary.rows[0].path, "");
  EXPECT_EQ(summary.rows[0].parameters, 4);
  EXPECT_EQ(summary.rows[1].path, "first");
  EXPECT_EQ(summary.rows[1].calls, 2);
  EXPECT_EQ(summary.rows[1].parameters, 20);
  EXPECT_EQ(summary.rows[1].multiply_adds, 2 * 3 * 16);
  EXPECT_EQ(summary.rows[1].activation_bytes, 2 * 3 * 4 * 4);
  EXPECT_EQ(summary.rows[2].path, "unused");
  EXPECT_EQ(summary.rows[2].calls, 0);
  EXPECT_EQ(summary.rows[2].parameters, 15);
  EXPECT_EQ(summary.parameters, 39);
  EXPECT_EQ(summary.trainable_parameters, 24);
  const std::string text = summary.to_string();
  EXPECT_THAT(text, HasSubstr("(itself)"));
  EXPECT_THAT(text, HasSubstr("not called"));
}

TEST(SummaryTest, leaves_everything_as_it_was) {
  const auto net = make_network("mobilenet_v2", {.width = 0.1});
  net->child("features.3").eval();
  const auto modes = [&] {
    std::vector<bool> all;
    net->apply([&](const std::string&, Module& module) { all.push_back(module.is_training()); });
    return all;
  };
  const auto modes_before = modes();
  const RandomState random = random_state();
  const StateDict before = net->state_dict().clone();
  summarize(*net, ones({2, 3, 32, 32}));
  EXPECT_EQ(modes(), modes_before);
  EXPECT_EQ(random_state().op, random.op);
  for (const auto& [name, tensor] : net->state_dict())
    EXPECT_EQ(tensor.to_vector<double>(), before.at(name).to_vector<double>()) << name;
  // Also where the forward pass fails.
  EXPECT_ANY_THROW(summarize(*net, ones({2, 5, 32, 32})));
  EXPECT_EQ(modes(), modes_before);
  EXPECT_THAT([&] { summarize(*net, Tensor()); }, ThrowsMessage<Error>(HasSubstr("summarize: ")));
}

TEST(SummaryTest, prints_a_table) {
  Sequential net(Conv2d(3, 8, 3), BatchNorm2d(8));
  EXPECT_EQ(summarize(net, ones({1, 3, 130, 130})).to_string(),
            "layer  kind                output  parameters  multiply-adds  activation bytes\n"
            "0      Conv2d       [1,8,128,128]         224      3,538,944           524,288\n"
            "1      BatchNorm2d  [1,8,128,128]          16              0           524,288\n"
            "total                                     240      3,538,944         1,048,576\n"
            "input [1,3,130,130]; parameters 240 trainable, 0.00 MiB; multiply-adds 3,538,944; activations "
            "1.00 MiB\n");
}

}  // namespace
}  // namespace lamella::test
