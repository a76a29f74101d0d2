#include <gtest/gtest.h>

#include <limits>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

using MakeOptimizer = std::function<std::unique_ptr<optim::Optimizer>(const Tensors& params)>;

const std::vector<std::pair<std::string, MakeOptimizer>> kOptimizers{
    {"SGD",
     [](const Tensors& params) {
       return std::make_unique<optim::SGD>(params, optim::SGDOptions{.lr = 0.05, .momentum = 0.9});
     }},
    {"Adam",
     [](const Tensors& params) {
       return std::make_unique<optim::Adam>(params, optim::AdamOptions{.lr = 1e-3, .amsgrad = true});
     }},
    {"RMSprop", [](const Tensors& params) {
       return std::make_unique<optim::RMSprop>(params, optim::RMSpropOptions{.lr = 1e-3, .momentum = 0.9});
     }}};

void expect_same_bits(const StateDict& actual, const StateDict& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (const auto& [key, tensor] : expected) {
    const auto same = testing::equal_bits(actual.at(key).to(Device::cpu()), tensor.to(Device::cpu()));
    EXPECT_TRUE(same.ok) << what << ", " << key << ": " << same.message;
  }
}

TEST(GpuScalerTest, float16_learns) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const bool capture : {false, true}) {
      manual_seed(4);
      auto net = models::mobilenet_v2({.classes = 4, .width = 0.35, .dropout = 0, .small_stem = true});
      net.to(Device::cuda());
      optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9});
      optim::GradScaler scaler;
      train::Step step(net, sgd, {.capture = capture, .autocast = float16, .scaler = &scaler});
      const Tensor images = testing::random_tensor({16, 3, 16, 16}, 5, {.dtype = float32, .format = format});
      std::vector<std::int64_t> classes(16);
      for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 4);
      const Tensor labels = from_vector<std::int64_t>(classes, {16});
      const float first = step(images, labels).loss.item<float>();
      float last = first;
      for (int i = 0; i < 60; ++i) last = step(images, labels).loss.item<float>();
      EXPECT_NEAR(first, 1.386F, 0.3F);
      EXPECT_LT(last, 0.5F);
      EXPECT_EQ(sgd.steps() + scaler.skipped(), 61);
      EXPECT_LT(scaler.skipped(), 20);
    }
}

struct Scaled {
  std::vector<float> losses;
  std::vector<double> scales;
  StateDict weights, optimizer, scaler;
  std::int64_t updates = 0, skipped = 0, replayed = 0;
};

/// Training that begins with a scale far too large.
Scaled overflowing(const MakeOptimizer& make, bool capture, int accumulate) {
  constexpr int kUpdates = 48;
  manual_seed(2);
  auto net = models::mobilenet_v3_small({.classes = 10, .width = 0.5});
  net.to(Device::cuda());
  const auto optimizer = make(net.parameters());
  optim::LrScheduler schedule(*optimizer, optim::Cosine({.T_max = 60}));
  optim::GradScaler scaler({.init_scale = 0x1p40, .growth_interval = 4});
  train::Step step(net, *optimizer,
                   {.clip_grad_norm = 1,
                    .accumulate = accumulate,
                    .scheduler = &schedule,
                    .capture = capture,
                    .autocast = float16,
                    .scaler = &scaler});
  Scaled result;
  for (int i = 0; i < kUpdates * accumulate; ++i) {
    const std::int64_t batch = i == 33 ? 5 : 8;  // one that a recording does not fit
    const Tensor images =
        testing::random_tensor({batch, 3, 32, 32}, static_cast<std::uint64_t>(i % 8), {.dtype = float32});
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8}).slice(0, {0, batch});
    result.losses.push_back(step(images, labels).loss.item<float>());
    result.scales.push_back(scaler.scale());
  }
  result.weights = net.state_dict();
  result.optimizer = optimizer->state_dict();
  result.scaler = scaler.state_dict();
  result.updates = optimizer->steps();
  result.skipped = scaler.skipped();
  result.replayed = step.replayed();
  EXPECT_EQ(result.updates + result.skipped, kUpdates);
  return result;
}

TEST(GpuScalerTest, skips_and_recovers_with_the_same_bits_when_captured) {
  LAMELLA_NEEDS_GPU();
  for (const auto& [name, make] : kOptimizers)
    for (const int accumulate : {1, 2}) {
      if (accumulate == 2 && name != "SGD") continue;
      const std::string what = name + ", accumulate " + std::to_string(accumulate);
      const Scaled eager = overflowing(make, false, accumulate),
                   captured = overflowing(make, true, accumulate);
      EXPECT_GE(eager.skipped, 10) << what;
      EXPECT_GE(eager.updates, 8) << what;
      EXPECT_EQ(eager.replayed, 0);
      EXPECT_GE(captured.replayed, 44 * accumulate) << what;
      EXPECT_EQ(captured.losses, eager.losses) << what;
      EXPECT_EQ(captured.scales, eager.scales) << what;
      expect_same_bits(captured.weights, eager.weights, what);
      expect_same_bits(captured.optimizer, eager.optimizer, what);
      expect_same_bits(captured.scaler, eager.scaler, what);
    }
}

