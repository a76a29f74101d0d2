// The MobileNets against PyTorch's numbers in tests/golden, which make_golden.py made. The GPU's tests
// compile this file, too, with LAMELLA_TEST_DEVICE defined.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/io/safetensors.h"
#include "lamella/layers/loss.h"
#include "tests/models/formula.h"
#include "tests/models/networks.h"
#include "tests/models/plain_sgd.h"
#include "tests/support/device.h"

namespace {

namespace lm = lamella;
using lm::MemoryFormat;

const lm::Device kDevice = lm::test::test_device();

struct Pass {
  lm::Tensor logits;
  double loss = 0;
  lm::Tensors gradients;
};

class ParityTest : public testing::TestWithParam<const char*> {
 protected:
  ParityTest()
      : golden_(lm::io::load_safetensors_file(LAMELLA_SOURCE_DIR "/tests/golden/" + std::string(GetParam()) +
                                              ".safetensors")) {
    classes_ = std::stoll(golden_.metadata.at("classes"));
    width_ = std::stod(golden_.metadata.at("width"));
    pixels_ = std::stoll(golden_.metadata.at("pixels"));
    batch_ = std::stoll(golden_.metadata.at("batch"));
    seeds_ = golden_.tensors.at("seeds").to_vector<std::int64_t>();
  }

  void SetUp() override { LAMELLA_NEEDS_TEST_DEVICE(); }

  std::unique_ptr<lm::Module> network(lm::DType dtype, MemoryFormat format) const {
    auto net = lm::make_network(GetParam(), {.classes = classes_, .width = width_});
    net->to(dtype);
    net->to(format);
    lm::formula::fill(*net);
    net->to(kDevice);
    return net;
  }
  lm::Tensor images(std::int64_t seed, lm::DType dtype, MemoryFormat format) const {
    return lm::formula::images(static_cast<std::uint64_t>(seed), batch_, pixels_)
        .to(dtype)
        .contiguous(format)
        .to(kDevice);
  }
  Pass run(lm::Module& net, const lm::Tensor& x, std::int64_t seed) const {
    Pass pass;
    const lm::Tensor y = net(x);
    const lm::Tensor loss = lm::cross_entropy(y, lm::formula::labels(seed, batch_, classes_).to(kDevice));
    loss.backward();
    pass.logits = y.detach();
    pass.loss = loss.item();
    for (const lm::Tensor& parameter : net.parameters()) pass.gradients.push_back(parameter.grad());
    return pass;
  }
  std::vector<double> expected(const std::string& name) const {
    return golden_.tensors.at(name).to_vector<double>();
  }

  /// |actual − expected| <= 1e-9 · scale for each of a row's numbers.
  static void expect_close(const std::vector<double>& actual, const double* expected, double scale,
                           const std::string& what) {
    for (std::size_t i = 0; i < actual.size(); ++i)
      ASSERT_NEAR(actual[i], expected[i], 1e-9 * scale) << what << ", number " << i;
  }
  void expect_logits(const lm::Tensor& actual, const std::string& name) const {
    const std::vector<double> want = expected(name);
    ASSERT_EQ(static_cast<std::size_t>(actual.numel()), want.size());
    double square = 0;
    for (const double v : want) square += v * v;
    expect_close(actual.to_vector<double>(), want.data(),
                 std::sqrt(square / static_cast<double>(want.size())), name);
  }
  /// Digests, each to 1e-9 of its tensor's norm. Some gradients are zero but for rounding (a shift that the
  /// next normalisation takes away): no norm counts as less than 1e-6 of the largest.
  void expect_digests(const lm::Tensors& actual, const std::string& name) const {
    const std::vector<double> want = expected(name);
    ASSERT_EQ(actual.size() * 18, want.size());
    double largest = 0;
    for (std::size_t i = 0; i < actual.size(); ++i) largest = std::max(largest, want[18 * i]);
    for (std::size_t i = 0; i < actual.size(); ++i)
      expect_close(lm::formula::digest(actual[i], i), &want[18 * i], std::max(want[18 * i], 1e-6 * largest),
                   name + ' ' + std::to_string(i));
  }

