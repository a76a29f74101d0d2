#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "devices.h"
#include "lamella/lamella.h"
#include "tensor/dispatch.h"
#include "tensor/door.h"
#include "tensor/kernels/part_sums.h"

// What operators leave for one another on a GPU, against the same without, and against float64.
namespace lamella::test {
namespace {

using detail::FusionGuard;

struct Gradients {
  std::vector<std::pair<std::string, Tensor>>
      tensors;  ///< output, running statistics, gradients; float64, CPU
  detail::PendingCounters counted;
};

/// Some inverted residuals, with what stands between their operators given by `between`.
template <class Between>
Gradients run_blocks(Device device, DType dtype, bool fused, const Between& between, Activation activation,
                     std::int64_t squeezed, std::uint64_t seed) {
  const FusionGuard guard(fused);
  manual_seed(seed);
  const InvertedResidualOptions same{
      .kernel = 3, .stride = 1, .squeezed = squeezed, .activation = activation};
  InvertedResidualOptions half = same;
  half.stride = 2;
  InvertedResidual first(16, 24, half), second(24, 24, same), third(24, 32, same);
  ConvNormActivation last(32, 64, {.kernel = 1, .activation = activation});
  Tensor x = testing::random_tensor({4, 16, 14, 10}, seed + 7,
                                    {.dtype = DType::Float64, .format = MemoryFormat::ChannelsLast})
                 .to(DType::BFloat16)
                 .to(dtype)
                 .to(device)
                 .clone();
  x.set_requires_grad(true);
  Gradients result;
  std::vector<std::pair<std::string, Tensor>> parameters;
  const auto use = [&](Module& module, const std::string& name) {
    module.to(device);
    // The same numbers in each type.
    module.to(DType::BFloat16);
    module.to(dtype);
    for (const auto& [key, parameter] : module.named_parameters())
      parameters.emplace_back(name + key, parameter);
  };
  use(first, "first."), use(second, "second."), use(third, "third."), use(last, "last.");
  const detail::PendingCounters before = detail::pending_counters();
  const Tensor y = last(between(third(between(second(between(first(x)))))));
  const Tensor r =
      testing::random_tensor(y.shape(), 99, {.dtype = DType::Float64, .format = y.memory_format()});
  y.backward(r.to(DType::BFloat16).to(dtype).to(device));
  const detail::PendingCounters after = detail::pending_counters();
  result.counted = {after.folded - before.folded, after.applied - before.applied};
  const auto keep = [&](const std::string& name, const Tensor& tensor) {
    result.tensors.emplace_back(name, tensor.detach().to(Device::cpu()).to(DType::Float64));
  };
  keep("output", y);
  keep("input's gradient", x.grad());
  for (const auto& [name, parameter] : parameters) keep(name, parameter.grad());
  for (const auto& [key, buffer] : last.state_dict())
    if (key.find("running") != std::string::npos) keep(key, buffer);
  return result;
}

double relative_error(const Tensor& actual, const Tensor& exact) {
  const auto a = actual.to_vector<double>(), e = exact.to_vector<double>();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference += (a[i] - e[i]) * (a[i] - e[i]), size += e[i] * e[i];
  // Running means of what has been normalised are all but zero.
  const double least = 1e-4 * static_cast<double>(a.size());
  return std::sqrt(difference / std::max(size, least));
}

template <class Between>
void expect_as_good(const Between& between, bool folds, Activation activation = Activation::ReLU6,
                    std::int64_t squeezed = 0) {
  // The root mean square over some seeds: in one, a small tensor's rounding may fall out well by chance.
  constexpr int kSeeds = 12;
  std::vector<std::string> names;
  std::vector<double> squares_apart, squares_fused;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const auto run = [&](Device device, DType dtype, bool fused) {
      return run_blocks(device, dtype, fused, between, activation, squeezed, seed);
    };
    const Gradients exact = run(Device::cpu(), DType::Float64, false),
                    apart = run(Device::cuda(), DType::BFloat16, false),
                    fused = run(Device::cuda(), DType::BFloat16, true);
    if (folds) {
      EXPECT_GE(fused.counted.folded, 3u);
    }
    ASSERT_EQ(fused.tensors.size(), exact.tensors.size());
    names.resize(exact.tensors.size());
    squares_apart.resize(names.size()), squares_fused.resize(names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      const auto& [name, tensor] = exact.tensors[i];
      names[i] = name;
      squares_apart[i] += std::pow(relative_error(apart.tensors[i].second, tensor), 2);
      squares_fused[i] += std::pow(relative_error(fused.tensors[i].second, tensor), 2);
    }
  }
  double sum_apart = 0, sum_fused = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double of_apart = std::sqrt(squares_apart[i] / kSeeds),
                 of_fused = std::sqrt(squares_fused[i] / kSeeds);
    // A bias ahead of another norm has no gradient but what rounding leaves.
    if (of_apart > 0.5) {
      EXPECT_LE(of_fused, 2 * of_apart) << names[i];
      continue;
    }
    EXPECT_LE(of_fused, 1.25 * of_apart + 1e-3) << names[i] << ", apart " << of_apart;
    sum_apart += of_apart, sum_fused += of_fused;
  }
  EXPECT_LE(sum_fused, 1.1 * sum_apart);
}

TEST(GpuFusionTest, blocks_are_as_exact_as_operators_by_themselves) {
  LAMELLA_NEEDS_GPU();
  expect_as_good([](const Tensor& x) { return x; }, true);
}