/// Gradients in one launch and one by one, of both types, and one that is not finite.
struct Replica {
  Tensors params;
  std::unique_ptr<optim::Optimizer> optimizer;
  optim::GradScaler scaler{{.init_scale = 8, .growth_interval = 2}};

  Replica(Device device, const MakeOptimizer& make) {
    const auto add = [&](const Tensor& values) {
      params.push_back(values.to(device).detach().set_requires_grad());
    };
    add(testing::random_tensor({7, 33}, 1, {.dtype = float32}));
    add(testing::random_tensor({100003}, 2, {.dtype = float32}));
    add(testing::random_tensor({5, 6}, 3, {.dtype = float64}));
    add(testing::random_tensor({4, 9}, 4, {.dtype = float32}));
    optimizer = make(params);
  }

  void step(int number, std::size_t poisoned, double value) {
    scaler.scale(zeros({}, {.device = params[0].device()}));
    for (std::size_t i = 0; i < params.size(); ++i) {
      const Tensor &param = params[i],
                   gradient = testing::random_tensor(
                       param.shape(), static_cast<std::uint64_t>(10 * number) + i, {.dtype = param.dtype()});
      if (i == poisoned) gradient.reshape({-1}).select(0, -1).fill_(value);
      Tensor moved = gradient.to(param.device());
      // Its axes in memory the other way round than the parameter's.
      if (i == 3) moved = moved.permute({1, 0}).contiguous().permute({1, 0});
      params[i].set_grad(moved);
    }
    scaler.unscale_(*optimizer);
    scaler.step(*optimizer);
    scaler.update();
  }
};

TEST(GpuScalerTest, does_what_the_cpu_does) {
  LAMELLA_NEEDS_GPU();
  for (const auto& [name, make] : kOptimizers) {
    Replica cpu(Device::cpu(), make), gpu(Device::cuda(), make);
    constexpr std::size_t kNone = 99;
    constexpr double kInf = std::numeric_limits<double>::infinity(),
                     kNaN = std::numeric_limits<double>::quiet_NaN();
    const std::vector<std::pair<std::size_t, double>> steps{{0, kNaN},  {kNone, 0}, {kNone, 0}, {1, kInf},
                                                            {2, -kInf}, {kNone, 0}, {3, kInf},  {kNone, 0}};
    for (std::size_t i = 0; i < steps.size(); ++i) {
      SCOPED_TRACE(name + ", step " + std::to_string(i));
      const bool bad = steps[i].first != kNone;
      std::vector<Tensor> before;
      for (const Tensor& param : gpu.params) before.push_back(param.detach().to(Device::cpu()).clone());
      const StateDict state = gpu.optimizer->state_dict();
      cpu.step(static_cast<int>(i), steps[i].first, steps[i].second);
      gpu.step(static_cast<int>(i), steps[i].first, steps[i].second);
      expect_same_bits(gpu.scaler.state_dict(), cpu.scaler.state_dict(), "scaler");
      EXPECT_EQ(gpu.optimizer->steps(), cpu.optimizer->steps());
      for (std::size_t k = 0; k < gpu.params.size(); ++k) {
        const Tensor now = gpu.params[k].detach().to(Device::cpu());
        // A NaN's own bits may differ.
        EXPECT_EQ(largest_difference(gpu.params[k].grad(), cpu.params[k].grad()), 0) << k;
        EXPECT_EQ(testing::equal_bits(now, before[k]).ok, bad) << k;
        EXPECT_LE(largest_difference(now, cpu.params[k].detach()), 1e-5) << k;
      }
      if (bad && i > 0) expect_same_bits(gpu.optimizer->state_dict(), state, "optimizer");
    }
    EXPECT_EQ(gpu.scaler.skipped(), 4);
  }
}

TEST(GpuScalerTest, refuses_parameters_on_several_devices) {
  LAMELLA_NEEDS_GPU();
  Tensor here = ones({2}).set_requires_grad();
  Tensor there = ones({2}, {.device = Device::cuda()}).set_requires_grad();
  optim::SGD sgd({here, there}, {.lr = 1});
  optim::GradScaler scaler;
  here.set_grad(ones({2}));
  scaler.scale(sum(there)).backward();
  EXPECT_EQ(scaler.revision(), 1U);  // it has followed the loss
  try {
    scaler.step(sgd);
    FAIL() << "no error";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("GradScaler: gradient [2] float32 cpu of SGD"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(there.grad().to_vector<float>(), std::vector<float>(2, 65536.0F));
  EXPECT_EQ(here.grad().to_vector<float>(), std::vector<float>(2, 1.0F));
}

}  // namespace
}  // namespace lamella::test
