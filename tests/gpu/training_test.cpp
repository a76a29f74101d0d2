#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "autograd/autocast.h"
#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

struct Trained {
  std::vector<double> losses;
  StateDict weights;
};

Trained train(Device device, MemoryFormat format, int steps, DType dtype = DType::Float32) {
  manual_seed(1);
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.35, .small_stem = true});
  net.to(device);
  net.to(dtype);
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9, .weight_decay = 4e-5});
  Trained trained;
  for (int step = 0; step < steps; ++step) {
    const auto seed = static_cast<std::uint64_t>(step % 4);
    const Tensor images = testing::random_tensor({8, 3, 32, 32}, seed, {.dtype = dtype, .format = format});
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8});
    const Tensor loss = cross_entropy(net(images.to(device)), labels.to(device));
    sgd.zero_grad();
    loss.backward();
    sgd.step();
    trained.losses.push_back(loss.detach().to(float64).to(Device::cpu()).data<double>()[0]);
  }
  trained.weights = net.state_dict();
  return trained;
}

TEST(GpuTrainingTest, learns_as_the_cpu_does) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Trained cpu = train(Device::cpu(), format, 5, DType::Float64),
                  gpu = train(Device::cuda(), format, 5, DType::Float64);
    for (std::size_t i = 0; i < cpu.losses.size(); ++i) EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-9) << i;
  }
}

TEST(GpuTrainingTest, two_runs_give_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    const Trained first = train(Device::cuda(), format, 20), second = train(Device::cuda(), format, 20);
    EXPECT_EQ(first.losses, second.losses);
    for (const auto& [key, tensor] : first.weights)
      EXPECT_TRUE(testing::equal_bits(second.weights.at(key).to(Device::cpu()), tensor.to(Device::cpu())).ok)
          << key;
  }
}

TEST(GpuTrainingTest, a_steady_step_takes_no_memory_from_the_device) {
  LAMELLA_NEEDS_GPU();
  train(Device::cuda(), MemoryFormat::Contiguous, 3);
  const MemoryStats before = memory_stats(Device::cuda());
  train(Device::cuda(), MemoryFormat::Contiguous, 5);
  const MemoryStats after = memory_stats(Device::cuda());
  EXPECT_EQ(after.device_allocations, before.device_allocations);
  EXPECT_EQ(after.in_use, before.in_use);
}

TEST(GpuTrainingTest, averages_wait_only_when_they_are_read) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const Tensor logits = from_vector<float>({3, 2, 1, 1, 2, 3}, {2, 3}).to(gpu),
               labels = from_vector<std::int64_t>({0, 0}, {2}).to(gpu);
  train::Average average;
  const std::uint64_t waits = wait_count(gpu);
  average.add(train::accuracy(logits, labels), 2);
  average.add(full({1}, 2, {.device = gpu}), 1);
  EXPECT_EQ(wait_count(gpu), waits);
  EXPECT_EQ(average.value(), 1);
  EXPECT_EQ(wait_count(gpu), waits + 1);
}

struct Stepped {
  std::vector<float> losses;
  StateDict weights;
  std::int64_t replayed;
};

Stepped steps(bool capture, int accumulate, std::optional<DType> autocast = std::nullopt) {
  manual_seed(2);
  auto net = models::mobilenet_v3_small({.classes = 10, .width = 0.5});
  net.to(Device::cuda());
  optim::RMSprop optimizer(net.parameters(), {.lr = 0.01, .momentum = 0.9});
  optim::LrScheduler schedule(optimizer, optim::Cosine({.T_max = 20}));
  train::Step step(net, optimizer,
                   {.clip_grad_norm = 1,
                    .accumulate = accumulate,
                    .scheduler = &schedule,
                    .capture = capture,
                    .autocast = autocast});
  Stepped result;
  for (int i = 0; i < 12 * accumulate; ++i) {
    const std::int64_t batch = i == 8 ? 5 : 8;  // one that a recording does not fit
    const Tensor images =
        testing::random_tensor({batch, 3, 32, 32}, static_cast<std::uint64_t>(i), {.dtype = float32});
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8}).slice(0, {0, batch});
    result.losses.push_back(step(images, labels).loss.item<float>());
  }
  result.weights = net.state_dict();
  result.replayed = step.replayed();
  return result;
}

