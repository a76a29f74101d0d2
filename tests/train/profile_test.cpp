#include "lamella/train/profile.h"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/profiling.h"
#include "core/workspace.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/memory.h"
#include "lamella/layers/depthwise_conv2d.h"
#include "lamella/layers/layers.h"
#include "lamella/layers/loss.h"
#include "lamella/models/mobilenet_v2.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"
#include "lamella/train/step.h"
#include "tests/support/temp_folder.h"

namespace lamella::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr ProfileOptions kQuick{.bandwidth = false};

/// The one entry for `op` and `kernel`; a failure where there is none or several.
ProfiledKernel entry(const Profile& profile, const std::string& op, const std::string& kernel,
                     ProfiledPass pass) {
  std::vector<ProfiledKernel> found;
  for (const ProfiledKernel& one : profile.kernels())
    if (one.op == op && one.kernel == kernel && one.pass == pass) found.push_back(one);
  EXPECT_EQ(found.size(), 1U) << op << ' ' << kernel << ' ' << name(pass) << " in\n" << profile.table();
  return found.size() == 1 ? found.front() : ProfiledKernel{};
}

/// What `work` does, as one step.
void profile_once(Profile& profile, const std::function<void()>& work) {
  profile.start();
  work();
  profile.step();
  profile.stop();
}

TEST(ProfileTest, counts_calls_and_bytes) {
  const Tensor a = ones({256}), b = ones({1}).expand({256});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  for (int i = 0; i < 3; ++i) {
    const Tensor sum = a + b;
    profile.step();
  }
  a * 2.0;  // after the last step
  profile.stop();
  EXPECT_EQ(profile.steps(), 3);
  ASSERT_EQ(profile.kernels().size(), 1U) << profile.table();
  const ProfiledKernel add = entry(profile, "add", "binary", ProfiledPass::Forward);
  EXPECT_EQ(add.calls, 3);
  EXPECT_EQ(add.bytes, 3 * 4 * (256 + 1 + 256));
  EXPECT_GT(add.cpu_seconds, 0);
  EXPECT_LT(add.cpu_seconds, profile.seconds());
  EXPECT_EQ(add.gpu_seconds, 0);
  EXPECT_TRUE(std::isnan(add.share_of_bandwidth));
}

TEST(ProfileTest, tells_gradients_from_results) {
  Tensor x = ones({2, 8, 6, 6}).set_requires_grad(), weight = ones({8, 1, 3, 3}).set_requires_grad();
  Profile profile(Device::cpu(), kQuick);
  profile_once(profile, [&] {
    const Tensor y = depthwise_conv2d(x, weight, {}, {.padding = 1});
    y.backward(ones(y.shape()));
  });
  const std::int64_t map = 2 * 8 * 6 * 6 * 4, taps = 8 * 9 * 4;
  const char* const op = "depthwise_conv2d";
  EXPECT_EQ(entry(profile, op, "depthwise_conv2d_forward", ProfiledPass::Forward).bytes, 2 * map + taps);
  // Reads the gradient, the input and the taps; writes the gradients of both.
  EXPECT_EQ(entry(profile, op, "depthwise_conv2d_backward", ProfiledPass::Gradient).bytes,
            3 * map + 2 * taps);
}

TEST(ProfileTest, a_gradient_that_is_added_is_read_too) {
  Tensor x = ones({100}).set_requires_grad();
  (x * 2.0).backward(ones({100}));
  Profile profile(Device::cpu(), kQuick);
  profile_once(profile, [&] { (x * 2.0).backward(ones({100})); });
  EXPECT_EQ(entry(profile, "mul", "binary", ProfiledPass::Gradient).bytes, 3 * 400);
}

TEST(ProfileTest, in_place_operators_have_their_name_and_updates_read_what_they_change) {
  Tensor x = ones({100}).set_requires_grad();
  optim::SGD sgd({x}, {.lr = 0.1, .momentum = 0.9});
  (x * 2.0).backward(ones({100}));
  sgd.step();
  Tensor y = zeros({100});
  Profile profile(Device::cpu(), kQuick);
  profile_once(profile, [&] {
    y.fill_(3);
    sgd.step();
  });
  EXPECT_EQ(entry(profile, "fill_", "fill", ProfiledPass::Forward).bytes, 400);
  // Parameter and momentum both ways, the gradient; a few numbers more.
  const std::int64_t bytes = entry(profile, "SGD", "sgd_step", ProfiledPass::Update).bytes;
  EXPECT_GE(bytes, 5 * 400);
  EXPECT_LT(bytes, 5 * 400 + 100);
}