  lm::io::SafetensorsFile golden_;
  std::int64_t classes_ = 0, pixels_ = 0, batch_ = 0;
  double width_ = 0;
  std::vector<std::int64_t> seeds_;
};

TEST_P(ParityTest, state_dict_has_the_peers_names_shapes_and_order) {
  const auto net = network(lm::float32, MemoryFormat::Contiguous);
  std::vector<std::string> actual, wanted;
  for (const auto& [name, tensor] : net->state_dict())
    actual.push_back(name + ' ' + tensor.shape().to_string());
  std::istringstream lines(golden_.metadata.at("state"));
  for (std::string line; std::getline(lines, line);) wanted.push_back(line);
  EXPECT_EQ(actual, wanted);
}

TEST_P(ParityTest, float64_equals_pytorch) {
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    SCOPED_TRACE(lm::name(format));
    const auto net = network(lm::float64, format);
    const lm::Tensor x = images(seeds_[0], lm::float64, format);
    {
      const lm::NoGrad no_grad;
      net->eval();
      expect_logits((*net)(x), "logits_eval");
      net->train();
    }
    lm::PlainSgd sgd(net->parameters());
    const std::vector<double> losses = expected("losses");
    for (std::size_t step = 0; step < losses.size(); ++step) {
      net->zero_grad();
      const Pass pass = run(*net, x, seeds_[0]);
      EXPECT_NEAR(pass.loss, losses[step], 1e-9 * losses[0]) << "step " << step;
      if (step == 0) {
        expect_logits(pass.logits, "logits_train");
        expect_digests(pass.gradients, "gradients");
        lm::Tensors statistics;
        for (const auto& [name, buffer] : net->named_buffers())
          if (!name.ends_with("num_batches_tracked")) statistics.push_back(buffer);
        expect_digests(statistics, "buffers");
      }
      sgd.step();
    }
    for (const auto& [name, buffer] : net->named_buffers())
      if (name.ends_with("num_batches_tracked")) {
        EXPECT_EQ(buffer.item<std::int64_t>(), 10) << name;
      }
  }
}

/// Tests that in `dtype` no gradient and no logits are farther from float64 than twice PyTorch's. One value
/// on the other side of a kink than in float64 moves gradients more than all rounding together: hence the
/// median over several batches.
class RoundingTest : public ParityTest {
 protected:
  void expect_at_most_twice_as_far_as_pytorch(lm::DType dtype, MemoryFormat format) const {
    std::vector<std::vector<double>> errors;
    const auto exact_net = network(lm::float64, format), rounded_net = network(dtype, format);
    for (const std::int64_t seed : seeds_) {
      exact_net->zero_grad();
      rounded_net->zero_grad();
      Pass exact = run(*exact_net, images(seed, lm::float64, format), seed);
      Pass rounded = run(*rounded_net, images(seed, dtype, format), seed);
      exact.gradients.push_back(exact.logits);
      rounded.gradients.push_back(rounded.logits);
      errors.resize(exact.gradients.size());
      for (std::size_t i = 0; i < errors.size(); ++i)
        errors[i].push_back(distance(rounded.gradients[i], exact.gradients[i]));
    }
    std::vector<std::string> names;
    for (const auto& [name, parameter] : rounded_net->named_parameters()) names.push_back(name);
    names.emplace_back("logits");
    const std::vector<double> peer = expected(std::string(lm::name(dtype)) + '_' + lm::name(format));
    ASSERT_EQ(peer.size(), errors.size());
    std::vector<double> ratios;
    for (std::size_t i = 0; i < errors.size(); ++i) {
      ratios.push_back(median(errors[i]) / peer[i]);
      EXPECT_LE(ratios.back(), 2) << names[i] << ": error " << median(errors[i]) << ", PyTorch's " << peer[i];
    }
    RecordProperty("median_ratio", std::to_string(median(ratios)));
    RecordProperty("largest_ratio", std::to_string(*std::max_element(ratios.begin(), ratios.end())));
  }

 private:
  static double distance(const lm::Tensor& a, const lm::Tensor& b) {
    const auto x = a.to_vector<double>(), y = b.to_vector<double>();
    double square = 0;
    for (std::size_t i = 0; i < x.size(); ++i) square += (x[i] - y[i]) * (x[i] - y[i]);
    return std::sqrt(square);
  }
  static double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }
};

TEST_P(RoundingTest, float32_contiguous) {
  expect_at_most_twice_as_far_as_pytorch(lm::float32, MemoryFormat::Contiguous);
}
TEST_P(RoundingTest, float32_channels_last) {
  expect_at_most_twice_as_far_as_pytorch(lm::float32, MemoryFormat::ChannelsLast);
}
TEST_P(RoundingTest, bfloat16_contiguous) {
  expect_at_most_twice_as_far_as_pytorch(lm::bfloat16, MemoryFormat::Contiguous);
}
TEST_P(RoundingTest, bfloat16_channels_last) {
  expect_at_most_twice_as_far_as_pytorch(lm::bfloat16, MemoryFormat::ChannelsLast);
}

std::string network_name(const testing::TestParamInfo<const char*>& info) { return info.param; }
INSTANTIATE_TEST_SUITE_P(MobileNets, ParityTest, testing::ValuesIn(lm::kNetworks), network_name);
INSTANTIATE_TEST_SUITE_P(MobileNets, RoundingTest, testing::ValuesIn(lm::kNetworks), network_name);

}  // namespace