TEST(GpuTrainingTest, a_captured_step_has_the_bits_of_an_eager_one) {
  LAMELLA_NEEDS_GPU();
  for (const auto& [accumulate, autocast] :
       {std::pair(1, std::optional<DType>()), std::pair(2, std::optional<DType>()),
        std::pair(1, std::optional(bfloat16))}) {
    const Stepped eager = steps(false, accumulate, autocast), captured = steps(true, accumulate, autocast);
    EXPECT_EQ(eager.replayed, 0);
    EXPECT_GE(captured.replayed, 7);
    EXPECT_EQ(captured.losses, eager.losses);
    for (const auto& [key, tensor] : eager.weights)
      EXPECT_TRUE(
          testing::equal_bits(captured.weights.at(key).to(Device::cpu()), tensor.to(Device::cpu())).ok)
          << key;
  }
}

TEST(GpuTrainingTest, a_step_that_cannot_be_captured_says_why) {
  LAMELLA_NEEDS_GPU();
  Linear net(4, 3);
  net.to(Device::cuda());
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  train::Step step(net, sgd,
                   {.loss =
                        [](const Tensor& output, const Tensor& target) {
                          const Tensor loss = cross_entropy(output, target);
                          return loss.item() > 100 ? loss * 0.5 : loss;
                        },
                    .capture = true});
  const Tensor x = testing::random_tensor({5, 4}, 1, {.dtype = float32}),
               y = from_vector<std::int64_t>({0, 1, 2, 0, 1}, {5});
  step(x, y);
  step(x, y);
  try {
    step(x, y);
    FAIL() << "item() was recorded";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("item()"), std::string::npos) << error.what();
  }
  // The device goes on.
  EXPECT_EQ((full({3}, 2, {.device = Device::cuda()}) * 2.0).to_vector<float>(), std::vector<float>(3, 4.0F));
}

/// Runs ten batches, calls change(net, ema) after the sixth, and gives the weights and averages.
StateDict changed_on_the_way(bool capture, const std::function<void(Sequential&, optim::Ema&)>& change) {
  manual_seed(5);
  Sequential net(Conv2d(3, 8, 3), BatchNorm2d(8), ReLU(), Flatten(), Linear(8 * 6 * 6, 4));
  net.to(Device::cuda());
  net.child("0").set_requires_grad(false);
  optim::SGD sgd(net.parameters(), {.lr = 0.1, .momentum = 0.9});
  optim::Ema ema(net, {.decay = 0.5});
  train::Step step(net, sgd, {.ema = &ema, .capture = capture});
  for (int i = 0; i < 10; ++i) {
    if (i == 6) change(net, ema);
    step(testing::random_tensor({4, 3, 8, 8}, static_cast<std::uint64_t>(i), {.dtype = float32}),
         from_vector<std::int64_t>({0, 1, 2, 3}, {4}));
  }
  EXPECT_EQ(step.replayed() > 0, capture);
  StateDict all = net.state_dict();
  for (const auto& [key, tensor] : ema.module().state_dict()) all.set("ema." + key, tensor);
  return all;
}

TEST(GpuTrainingTest, a_recorded_step_notices_what_changes) {
  LAMELLA_NEEDS_GPU();
  const std::pair<const char*, std::function<void(Sequential&, optim::Ema&)>> changes[] = {
      {"thawed", [](Sequential& net, optim::Ema&) { net.child("0").set_requires_grad(true); }},
      {"frozen", [](Sequential& net, optim::Ema&) { net.child("4").set_requires_grad(false); }},
      {"norm in eval", [](Sequential& net, optim::Ema&) { net.child("1").eval(); }},
      {"averages moved", [](Sequential&, optim::Ema& ema) { ema.module().to(Device::cpu()); }}};
  for (const auto& [what, change] : changes) {
    const StateDict eager = changed_on_the_way(false, change), captured = changed_on_the_way(true, change);
    for (const auto& [key, tensor] : eager)
      EXPECT_TRUE(testing::equal_bits(captured.at(key).to(Device::cpu()), tensor.to(Device::cpu())).ok)
          << what << ": " << key;
  }
}

