#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "devices.h"
#include "lamella/lamella.h"
#include "layers/norm/channel_layout.h"
#include "layers/norm/kernels.h"
#include "tensor/door.h"

// A batch norm's gradient, whose kernels depend on the tensor's size and on what its producer left.
namespace lamella::test {
namespace {

double relative_error(const Tensor& actual, const Tensor& exact) {
  const auto a = actual.to(Device::cpu()).to(float64).to_vector<double>(),
             e = exact.to(float64).to_vector<double>();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference += (a[i] - e[i]) * (a[i] - e[i]), size += e[i] * e[i];
  return std::sqrt(difference / size);
}

/// Σ g and Σ g · (x − center) of every so many-th row: [parts,2,C].
Tensor sums_in_parts(const Tensor& g, const Tensor& x, const Tensor& statistics, std::int64_t parts,
                     DType dtype) {
  const std::int64_t channels = x.size(1);
  const auto rows_of = [&](const Tensor& t) {
    return t.permute({0, 2, 3, 1}).reshape({t.numel() / channels, channels}).to(float64).to_vector<double>();
  };
  const auto of_g = rows_of(g), of_x = rows_of(x), means = statistics.to_vector<double>();
  std::vector<double> sums(static_cast<std::size_t>(parts * 2 * channels));
  for (std::size_t i = 0; i < of_g.size(); ++i) {
    const auto n = static_cast<std::size_t>(channels);
    const std::size_t c = i % n, part = i / n % static_cast<std::size_t>(parts);
    sums[(part * 2) * n + c] += of_g[i];
    sums[(part * 2 + 1) * n + c] += of_g[i] * (of_x[i] - static_cast<float>(means[c]));
  }
  return from_vector(sums, {parts, 2, channels}).to(dtype);
}

struct Result {
  Tensor dx, weight, bias;
};

/// parts: how many sums are left in; none: 0. Parameters' gradients are added to what is there.
Result gradients_of(Device device, const Tensor& g, const Tensor& x, const Tensor& weight,
                    const Tensor& statistics, const Tensor& known, bool add) {
  const auto here = [&](const Tensor& t) { return t.to(device); };
  Result result{here(ones_like(x)), here(ones_like(weight)), here(ones_like(weight))};
  const Tensor gd = here(g), xd = here(x), wd = here(weight), sd = here(statistics);
  const Tensor kd = known.defined() ? here(known) : Tensor();
  const detail::ChannelLayout layout = detail::channel_layout(x.shape(), x.memory_format(), false);
  const auto how = add ? detail::GradientWrite::Accumulate : detail::GradientWrite::Overwrite;
  const detail::NormParameterGradients parameters{detail::write(result.weight, "test"),
                                                  detail::write(result.bias, "test"), how, how};
  const auto run = device.is_cuda() ? cuda::batch_norm_backward : cpu::batch_norm_backward;
  run(detail::read(gd), detail::read(xd), layout, detail::read(sd), detail::read(wd), true,
      kd.defined() ? detail::read(kd) : detail::ConstTensorView{}, parameters,
      detail::write(result.dx, "test"), how, {detail::PendingActivation::None, nullptr, nullptr, {}});
  return result;
}

TEST(GpuNormTest, gradients_of_small_tensors_are_those_of_the_cpu) {
  LAMELLA_NEEDS_GPU();
  // More rows than one block holds, all that it holds, few; channels that fill tiles, and that do not; more
  // parts and blocks than are added up by every block.
  const std::vector<Shape> shapes{{2, 8, 3, 3},    {8, 24, 13, 17},  {8, 72, 16, 16}, {9, 40, 16, 16},
                                  {16, 200, 4, 5}, {130, 320, 1, 1}, {3, 13, 5, 4},   {2, 3, 1, 1}};
  std::uint64_t seed = 1;
  for (const Shape& shape : shapes)
    for (const DType dtype : {float32, bfloat16, float16})
      for (const bool add : {false, true}) {
        const auto numbers = [&](const Shape& of) {
          return testing::random_tensor(
              of, ++seed,
              {.dtype = float64,
               .format = of.size() == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous});
        };
        const Tensor g = numbers(shape).to(dtype), x = numbers(shape).to(dtype),
                     weight = numbers({shape[1]}).to(float32),
                     statistics = cat({numbers({1, shape[1]}), numbers({1, shape[1]}) + 2.0});
        const Result wanted = gradients_of(Device::cpu(), g, x, weight, statistics, {}, add);
        for (const std::int64_t parts : {0, 1, 3, 16, 64, 65})
          for (const DType of_parts : {float64, float32}) {
            if (parts == 0 && of_parts == float32) continue;
            Tensor known;
            if (parts > 0) known = sums_in_parts(g, x, statistics, parts, of_parts);
            const auto run = [&] {
              return gradients_of(Device::cuda(), g, x, weight, statistics, known, add);
            };
            const Result got = run(), again = run();
            const std::string what = g.describe() + ", parts " + std::to_string(parts) + ' ' + name(of_parts);
            EXPECT_LE(relative_error(got.dx, wanted.dx), dtype == float32 ? 1e-6 : 5e-3) << what;
            EXPECT_LE(relative_error(got.weight, wanted.weight), 2e-6) << what;
            EXPECT_LE(relative_error(got.bias, wanted.bias), 2e-6) << what;
            for (const auto part : {&Result::dx, &Result::weight, &Result::bias})
              EXPECT_TRUE(
                  testing::equal_bits((again.*part).to(Device::cpu()), (got.*part).to(Device::cpu())).ok)
                  << what;
          }
      }
}

}  // namespace
}  // namespace lamella::test
