// Weight gradients of a recording beside the chain of input gradients, against all on one stream.
#include "autograd/side_branch.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/cuda_backend.h"
#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

using detail::works_beside;

class OneStream {
 public:
  OneStream() { detail::allow_side_branches(false); }
  ~OneStream() { detail::allow_side_branches(true); }
  OneStream(const OneStream&) = delete;
  OneStream& operator=(const OneStream&) = delete;
};

void expect_same_bits(const Tensors& got, const Tensors& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto same = testing::equal_bits(got[i].to(Device::cpu()), wanted[i].to(Device::cpu()));
    EXPECT_TRUE(same.ok) << i << ": " << same.message;
  }
}

/// Whether there are kernels here that leave their parts: others are not put aside.
bool has_kernels() {
  const Device gpu = Device::cuda();
  const std::uint64_t before = works_beside();
  const Tensor x =
      testing::random_tensor({2, 64, 4, 4}, 1, {.dtype = bfloat16, .format = MemoryFormat::ChannelsLast})
          .to(gpu)
          .set_requires_grad();
  Tensor weight = testing::random_tensor({64, 64, 1, 1}, 2, {.dtype = float32}).to(gpu).set_requires_grad();
  const auto step = [&] {
    const Tensor y = conv2d(x * 1.0, weight, {});
    y.backward(y.detach());
  };
  step();
  synchronize(gpu);
  detail::cuda::record_launches(gpu, step);
  return works_beside() > before;
}

struct Training {
  bool capture = true;
  int accumulate = 1;
  bool hooks = false;
  bool small_stem = false;
};

/// Everything that a training ends with.
Tensors trained(const Training& setup) {
  const Device gpu = Device::cuda();
  manual_seed(5);
  auto net = models::mobilenet_v2({.classes = 10, .small_stem = setup.small_stem});
  net.to(gpu);
  net.to(MemoryFormat::ChannelsLast);
  if (setup.hooks) {
    Tensors parameters = net.parameters();
    // Of some weights: a convolution and its norm have three parameters.
    for (std::size_t i = 0; i < parameters.size(); i += 4)
      parameters[i].register_hook([](const Tensor& gradient) { return gradient * 0.5; });
  }
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9, .weight_decay = 4e-5});
  train::Step step(net, sgd,
                   {.clip_grad_norm = 5,
                    .accumulate = setup.accumulate,
                    .check_every = 0,
                    .capture = setup.capture,
                    .autocast = bfloat16});
  constexpr std::int64_t kBatch = 64;
  std::vector<std::int64_t> classes(kBatch);
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 10);
  const Tensor labels = from_vector(classes, {kBatch}).to(gpu);
  Tensors end;
  for (std::uint64_t i = 0; i < 30; ++i) {
    const Tensor images = testing::random_tensor({kBatch, 3, 32, 32}, i,
                                                 {.dtype = float32, .format = MemoryFormat::ChannelsLast})
                              .to(gpu);
    end.push_back(step(images, labels).loss.clone());
  }
  for (const auto& [key, tensor] : net.state_dict()) end.push_back(tensor);
  return end;
}

TEST(GpuSideBranchTest, a_captured_step_gives_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  const bool kernels = has_kernels();
  for (const Training& setup :
       {Training{}, Training{.accumulate = 3}, Training{.hooks = true}, Training{.small_stem = true}}) {
    SCOPED_TRACE("accumulate " + std::to_string(setup.accumulate) + (setup.hooks ? ", hooks" : "") +
                 (setup.small_stem ? ", small stem" : ""));
    const std::uint64_t before = works_beside();
    const Tensors beside = trained(setup);
    EXPECT_EQ(works_beside() > before, kernels);
    Training eager = setup;
    eager.capture = false;
    const std::uint64_t recorded = works_beside();
    expect_same_bits(beside, trained(eager));
    EXPECT_EQ(works_beside(), recorded) << "only recordings have branches";
    const OneStream one;
    expect_same_bits(beside, trained(setup));
    EXPECT_EQ(works_beside(), recorded);
  }
}

/// Gradients of four 1x1 convolutions after each of some replays with other numbers. `gentle`: hooks look on;
/// else they write to what the convolutions' gradients have read.
Tensors hooked(bool gentle) {
  const Device gpu = Device::cuda();
  constexpr std::int64_t kChannels = 192;
  const auto numbers = [&](const Shape& shape, std::uint64_t seed, DType dtype) {
    return testing::random_tensor(shape, seed, {.dtype = dtype, .format = MemoryFormat::ChannelsLast})
        .to(gpu);
  };
  Tensors weights;
  for (std::uint64_t i = 0; i < 4; ++i)
    weights.push_back(numbers({kChannels, kChannels, 1, 1}, i, float32).set_requires_grad());
  const Shape shape{16, kChannels, 14, 14};
  const Tensor start = numbers(shape, 10, bfloat16), direction = numbers(shape, 11, bfloat16);
  const Tensor seen = zeros(shape, {.dtype = bfloat16, .device = gpu}).contiguous(MemoryFormat::ChannelsLast);
  const auto step = [&] {
    for (Tensor& weight : weights) weight.zero_grad();
    Tensors inputs{start.detach().set_requires_grad()};
    Tensors read_before;  // by convolutions whose weights' gradients nothing has waited for
    for (std::size_t i = 0; i < weights.size(); ++i) {
      Tensor x = inputs.back() * 0.125;  // dense numbers, which the convolution saves
      x.register_hook([&, plain = x.detach()](const Tensor& gradient) {
        const NoGrad no_grad;
        Tensor(seen).copy_(gradient + seen * 0.5);
        if (!gentle)
          for (Tensor& each : read_before) each.fill_(5);
        read_before.push_back(plain);
        read_before.push_back(gradient.detach());
        return Tensor();
      });
      inputs.push_back(conv2d(x, weights[i], {}));
    }
    inputs.back().backward(direction);
  };
  step();
  synchronize(gpu);
  const std::unique_ptr<detail::cuda::Recording> recorded = detail::cuda::record_launches(gpu, step);
  Tensors end;
  for (std::uint64_t i = 0; i < 20; ++i) {
    Tensor(start).copy_(numbers(shape, 20 + i, bfloat16));
    recorded->replay();
    for (const Tensor& weight : weights) end.push_back(weight.grad().clone());
    end.push_back(seen.clone());
  }
  return end;
}

