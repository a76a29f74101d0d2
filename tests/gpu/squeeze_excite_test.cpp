#include "layers/squeeze_excite/squeeze_excite.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "devices.h"
#include "lamella/lamella.h"
#include "layers/norm/batch_norm_activate.h"
#include "tensor/door.h"

// Squeeze-and-excitation by kernels of its own on a GPU, against operators by themselves in float64.
namespace lamella::test {
namespace {

using detail::FusionGuard;
using detail::PendingActivation;

double relative_error(const Tensor& actual, const Tensor& exact) {
  const auto a = actual.to_vector<double>(), e = exact.to_vector<double>();
  double difference = 0, size = 1e-12;
  for (std::size_t i = 0; i < a.size(); ++i) difference += (a[i] - e[i]) * (a[i] - e[i]), size += e[i] * e[i];
  return std::sqrt(difference / size);
}

struct Setting {
  Shape shape;
  PendingActivation activation;
  bool fused;
  bool reads_twice;
  bool pools = false;
};

/// y and the gradients of x, of the norm's parameters and of what the gate is made of.
Tensors run(const Setting& of, Device device, DType dtype) {
  const FusionGuard guard(of.fused);
  const auto make = [&](const Shape& shape, std::uint64_t seed, MemoryFormat format = {}) {
    Tensor made = testing::random_tensor(shape, seed, {.dtype = DType::Float64, .format = format})
                      .to(DType::BFloat16)
                      .to(dtype)
                      .to(device)
                      .clone();
    return made.set_requires_grad();
  };
  const std::int64_t channels = of.shape[1];
  const Tensor x = make(of.shape, 1, MemoryFormat::ChannelsLast), weight = make({channels}, 2),
               bias = make({channels}, 3), slope = make({1, channels, 1, 1}, 4);
  const Tensor a = detail::batch_norm_activate(x, weight, bias, {}, {}, of.activation);
  const auto numbers_of = [&](const Tensor& means) { return means * slope * 4.0; };
  Tensor y;
  if (detail::can_squeeze(a)) {
    const detail::Squeezed squeezed = detail::squeeze(a);
    y = detail::excite(squeezed, numbers_of(squeezed.means), detail::Gate::Hardsigmoid);
  } else {
    EXPECT_FALSE(of.fused);
    y = a * hardsigmoid(numbers_of(mean(a, {.axes = {2, 3}, .keep_axes = true})));
  }
  if (of.reads_twice) y = y + a * 0.5;
  if (of.pools) y = adaptive_avg_pool2d(a, 1);
  const Tensor r =
      testing::random_tensor(y.shape(), 9, {.dtype = DType::Float64, .format = MemoryFormat::ChannelsLast});
  y.backward(r.to(DType::BFloat16).to(dtype).to(device));
  Tensors results;
  for (const Tensor& tensor : {y.detach(), x.grad(), weight.grad(), bias.grad(), slope.grad()})
    if (tensor.defined()) results.push_back(tensor.to(Device::cpu()).to(DType::Float64));
  return results;
}

TEST(GpuSqueezeExciteTest, is_as_exact_as_operators_by_themselves) {
  LAMELLA_NEEDS_GPU();
  // Several tiles of channels, ends of rows, one, few and many pixels.
  const Shape shapes[] = {{5, 72, 28, 28}, {3, 520, 7, 7}, {4, 120, 14, 13},
                          {2, 8, 1, 3},    {7, 16, 40, 1}, {40, 264, 1, 1}};
  for (const Shape& shape : shapes)
    for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16})
      for (const PendingActivation activation :
           {PendingActivation::None, PendingActivation::Relu, PendingActivation::Relu6,
            PendingActivation::Hardswish, PendingActivation::Silu})
        for (const auto& [twice, pools] : {std::pair(false, false), {true, false}, {false, true}}) {
          const Setting alone{shape, activation, false, twice, pools},
              together{shape, activation, true, twice, pools};
          const Tensors exact = run(alone, Device::cpu(), DType::Float64),
                        apart = run(alone, Device::cuda(), dtype),
                        fused = run(together, Device::cuda(), dtype),
                        again = run(together, Device::cuda(), dtype);
          const double least = dtype == DType::Float32 ? 2e-6 : dtype == DType::Float16 ? 2e-3 : 1.5e-2;
          for (std::size_t i = 0; i < exact.size(); ++i) {
            EXPECT_LE(relative_error(fused[i], exact[i]),
                      std::max(least, 1.5 * relative_error(apart[i], exact[i])))
                << i << ' ' << shape.to_string() << ' ' << name(dtype) << ' ' << static_cast<int>(activation)
                << ' ' << twice << pools;
            EXPECT_TRUE(testing::equal_bits(again[i], fused[i]).ok) << i;
          }
        }
}

TEST(GpuSqueezeExciteTest, memory_that_begins_anywhere_will_do) {
  LAMELLA_NEEDS_GPU();
  const auto gradient = [](Device device) {
    Tensor x = testing::random_tensor({2, 16, 5, 5}, 1,
                                      {.dtype = DType::Float32, .format = MemoryFormat::ChannelsLast})
                   .to(device);
    x.set_requires_grad();
    // A gradient whose first number is the third of its memory.
    const Tensor all = testing::random_tensor({2 * 16 * 5 * 5 + 3}, 2, {.dtype = DType::Float32}).to(device);
    const Tensor r = all.slice(0, {3, {}, 1}).reshape({2, 5, 5, 16}).permute({0, 3, 1, 2});
    Tensor y;
    const auto gate_of = [](const Tensor& means) { return sigmoid(means); };
    if (detail::can_squeeze(x)) {
      const detail::Squeezed squeezed = detail::squeeze(x);
      y = detail::excite(squeezed, gate_of(squeezed.means));
    } else {
      y = x * gate_of(mean(x, {.axes = {2, 3}, .keep_axes = true}));
    }
    y.backward(r);
    return x.grad().to(Device::cpu()).to(DType::Float64);
  };
  EXPECT_LE(relative_error(gradient(Device::cuda()), gradient(Device::cpu())), 1e-5);
}

}  // namespace
}  // namespace lamella::test