TEST(ProfileTest, time_within_a_call_counts_once) {
  auto net = models::mobilenet_v2({.classes = 4, .width = 0.35, .small_stem = true});
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  Step step(net, sgd, {.check_every = 0});
  const Tensor images = ones({4, 3, 16, 16});
  const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3}, {4});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  for (int i = 0; i < 2; ++i) step(images, labels), profile.step();
  profile.stop();
  double seconds = 0;
  std::int64_t applied = 0, passes[3] = {};
  for (const ProfiledKernel& kernel : profile.kernels()) {
    EXPECT_GE(kernel.cpu_seconds, 0) << kernel.op;
    seconds += kernel.cpu_seconds;
    passes[static_cast<int>(kernel.pass)] += kernel.calls;
    if (kernel.kernel == "apply_pending") applied += kernel.calls;
  }
  EXPECT_LE(seconds, profile.seconds());
  EXPECT_GT(seconds, 0.2 * profile.seconds());
  // Of calls within each other, the outermost take all of the time.
  double outermost = 0, end = 0;
  int within = 0;
  const nlohmann::json trace = nlohmann::json::parse(profile.trace());
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X" || event.at("cat") == "step") continue;
    const double from = event.at("ts"), taken = event.at("dur");
    if (from < end) {
      ++within;
      continue;
    }
    outermost += 1e-6 * taken;
    end = from + taken;
  }
  EXPECT_GT(within, 0);
  EXPECT_NEAR(seconds, outermost, 1e-6);
  EXPECT_GT(applied, 0);  // made while other calls' arguments were
  EXPECT_GT(entry(profile, "conv2d", "apply_pending", ProfiledPass::Forward).bytes, 0);
  for (const std::int64_t calls : passes) EXPECT_GT(calls, 0);
  EXPECT_EQ(entry(profile, "depthwise_conv2d", "depthwise_conv2d_forward", ProfiledPass::Forward).calls, 34);
  EXPECT_THAT(profile.table(), HasSubstr("\ndepthwise_conv2d     gradient  depthwise_conv2d_backward "));
  EXPECT_THAT(profile.table(), HasSubstr("2 steps on cpu"));
}

TEST(ProfileTest, knows_the_share_of_bandwidth) {
  Profile profile(Device::cpu());
  const Tensor x = ones({1 << 20});
  profile_once(profile, [&] { x.clone(); });
  EXPECT_GT(profile.bandwidth(), 1e8);
  const ProfiledKernel clone = entry(profile, "clone", "copy", ProfiledPass::Forward);
  const double share = static_cast<double>(clone.bytes) / clone.cpu_seconds / profile.bandwidth();
  // Where the bandwidth was measured while others used it, a kernel may seem to beat it: no share is known
  // then.
  if (share > 1) {
    EXPECT_TRUE(std::isnan(clone.share_of_bandwidth));
  } else {
    EXPECT_NEAR(clone.share_of_bandwidth, share, 1e-9);
  }
}

TEST(ProfileTest, other_threads_and_other_times_are_not_seen) {
  const Tensor a = ones({16});
  Profile profile(Device::cpu(), kQuick);
  a + a;
  profile.start();
  std::thread([&] { a* a; }).join();
  a - a;
  profile.step();
  profile.stop();
  profile.stop();
  a / a;
  ASSERT_EQ(profile.kernels().size(), 1U) << profile.table();
  EXPECT_EQ(profile.kernels()[0].op, "sub");
  EXPECT_EQ(detail::profiling::on_bits.load(), 0U);
}

std::int64_t sum_of(const Profile& profile, MemoryPurpose purpose) {
  std::int64_t bytes = 0;
  for (const MemoryShare& share : profile.peak())
    if (share.purpose == purpose) bytes += share.bytes;
  return bytes;
}

TEST(ProfileTest, says_what_memory_is_for) {
  constexpr std::int64_t kMiB = 1 << 20;
  const std::int64_t floats = kMiB / 4;
  Profile profile(Device::cpu(), kQuick);
  Linear net(512, 512, false);  // 1 MiB
  optim::SGD sgd(net.parameters(), {.lr = 0.1, .momentum = 0.9});
  const Tensor x = ones({512, 512});
  (void)cross_entropy(net(x), full({512}, 1, {.dtype = int64})).backward();
  sgd.step();
  profile.watch(net);
  const auto batch = std::make_unique<Tensor>(empty({2, floats}));
  profile.watch(*batch, MemoryPurpose::Other, "the batch");
  profile.start();
  {
    const Tensor a = ones({3, floats});
    const Tensor b = relu(a);
    const detail::Workspace workspace(Device::cpu(), 8 * kMiB);
  }
  const std::size_t in_use = memory_stats(Device::cpu()).in_use;
  profile.step();
  profile.stop();
  EXPECT_EQ(sum_of(profile, MemoryPurpose::Parameters), kMiB);
  EXPECT_EQ(sum_of(profile, MemoryPurpose::Gradients), kMiB);
  EXPECT_EQ(sum_of(profile, MemoryPurpose::Workspace), 8 * kMiB);
  EXPECT_GE(sum_of(profile, MemoryPurpose::Optimizer), kMiB);
  EXPECT_LT(sum_of(profile, MemoryPurpose::Optimizer), kMiB + 10000);
  EXPECT_GE(sum_of(profile, MemoryPurpose::Activations), 6 * kMiB);
  ASSERT_FALSE(profile.peak().empty());
  EXPECT_EQ(profile.peak()[0].purpose, MemoryPurpose::Workspace);

  const std::vector<MemoryMoment> moments = profile.memory();
  ASSERT_GT(moments.size(), 5U);
  EXPECT_EQ(moments.back().total, static_cast<std::int64_t>(in_use));
  std::int64_t most = 0;
  for (const MemoryMoment& moment : moments) {
    most = std::max(most, moment.total);
    std::int64_t sum = 0;
    for (const std::int64_t bytes : moment.in_use) {
      EXPECT_GE(bytes, 0);
      sum += bytes;
    }
    EXPECT_EQ(sum, moment.total);
  }
  std::int64_t explained = 0;
  for (const MemoryShare& share : profile.peak()) explained += share.bytes;
  EXPECT_EQ(explained, most);
  const std::string text = profile.memory_table();
  EXPECT_THAT(text, HasSubstr("workspace        8.00 MiB\n"));
  EXPECT_THAT(text, HasSubstr("relu: 2 blocks, the largest [3,262144] float32"));
  EXPECT_THAT(text, HasSubstr("[512,512] float32 weight"));
  EXPECT_THAT(text, HasSubstr("the batch"));
}