/// What some replays leave of 1x1 convolutions whose parts are many, in the order of `uses`, and of a term
/// that writes to the gradient of weight 1 behind them all. `again`: the first of them run again, with a copy
/// of their weight that ends with the block.
Tensors much_used_weights(const std::vector<std::size_t>& uses, bool again) {
  const Device gpu = Device::cuda();
  constexpr std::int64_t kChannels = 384;
  const auto numbers = [&](const Shape& shape, std::uint64_t seed, DType dtype) {
    return testing::random_tensor(shape, seed, {.dtype = dtype, .format = MemoryFormat::ChannelsLast})
        .to(gpu);
  };
  Tensors weights;
  for (std::uint64_t i = 0; i < 5; ++i)
    weights.push_back(numbers({kChannels, kChannels, 1, 1}, i, float32).set_requires_grad());
  const Shape shape{32, kChannels, 4, 4};  // less than the branch may hold, in all
  const Tensor start = numbers(shape, 10, bfloat16), direction = numbers(shape, 11, bfloat16);
  const auto step = [&] {
    for (Tensor& weight : weights) weight.zero_grad();
    const Tensor penalty = sum(weights[1] * weights[1]);
    Tensor x = start.detach().set_requires_grad() * 1.0;
    if (again)
      x = recompute(
          [&](const Tensors& in) {
            Tensor y = in[0];
            for (int i = 0; i < 6; ++i) {
              const Tensor copy = weights[0].detach().set_requires_grad();
              y = conv2d(y * 0.125, copy, {}) + conv2d(y * 0.125, weights[3], {});
            }
            return y;
          },
          {x});
    for (const std::size_t i : uses) x = conv2d(x * 0.125, weights[i], {});
    backward({x, penalty}, {direction, Tensor()});
  };
  step();
  synchronize(gpu);
  const std::unique_ptr<detail::cuda::Recording> recorded = detail::cuda::record_launches(gpu, step);
  Tensors end;
  for (std::uint64_t i = 0; i < 10; ++i) {
    Tensor(start).copy_(numbers(shape, 20 + i, bfloat16));
    recorded->replay();
    for (const Tensor& weight : weights)
      if (weight.grad().defined()) end.push_back(weight.grad().clone());
  }
  return end;
}

TEST(GpuSideBranchTest, parts_are_added_up_beside_whoever_uses_the_weight) {
  LAMELLA_NEEDS_GPU();
  const bool kernels = has_kernels();
  // The last convolutions that backward meets keep the branch busy while the term is added.
  for (const std::vector<std::size_t>& uses :
       {std::vector<std::size_t>{0, 2, 3, 4, 0, 2, 1, 4, 3}, {0, 1, 2, 0, 3, 4, 1, 2, 0}})
    for (const bool again : {false, true}) {
      SCOPED_TRACE((again ? "again, first of weight " : "first of weight ") + std::to_string(uses[1]));
      const std::uint64_t sums = detail::sums_beside(), settled = detail::branches_settled();
      const Tensors beside = much_used_weights(uses, again);
      if (kernels) {
        EXPECT_GT(detail::sums_beside(), sums);
        // The term's gradient meets one that the branch still writes.
        if (!again) {
          EXPECT_GT(detail::branches_settled(), settled);
        }
      }
      const OneStream one;
      expect_same_bits(beside, much_used_weights(uses, again));
    }
}

TEST(GpuSideBranchTest, hooks_may_write_to_what_was_read) {
  LAMELLA_NEEDS_GPU();
  for (const bool gentle : {true, false}) {
    SCOPED_TRACE(gentle);
    const Tensors beside = hooked(gentle);
    const OneStream one;
    expect_same_bits(beside, hooked(gentle));
  }
}

TEST(GpuSideBranchTest, a_hook_that_throws_ends_the_recording_alone) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const auto image = [&](std::uint64_t seed) {
    return testing::random_tensor({4, 64, 7, 7}, seed,
                                  {.dtype = bfloat16, .format = MemoryFormat::ChannelsLast})
        .to(gpu)
        .set_requires_grad();
  };
  const Tensor x = image(1), direction = image(2).detach();
  Tensor weight = testing::random_tensor({64, 64, 1, 1}, 3, {.dtype = float32}).to(gpu).set_requires_grad();
  bool fails = false;
  const auto step = [&] {
    weight.zero_grad();
    Tensor y = x * 0.5;
    y.register_hook([&](const Tensor&) {
      if (fails) throw std::runtime_error("a hook");
      return Tensor();
    });
    conv2d(y, weight, {}).backward(direction);
  };
  step();
  const Tensor wanted = weight.grad().clone();
  fails = true;
  EXPECT_THROW(detail::cuda::record_launches(gpu, step), std::runtime_error);
  fails = false;
  const std::unique_ptr<detail::cuda::Recording> recorded = detail::cuda::record_launches(gpu, step);
  recorded->replay();
  expect_same_bits({weight.grad()}, {wanted});
}

}  // namespace
}  // namespace lamella::test