/// Twelve steps in bfloat16, where earlier weights are loaded on the way: losses, then weights and buffers.
std::pair<std::vector<float>, StateDict> with_weights_loaded(bool capture) {
  manual_seed(4);
  auto net = models::mobilenet_v2({.classes = 10, .width = 0.35, .small_stem = true});
  net.to(Device::cuda());
  net.to(MemoryFormat::ChannelsLast);
  const StateDict before = net.state_dict().clone();
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9});
  train::Step step(net, sgd, {.capture = capture, .autocast = bfloat16});
  std::vector<float> losses;
  for (int i = 0; i < 12; ++i) {
    if (i == 7) net.load_state_dict(before);
    const Tensor images = testing::random_tensor({8, 3, 32, 32}, static_cast<std::uint64_t>(i % 4),
                                                 {.dtype = float32, .format = MemoryFormat::ChannelsLast});
    const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 3, 4, 5, 6, 7}, {8});
    losses.push_back(step(images, labels).loss.item<float>());
  }
  EXPECT_EQ(step.replayed(), capture ? 10 : 0);
  for (const auto& [key, buffer] : net.named_buffers())
    if (key.ends_with("num_batches_tracked")) {
      EXPECT_EQ(buffer.item<std::int64_t>(), 5) << key;  // since the loading
    }
  return {losses, net.state_dict()};
}

TEST(GpuTrainingTest, replays_round_the_weights_that_are_there) {
  LAMELLA_NEEDS_GPU();
  const auto [losses, state] = with_weights_loaded(false);
  const auto [replayed_losses, replayed] = with_weights_loaded(true);
  EXPECT_EQ(replayed_losses, losses);
  for (const auto& [key, tensor] : state)
    EXPECT_TRUE(testing::equal_bits(replayed.at(key).to(Device::cpu()), tensor.to(Device::cpu())).ok) << key;
}

TEST(GpuTrainingTest, parameters_rounded_together_have_the_bits_of_each_rounded_by_itself) {
  LAMELLA_NEEDS_GPU();
  for (const DType dtype : {bfloat16, float16}) {
    Tensors all;
    const auto add = [&](const Tensor& tensor) { all.push_back(tensor); };
    const auto numbers = [&](const Shape& shape) {
      return testing::random_tensor(shape, all.size() + 1, {.dtype = float32}).to(Device::cuda());
    };
    // More than one launch takes; whole lots and rests; a large one; what begins beside a lot; other orders.
    for (std::int64_t i = 0; i < 150; ++i) add(numbers({1 + i * 37 % 50, 1 + i % 7}));
    add(numbers({300, 1001}));
    add(numbers({1001}).slice(0, {3, {}}));
    add(numbers({40, 30}).permute({1, 0}));
    add(numbers({8, 3, 3, 3}).contiguous(MemoryFormat::ChannelsLast));
    add(numbers({8, 9, 4}).slice(1, {2, 7}));
    add(numbers({0, 4}));
    const Autocast mixed(dtype);
    detail::round_together(all);
    const Tensor input = zeros({1}, {.dtype = dtype, .device = Device::cuda()});
    for (const Tensor& tensor : all)
      EXPECT_TRUE(testing::equal_bits(detail::lowered_parameter(input, tensor).to(Device::cpu()),
                                      tensor.to(Device::cpu()).to(dtype))
                      .ok)
          << tensor.describe();
  }
}

/// Trains the classifier behind a folded norm, whose numbers are loaded anew, in place, on the way.
StateDict with_a_folded_norm(bool capture) {
  manual_seed(5);
  Sequential net(Conv2d(3, 8, 3, {.bias = false}), BatchNorm2d(8), ReLU(), Flatten(), Linear(8 * 6 * 6, 4));
  net.to(Device::cuda());
  net.child("0").set_requires_grad(false);
  net.child("1").set_requires_grad(false);
  net.child("1").eval();
  const StateDict before = net.state_dict().clone();
  {
    const NoGrad no_grad;
    Tensor var = net.at<BatchNorm2d>(1).running_var();
    var.fill_(3);
  }
  EXPECT_EQ(fold_batch_norms(net), 1);
  optim::SGD sgd(net.parameters(), {.lr = 0.1, .momentum = 0.9});
  train::Step step(net, sgd, {.capture = capture});
  StateDict all;
  for (int i = 0; i < 12; ++i) {
    if (i == 6) net.load_state_dict(before);
    const auto result =
        step(testing::random_tensor({4, 3, 8, 8}, static_cast<std::uint64_t>(i), {.dtype = float32}),
             from_vector<std::int64_t>({0, 1, 2, 3}, {4}));
    all.set("output " + std::to_string(i), result.output.clone());
  }
  EXPECT_EQ(step.replayed(), capture ? 8 : 0);  // all but two before and two behind the change
  return all;
}