TEST(ProfileTest, memory_from_before_counts_until_it_is_given_back) {
  auto before = std::make_unique<Tensor>(empty({1 << 20}));
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  const std::size_t with = memory_stats(Device::cpu()).in_use;
  before = nullptr;
  profile.step();
  profile.stop();
  ASSERT_GE(profile.memory().size(), 2U);
  EXPECT_EQ(profile.memory().front().total, static_cast<std::int64_t>(with));
  EXPECT_EQ(profile.memory().back().total, static_cast<std::int64_t>(with) - (4 << 20));
}

TEST(ProfileTest, recomputed_results_are_not_gradients) {
  Tensor x = ones({64}).set_requires_grad();
  Profile profile(Device::cpu(), kQuick);
  profile_once(profile,
               [&] { recompute([](const Tensors& in) { return exp(in[0]); }, {x}).backward(ones({64})); });
  EXPECT_EQ(entry(profile, "exp", "unary", ProfiledPass::Forward).calls, 2);
}

TEST(ProfileTest, the_trace_is_one_that_viewers_read) {
  const test::TempFolder temp;
  const Tensor a = ones({256});
  Profile profile(Device::cpu(), kQuick);
  profile.start();
  for (int i = 0; i < 2; ++i) {
    const Tensor sum = a + a;
    profile.step();
  }
  profile.stop();
  profile.save_trace(temp / "trace.json");
  std::ifstream file(temp / "trace.json");
  const nlohmann::json trace = nlohmann::json::parse(file);
  int steps = 0, calls = 0, sizes = 0;
  double end_of_last = 0;
  for (const auto& event : trace.at("traceEvents")) {
    const std::string kind = event.at("ph");
    if (kind == "C") {
      ++sizes;
      EXPECT_TRUE(event.at("args").contains("activations")) << event;
      continue;
    }
    if (kind != "X") continue;
    EXPECT_GE(event.at("dur").get<double>(), 0);
    if (event.at("cat") == "step") {
      ++steps;
      continue;
    }
    ++calls;
    EXPECT_EQ(event.at("name"), "binary");
    EXPECT_EQ(event.at("args").at("operator"), "add");
    EXPECT_EQ(event.at("args").at("bytes written"), 1024);
    EXPECT_GE(event.at("ts").get<double>(), end_of_last);
    end_of_last = event.at("ts").get<double>() + event.at("dur").get<double>();
  }
  EXPECT_EQ(steps, 2);
  EXPECT_EQ(calls, 2);
  EXPECT_GE(sizes, 4);
  EXPECT_THROW(profile.save_trace(temp / "no" / "trace.json"), IoError);
}

TEST(ProfileTest, refuses_what_makes_no_sense) {
  const auto message = [](const auto& work) {
    try {
      work();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  {
    Profile profile(Device::cpu(), kQuick);
    EXPECT_THAT(message([] { Profile second(Device::cpu()); }), HasSubstr("there is one already"));
    EXPECT_THAT(message([&] { profile.step(); }), HasSubstr("not between start() and stop()"));
    EXPECT_TRUE(profile.kernels().empty());
    EXPECT_TRUE(profile.memory_table().empty());
    profile.start();
    EXPECT_THAT(message([&] { profile.start(); }), HasSubstr("it was started before"));
  }
  Profile next(Device::cpu(), kQuick);  // the first one's end made room
  next.stop();
  EXPECT_EQ(next.steps(), 0);
  EXPECT_THAT(message([&] { next.step(); }), HasSubstr("not between"));
  EXPECT_THAT(message([] { Profile none(Device::cuda(99)); }), HasSubstr("cuda:99"));
}

}  // namespace
}  // namespace lamella::train