TEST(GpuFusionTest, an_operator_of_ones_own_stands_in_between) {
  LAMELLA_NEEDS_GPU();
  expect_as_good([](const Tensor& x) { return x * 0.5 + x; }, true);
}

TEST(GpuFusionTest, blocks_with_hardswish_and_squeeze_excite_are_as_exact) {
  LAMELLA_NEEDS_GPU();
  const auto nothing = [](const Tensor& x) { return x; };
  expect_as_good(nothing, true, Activation::Hardswish);
  expect_as_good(nothing, true, Activation::Hardswish, 8);
  expect_as_good(nothing, true, Activation::ReLU, 8);
}

TEST(GpuFusionTest, sums_of_parts_are_those_of_the_cpu) {
  LAMELLA_NEEDS_GPU();
  // More than one launch takes, of few and of many parts, with gaps between rows.
  std::vector<Tensor> from, wanted, got;
  std::vector<detail::PartSum> sums[2];
  for (std::int64_t i = 0; i < 170; ++i) {
    const std::int64_t parts = i % 5 == 0 ? 300 + i : 1 + i % 40, rows = 1 + i * 7 % 60, row = 1 + i % 11;
    const std::int64_t step = row + i % 2;
    const auto seed = static_cast<std::uint64_t>(i + 1);
    const Tensor numbers = testing::random_tensor({parts, rows, step}, seed, {.dtype = float32});
    from.push_back(numbers);
    from.push_back(numbers.to(Device::cuda()));
    wanted.push_back(testing::random_tensor({rows, row}, 500 + seed, {.dtype = float32}));
    got.push_back(wanted.back().to(Device::cuda()));
    const auto write = i % 3 == 0 ? detail::GradientWrite::Accumulate : detail::GradientWrite::Overwrite;
    for (const bool gpu : {false, true})
      sums[gpu].push_back({detail::read(from[from.size() - (gpu ? 1 : 2)]).as<float>(), parts, rows, row,
                           step, detail::write(gpu ? got.back() : wanted.back(), "test"), write});
  }
  cpu::add_part_sums(sums[0]);
  cuda::add_part_sums(sums[1]);
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_LE(relative_error(got[i].to(Device::cpu()), wanted[i]), 2e-7) << i;
}

TEST(GpuFusionTest, gradients_are_added_to_those_that_are_there) {
  LAMELLA_NEEDS_GPU();
  manual_seed(5);
  InvertedResidual block(16, 16, {.kernel = 3, .stride = 1});
  block.to(Device::cuda());
  block.to(MemoryFormat::ChannelsLast);
  const Tensor x =
      testing::random_tensor({4, 16, 12, 12}, 1, {.dtype = float32, .format = MemoryFormat::ChannelsLast})
          .to(Device::cuda());
  const auto backward = [&](int times) {
    for (Tensor parameter : block.parameters()) parameter.zero_grad();
    for (int i = 0; i < times; ++i) {
      Tensor y;
      {
        const Autocast mixed(bfloat16);
        y = block(x);
      }
      y.backward(ones_like(y));
    }
    Tensors gradients;
    for (const Tensor& parameter : block.parameters())
      gradients.push_back(parameter.grad().to(Device::cpu()).clone());
    return gradients;
  };
  const Tensors once = backward(1), twice = backward(2), again = backward(1);
  for (std::size_t i = 0; i < once.size(); ++i) {
    EXPECT_EQ(once[i].dtype(), float32);
    EXPECT_TRUE(testing::equal_bits(again[i], once[i]).ok) << i;
    EXPECT_LE(relative_error(twice[i], once[i] * 2.0), 1e-6) << i;
  }
  for (const auto& [key, buffer] : block.named_buffers())
    if (key.ends_with("num_batches_tracked")) {
      EXPECT_EQ(buffer.item<std::int64_t>(), 4) << key;
    }
}

TEST(GpuFusionTest, who_looks_at_a_gradient_sees_all_of_it) {
  LAMELLA_NEEDS_GPU();
  const auto gradient = [](bool fused, bool hooked) {
    const FusionGuard guard(fused);
    manual_seed(5);
    ConvNormActivation expand(16, 32, {.kernel = 1, .activation = Activation::ReLU6});
    Conv2d project(32, 16, 1, {.bias = false});
    expand.to(Device::cuda()), project.to(Device::cuda());
    expand.to(DType::BFloat16), project.to(DType::BFloat16);
    const Tensor x = testing::random_tensor({2, 16, 8, 8}, 1,
                                            {.dtype = DType::BFloat16, .format = MemoryFormat::ChannelsLast})
                         .to(Device::cuda());
    Tensor a = expand(x);
    Tensor seen;
    if (hooked)
      a.register_hook([&](const Tensor& g) {
        seen = g.clone();
        return Tensor();
      });
    else
      a.retain_grad();
    sum(project(a)).backward();
    return (hooked ? seen : a.grad()).to(Device::cpu()).to(DType::Float32);
  };
  for (const bool hooked : {false, true}) {
    const Tensor apart = gradient(false, hooked), fused = gradient(true, hooked);
    EXPECT_LE(relative_error(fused.to(DType::Float64), apart.to(DType::Float64)), 5e-3) << hooked;
  }
}

}  // namespace
}  // namespace lamella::test
