#include "lamella/train/profile.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

using ::testing::HasSubstr;
using train::Profile;
using train::ProfiledKernel;

TEST(GpuProfileTest, a_step_on_the_gpu) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  Profile profile(gpu);
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.35, .small_stem = true});
  net.to(gpu);
  net.to(MemoryFormat::ChannelsLast);
  optim::SGD sgd(net.parameters(), {.lr = 0.01, .momentum = 0.9});
  train::Step step(net, sgd, {.check_every = 0, .autocast = bfloat16});
  const Tensor images =
      testing::random_tensor({64, 3, 32, 32}, 1, {.dtype = float32, .format = MemoryFormat::ChannelsLast})
          .to(gpu);
  const Tensor labels = zeros({64}, {.dtype = int64, .device = gpu});
  for (int i = 0; i < 3; ++i) step(images, labels);
  profile.watch(net);
  synchronize(gpu);
  const std::uint64_t waits = wait_count(gpu);
  profile.start();
  const std::uint64_t waits_after_start = wait_count(gpu);
  for (int i = 0; i < 4; ++i) {
    step(images, labels);  // its result is gone when the step ends
    profile.step();
  }
  EXPECT_LE(waits_after_start, waits + 1);
  EXPECT_EQ(wait_count(gpu), waits_after_start);  // steps run as they would without it
  const std::size_t in_use = memory_stats(gpu).in_use;
  profile.stop();

  double gpu_seconds = 0;
  bool conv = false, update = false;
  for (const ProfiledKernel& kernel : profile.kernels()) {
    EXPECT_GT(kernel.gpu_seconds, 0) << kernel.op << ' ' << kernel.kernel;
    EXPECT_LT(kernel.gpu_seconds, 1) << kernel.op << ' ' << kernel.kernel;
    gpu_seconds += kernel.gpu_seconds;
    conv = conv || (kernel.kernel.starts_with("depthwise_conv2d_backward") && kernel.calls == 4 * 17);
    update = update || (kernel.op == "SGD" && kernel.pass == train::ProfiledPass::Update);
  }
  EXPECT_TRUE(conv) << profile.table();
  EXPECT_TRUE(update) << profile.table();
  EXPECT_GT(gpu_seconds, 1e-5);
  EXPECT_GT(profile.bandwidth(), 1e10);
  EXPECT_THAT(profile.table(), HasSubstr("GPU ms"));

  ASSERT_FALSE(profile.memory().empty());
  EXPECT_EQ(profile.memory().back().total, static_cast<std::int64_t>(in_use));
  for (const train::MemoryMoment& moment : profile.memory())
    for (const std::int64_t bytes : moment.in_use) EXPECT_GE(bytes, 0);
  EXPECT_THAT(profile.memory_table(), HasSubstr("activations"));

  // On the GPU, kernels of a stream follow each other, and none comes before the CPU asked for it.
  const nlohmann::json trace = nlohmann::json::parse(profile.trace());
  double end = 0;
  std::vector<double> asked, ran;
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X" || event.at("cat") == "step") continue;
    (event.at("pid") == 1 ? asked : ran).push_back(event.at("ts"));
    if (event.at("pid") == 1 || event.at("name") == "apply_pending") continue;
    end = std::max(end, event.at("ts").get<double>() + event.at("dur").get<double>());
  }
  ASSERT_EQ(asked.size(), ran.size());
  for (std::size_t i = 0; i < ran.size(); ++i) EXPECT_GT(ran[i], asked[i] - 200) << i;  // µs: two clocks
  EXPECT_GT(end, 0);
}

TEST(GpuProfileTest, the_bits_are_those_without_it) {
  LAMELLA_NEEDS_GPU();
  const auto train_with = [](bool profiled) {
    manual_seed(7);
    auto net = models::mobilenet_v2({.classes = 4, .width = 0.35, .small_stem = true});
    net.to(Device::cuda());
    optim::SGD sgd(net.parameters(), {.lr = 0.01, .momentum = 0.9});
    train::Step step(net, sgd, {.check_every = 0});
    const Tensor images = testing::random_tensor({8, 3, 16, 16}, 5, {.dtype = float32});
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 0, 1, 2, 3}, {8});
    std::optional<Profile> profile;
    if (profiled) {
      profile.emplace(Device::cuda(), train::ProfileOptions{.bandwidth = false});
      profile->start();
    }
    for (int i = 0; i < 3; ++i) {
      step(images, labels);
      if (profile) profile->step();
    }
    if (profile) profile->stop();
    return net.state_dict().clone();
  };
  const StateDict plain = train_with(false), profiled = train_with(true);
  for (const auto& [key, tensor] : plain) {
    const auto same = testing::equal_bits(profiled.at(key).to(Device::cpu()), tensor.to(Device::cpu()));
    EXPECT_TRUE(same.ok) << key << ": " << same.message;
  }
}

TEST(GpuProfileTest, recorded_launches_are_not_seen_and_do_no_harm) {
  LAMELLA_NEEDS_GPU();
  manual_seed(7);
  Linear net(8, 4);
  net.to(Device::cuda());
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  train::Step step(net, sgd, {.check_every = 0, .capture = true});
  const Tensor x = ones({4, 8}), labels = zeros({4}, {.dtype = int64});
  Profile profile(Device::cuda(), {.bandwidth = false});
  profile.start();
  for (int i = 0; i < 5; ++i) step(x, labels), profile.step();
  profile.stop();
  EXPECT_EQ(step.replayed(), 3);
  for (const ProfiledKernel& kernel : profile.kernels())
    if (kernel.kernel == "sgd_step") {
      EXPECT_EQ(kernel.calls, 2);
    }
}

TEST(GpuProfileTest, copies_to_the_cpu_show_the_waiting) {
  LAMELLA_NEEDS_GPU();
  const Tensor x = ones({1 << 20}, {.device = Device::cuda()});
  Profile profile(Device::cuda(), {.bandwidth = false});
  profile.start();
  x.to(Device::cpu());
  profile.step();
  profile.stop();
  ASSERT_EQ(profile.kernels().size(), 1U) << profile.table();
  EXPECT_EQ(profile.kernels()[0].kernel, "copy_to_cpu");
  EXPECT_GT(profile.kernels()[0].cpu_seconds, 0);
  EXPECT_TRUE(std::isnan(profile.kernels()[0].share_of_bandwidth));
}

}  // namespace
}  // namespace lamella::test
