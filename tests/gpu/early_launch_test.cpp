// Kernels that begin before the one ahead of them has ended, against the same launched plainly.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "core/cuda/launch.h"
#include "core/cuda_backend.h"
#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

using detail::cuda::allow_early_launches;
using detail::cuda::launches_early;

class PlainLaunches {
 public:
  PlainLaunches() { allow_early_launches(false); }
  ~PlainLaunches() { allow_early_launches(true); }
  PlainLaunches(const PlainLaunches&) = delete;
  PlainLaunches& operator=(const PlainLaunches&) = delete;
};

/// `work` with launches that are early, and plain ones.
void expect_same_bits(const std::function<Tensors()>& work) {
  const Tensors early = work();
  const PlainLaunches plain;
  ASSERT_FALSE(launches_early(Device::cuda()));
  const Tensors wanted = work();
  ASSERT_EQ(early.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i)
    EXPECT_TRUE(testing::equal_bits(early[i].to(Device::cpu()), wanted[i].to(Device::cpu())).ok)
        << i << ": " << testing::equal_bits(early[i].to(Device::cpu()), wanted[i].to(Device::cpu())).message;
}

/// Kernels that read all of what the last one wrote, from places that other blocks wrote, and whose memory
/// goes round: of one block, of a few and of many waves. What differs in one place differs more with each
/// link, and in all places.
Tensor chain(const Tensor& start, int links) {
  const NoGrad no_grad;
  Tensor x = start;
  for (int i = 0; i < links; ++i) {
    x = abs(x - mean(x, {.axes = {0}, .keep_axes = true}) * 0.1) * 1.5 - 1.0;
    x = x.transpose(0, 1).contiguous();
    if (i % 3 == 0) x = x + softmax(x, 1) * 0.1;
    if (i % 5 == 0) x = x - mean(x) * 0.1;
  }
  return x;
}

TEST(GpuEarlyLaunchTest, launches_are_early_from_compute_capability_9_on) {
  LAMELLA_NEEDS_GPU();
  if (std::getenv("LAMELLA_EARLY_LAUNCH") != nullptr) GTEST_SKIP() << "LAMELLA_EARLY_LAUNCH is set";
  const Device gpu = Device::cuda();
  int major = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu.index), cudaSuccess);
  EXPECT_EQ(launches_early(gpu), major >= 9) << "unless this build is for older GPUs";
}

TEST(GpuEarlyLaunchTest, a_chain_gives_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  for (const std::int64_t size : {7, 64, 301, 1024}) {
    SCOPED_TRACE(size);
    const Tensor start = testing::random_tensor({size, size}, 1, {.dtype = float32}).to(gpu);
    expect_same_bits([&] { return Tensors{chain(start, 120)}; });
  }
}

TEST(GpuEarlyLaunchTest, a_recorded_chain_gives_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  for (const std::int64_t size : {7, 64, 301}) {
    SCOPED_TRACE(size);
    const Tensor start = testing::random_tensor({size, size}, 2, {.dtype = float32}).to(gpu);
    expect_same_bits([&] {
      chain(start, 2);  // what is loaded on first use
      Tensor state = start.clone(), result;
      synchronize(gpu);
      const std::unique_ptr<detail::cuda::Recording> recorded = detail::cuda::record_launches(gpu, [&] {
        result = chain(state, 60);
        // The next replay's first kernels read what this one's last write.
        state.copy_(result * 0.5 + start * 0.5);
      });
      for (int i = 0; i < 10; ++i) recorded->replay();
      return Tensors{state.clone(), result.clone()};
    });
  }
}

TEST(GpuEarlyLaunchTest, several_streams_give_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  const Tensor start = testing::random_tensor({256, 256}, 3, {.dtype = float32}).to(gpu);
  expect_same_bits([&] {
    const Stream main = current_stream(gpu), side = new_stream(gpu);
    Tensor x = start;
    for (int i = 0; i < 20; ++i) {
      wait_stream(side, main);
      Tensor beside;
      {
        const StreamGuard guard(side);
        beside = chain(x, 3);
        x.record_stream(side);
      }
      const Tensor here = chain(x, 4);
      wait_stream(main, side);
      beside.record_stream(main);
      x = here + beside;
    }
    synchronize(gpu);
    return Tensors{x};
  });
}

/// Everything that a training ends with, after steps of a network that has blocks of all kinds.
Tensors trained(MemoryFormat format, bool capture, std::optional<DType> autocast) {
  const Device gpu = Device::cuda();
  manual_seed(5);
  auto net = models::mobilenet_v2({.classes = 10, .small_stem = true});
  net.to(gpu);
  net.to(format);
  optim::SGD sgd(net.parameters(), {.lr = 0.05, .momentum = 0.9, .weight_decay = 4e-5});
  optim::Ema ema(net);
  train::Step step(
      net, sgd,
      {.clip_grad_norm = 5, .check_every = 0, .ema = &ema, .capture = capture, .autocast = autocast});
  std::vector<std::int64_t> classes(32);
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int64_t>(i % 10);
  const Tensor labels = from_vector(classes, {32}).to(gpu);
  Tensors end;
  for (std::uint64_t i = 0; i < 12; ++i) {
    const Tensor images =
        testing::random_tensor({32, 3, 32, 32}, i % 4, {.dtype = float32, .format = format}).to(gpu);
    end.push_back(step(images, labels).loss.clone());
  }
  for (const auto& [key, tensor] : net.state_dict()) end.push_back(tensor);
  return end;
}

TEST(GpuEarlyLaunchTest, a_training_step_gives_the_same_bits) {
  LAMELLA_NEEDS_GPU();
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const bool capture : {false, true})
      for (const std::optional<DType> autocast : {std::optional<DType>(), std::optional(DType::BFloat16)}) {
        SCOPED_TRACE(std::string(format == MemoryFormat::Contiguous ? "NCHW" : "NHWC") +
                     (capture ? ", captured" : "") + (autocast ? ", bfloat16" : ""));
        expect_same_bits([&] { return trained(format, capture, autocast); });
      }
}

}  // namespace
}  // namespace lamella::test
