// More than 2^31 elements, and more than the card holds.
#include <gtest/gtest.h>

#include "devices.h"
#include "lamella/lamella.h"

namespace lamella::test {
namespace {

/// x[n,c,h,w] = (a[n,c] + b[h,w]) · d[n,h], computed on the GPU: as irregular as random numbers, and a part
/// costs only itself.
struct Formula {
  Tensor a, b, d;

  Formula(const Shape& s, std::uint64_t seed)
      : a(testing::random_tensor({s[0], s[1], 1, 1}, seed, {.dtype = bfloat16})),
        b(testing::random_tensor({1, 1, s[2], s[3]}, seed + 1, {.dtype = bfloat16})),
        d(testing::random_tensor({s[0], 1, s[2], 1}, seed + 2, {.dtype = bfloat16})) {}

  Tensor on_gpu(const Shape& shape, MemoryFormat format) const {
    const Device gpu = Device::cuda();
    Tensor x = empty(shape, {.dtype = bfloat16, .device = gpu, .format = format});
    x.copy_(a.to(gpu));
    for (std::int64_t n = 0; n < shape[0]; ++n) {  // in parts: no second tensor of this size
      const Tensor part = x.slice(0, {n, n + 1});
      x.slice(0, {n, n + 1}).copy_((part + b.to(gpu)) * d.slice(0, {n, n + 1}).to(gpu));
    }
    return x;
  }
  Tensor plane(std::int64_t n, std::int64_t c) const {
    return ((a.slice(0, {n, n + 1}).slice(1, {c, c + 1}) + b) * d.slice(0, {n, n + 1})).to(float64);
  }
};

TEST(GpuLargeTest, depthwise_beyond_two_to_the_31_elements) {
  LAMELLA_NEEDS_GPU();
  const Shape shape{33, 65, 1024, 1003};
  ASSERT_GT(shape.product(), std::int64_t{1} << 31);
  const Device gpu = Device::cuda();
  const std::int64_t channels = shape[1];
  // x, y and their gradients, in blocks up to an eighth larger, and small ones.
  const std::size_t needed = 5 * sizeof(BFloat16) * static_cast<std::size_t>(shape.product());
  const Formula fx(shape, 1), fg(shape, 11);
  const Tensor weight = testing::random_tensor({channels, 1, 3, 3}, 5, {.dtype = float32}),
               bias = testing::random_tensor({channels}, 6, {.dtype = float32});
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast}) {
    SCOPED_TRACE(name(format));
    Tensor x, w = weight.to(gpu).set_requires_grad(), b = bias.to(gpu).set_requires_grad(), y;
    try {
      x = fx.on_gpu(shape, format).set_requires_grad();
      y = depthwise_conv2d(x, w, b, {.padding = 1});
      y.backward(fg.on_gpu(shape, format));
    } catch (const OutOfMemoryError& error) {
      if (error.report().capacity >= needed) throw;
      GTEST_SKIP() << "too little memory: " << error.what();
    }
    const Tensor result = y.detach();
    const auto part = [](const Tensor& t, std::int64_t n, std::int64_t c) {
      return t.slice(0, {n, n + 1}).slice(1, {c, c + 1}).to(Device::cpu()).to(float64);
    };
    for (const auto& [n, c] :
         {std::pair(0, 0), std::pair(15, 31), std::pair(31, 64), std::pair(32, 0), std::pair(32, 64)}) {
      SCOPED_TRACE(std::to_string(n) + ", " + std::to_string(c));
      const Tensor wc = weight.slice(0, {c, c + 1}).to(float64), bc = bias.slice(0, {c, c + 1}).to(float64);
      Tensor xc = fx.plane(n, c).set_requires_grad();
      const Tensor yc = depthwise_conv2d(xc, wc, bc, {.padding = 1});
      yc.backward(fg.plane(n, c));
      EXPECT_LE(testing::relative_error(part(result, n, c), yc.detach()), 0.003);
      EXPECT_LE(testing::relative_error(part(x.grad(), n, c), xc.grad()), 0.003);
    }
    for (const std::int64_t c : {std::int64_t{0}, std::int64_t{64}}) {
      Tensor wc = weight.slice(0, {c, c + 1}).to(float64).detach().set_requires_grad(),
             bc = bias.slice(0, {c, c + 1}).to(float64).detach().set_requires_grad();
      for (std::int64_t n = 0; n < shape[0]; ++n)
        depthwise_conv2d(fx.plane(n, c), wc, bc, {.padding = 1}).backward(fg.plane(n, c));
      EXPECT_LE(testing::relative_error(w.grad().slice(0, {c, c + 1}), wc.grad()), 1e-4);
      EXPECT_LE(testing::relative_error(b.grad().slice(0, {c, c + 1}), bc.grad()), 1e-4);
    }
  }
  empty_cache(gpu);
}

TEST(GpuLargeTest, training_goes_on_with_a_smaller_batch_after_running_out) {
  LAMELLA_NEEDS_GPU();
  const Device gpu = Device::cuda();
  manual_seed(1);
  auto net = models::mobilenet_v2({.classes = 10});
  net.to(gpu);
  optim::SGD sgd(net.parameters(), {.lr = 0.01, .momentum = 0.9});
  train::Step step(net, sgd);
  const auto batch = [&](std::int64_t size) {
    return step(full({size, 3, 224, 224}, 0.5, {.device = gpu}),
                zeros({size}, {.dtype = int64, .device = gpu}))
        .loss.item();
  };
  const double before = batch(4);
  try {
    batch(20000);
    FAIL() << "a card with that much memory?";
  } catch (const OutOfMemoryError& error) {
    const auto& report = error.report();
    EXPECT_GT(report.requested, 0U);
    EXPECT_GT(report.capacity, std::size_t{1} << 30);
    EXPECT_LE(report.in_use + report.cached, report.capacity);
    EXPECT_GE(report.peak, report.in_use);
    EXPECT_NE(std::string(error.what()).find("cuda:0"), std::string::npos) << error.what();
  }
  const std::size_t in_use = memory_stats(gpu).in_use;
  double after = 0;
  for (int i = 0; i < 5; ++i) after = batch(4);
  EXPECT_LT(after, before);
  EXPECT_LT(memory_stats(gpu).in_use, in_use + (std::size_t{64} << 20));
  empty_cache(gpu);
}

}  // namespace
}  // namespace lamella::test
