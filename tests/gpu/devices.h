#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "lamella/autograd/autograd.h"
#include "lamella/core/device.h"
#include "lamella/tensor/create.h"
#include "lamella/testing.h"
#include "tests/support/device.h"
#include "tests/support/error_bound.h"

/// Comparison of a GPU with the CPU.
namespace lamella::test {

using Function = std::function<Tensor(const Tensors&)>;

/// A function's result, and the gradients of the inputs that want one, after ⟨result, r⟩ for a random r.
struct Run {
  std::vector<Tensor> tensors;
  std::vector<std::string> names;
};

inline Run run(const Function& function, const Tensors& given, Device device, DType dtype) {
  Tensors inputs;
  for (const Tensor& input : given) {
    Tensor x = is_floating(input.dtype()) ? input.detach().to(dtype) : input.detach();
    x = x.to(device).clone();
    if (input.requires_grad()) x.set_requires_grad(true);
    inputs.push_back(x);
  }
  const Tensor y = function(inputs);
  Run result;
  result.tensors.push_back(y.detach());
  result.names.emplace_back("result");
  if (!y.requires_grad()) return result;
  const Tensor r =
      testing::random_tensor(y.shape(), 99, {.dtype = DType::Float64, .format = y.memory_format()});
  y.backward(r.to(DType::BFloat16).to(y.dtype()).to(device));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!given[i].requires_grad()) continue;
    result.tensors.push_back(inputs[i].grad());
    result.names.push_back("gradient of input " + std::to_string(i));
  }
  return result;
}

/// The largest |a − b|, infinite where one is NaN and the other is not.
inline double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    const double difference = std::abs(x[i] - y[i]);
    if (!(difference <= largest)) largest = std::isnan(difference) ? INFINITY : difference;
  }
  return largest;
}
inline double largest_magnitude(const Tensor& a) {
  double largest = 0;
  for (const double x : a.to_vector<double>())
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  return largest;
}

/// Runs `function` on both devices in `dtype` and, on the CPU, in float64. The GPU may be off from float64 by
/// three times what the CPU is, plus `units` roundings of the largest number, or of `terms` if numbers are
/// differences of larger ones; integers must be equal. Two runs on the GPU must give the same bits.
inline void expect_same_on_gpu(const Function& function, const Tensors& inputs, DType dtype, double units = 8,
                               double terms = 0) {
  Tensors rounded;
  for (const Tensor& input : inputs) {
    Tensor x = input;
    if (is_floating(input.dtype())) {
      x = input.detach().to(dtype).to(DType::Float64);
      if (input.requires_grad()) x.set_requires_grad(true);
    }
    rounded.push_back(x);
  }
  const Run exact = run(function, rounded, Device::cpu(), DType::Float64);
  const Run cpu = run(function, rounded, Device::cpu(), dtype);
  const Run gpu = run(function, rounded, Device::cuda(), dtype);
  const Run again = run(function, rounded, Device::cuda(), dtype);
  ASSERT_EQ(gpu.tensors.size(), cpu.tensors.size());
  for (std::size_t i = 0; i < cpu.tensors.size(); ++i) {
    SCOPED_TRACE(cpu.names[i] + " in " + name(dtype));
    const Tensor &got = gpu.tensors[i], &wanted = cpu.tensors[i];
    ASSERT_TRUE(got.defined() && got.device().is_cuda());
    EXPECT_EQ(got.shape(), wanted.shape());
    EXPECT_EQ(got.dtype(), wanted.dtype());
    EXPECT_EQ(got.memory_format(), wanted.memory_format());
    const Tensor bits = got.to(Device::cpu());
    EXPECT_TRUE(testing::equal_bits(again.tensors[i].to(Device::cpu()), bits).ok) << "another run differs";
    if (!is_floating(got.dtype())) {
      EXPECT_TRUE(testing::equal_bits(bits, wanted).ok) << testing::equal_bits(bits, wanted).message;
      continue;
    }
    const double cpu_off = largest_difference(wanted, exact.tensors[i]);
    const double gpu_off = largest_difference(bits, exact.tensors[i]);
    const double scale = std::max(terms, largest_magnitude(exact.tensors[i]));
    const double smallest = dtype == DType::Float16 ? std::ldexp(1, -24) : 0;
    EXPECT_LE(gpu_off, 3 * cpu_off + units * roundoff(got.dtype()) * scale + smallest)
        << "of numbers up to " << scale << "; the CPU is off by " << cpu_off;
  }
}

}  // namespace lamella::test