TEST(GpuTrainingTest, a_recorded_step_keeps_a_folded_norm_and_notices_when_it_is_none) {
  LAMELLA_NEEDS_GPU();
  const StateDict eager = with_a_folded_norm(false), captured = with_a_folded_norm(true);
  for (const auto& [key, tensor] : eager)
    EXPECT_TRUE(testing::equal_bits(captured.at(key).to(Device::cpu()), tensor.to(Device::cpu())).ok) << key;
}

/// Outputs of eight steps of a network that ends in an activation nobody has computed yet.
std::vector<std::vector<float>> outputs_of_a_pending_end(bool capture) {
  manual_seed(6);
  Sequential net(Conv2d(3, 8, 3), BatchNorm2d(8), ReLU());
  net.to(Device::cuda());
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  train::Step step(
      net, sgd,
      {.loss = [](const Tensor& output, const Tensor& target) { return mse_loss(output, target); },
       .capture = capture});
  const Tensor target = testing::random_tensor({4, 8, 6, 6}, 7, {.dtype = float32});
  std::vector<std::vector<float>> outputs;
  for (std::uint64_t i = 0; i < 8; ++i)
    outputs.push_back(
        step(testing::random_tensor({4, 3, 8, 8}, i, {.dtype = float32}), target).output.to_vector<float>());
  EXPECT_EQ(step.replayed() > 0, capture);
  return outputs;
}

TEST(GpuTrainingTest, a_replayed_step_computes_a_pending_output_anew) {
  LAMELLA_NEEDS_GPU();
  EXPECT_EQ(outputs_of_a_pending_end(true), outputs_of_a_pending_end(false));
}

TEST(GpuTrainingTest, dropout_repeats_its_mask_in_a_later_step) {
  LAMELLA_NEEDS_GPU();
  manual_seed(4);
  Tensor x = ones({5000}, {.device = Device::cuda()}).set_requires_grad();
  const Tensor y = dropout(x, 0.5, true);
  next_random_step();
  dropout(x.detach(), 0.5, true);
  y.backward(ones({5000}, {.device = Device::cuda()}));
  EXPECT_TRUE(testing::equal_bits(x.grad().to(Device::cpu()), y.detach().to(Device::cpu())).ok);
}

TEST(GpuTrainingTest, another_thread_computes_while_a_step_is_recorded) {
  LAMELLA_NEEDS_GPU();
  const Stepped alone = steps(true, 1);
  std::atomic<bool> done{false};
  std::thread other([&] {
    Tensor x = ones({1000}, {.device = Device::cuda()});
    int wrong = 0;
    while (!done) {
      x = x * 2.0;
      x = x * 0.5;
      wrong += x.slice(0, {0, 1}).item<float>() != 1;
    }
    EXPECT_EQ(wrong, 0);
  });
  const Stepped together = steps(true, 1);
  done = true;
  other.join();
  EXPECT_EQ(together.losses, alone.losses);
}

TEST(GpuTrainingTest, mixed_precision_learns) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    manual_seed(4);
    auto net = models::mobilenet_v2({.classes = 4, .width = 0.35, .dropout = 0, .small_stem = true});
    net.to(Device::cuda());
    optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9});
    train::Step step(net, sgd, {.autocast = bfloat16});
    const Tensor images = testing::random_tensor({16, 3, 16, 16}, 5, {.dtype = float32, .format = format});
    std::vector<std::int64_t> classes(16);
    for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 4);
    const Tensor labels = from_vector<std::int64_t>(classes, {16});
    const float first = step(images, labels).loss.item<float>();
    float last = first;
    for (int i = 0; i < 40; ++i) last = step(images, labels).loss.item<float>();
    EXPECT_NEAR(first, 1.386F, 0.3F);
    EXPECT_LT(last, 0.5F);
  }
}

}  // namespace
}  // namespace lamella::test
