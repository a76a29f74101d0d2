#include "layers/squeeze_excite/squeeze_excite.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "lamella/autograd/autograd.h"
#include "lamella/layers/activation.h"
#include "lamella/layers/conv.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing.h"
#include "lamella/testing/matchers.h"
#include "layers/norm/batch_norm_activate.h"

// The operator by itself, on the CPU, where blocks do without it, against what it stands for.
namespace lamella {
namespace {

using detail::FusionGuard;
using detail::PendingActivation;
using testing::IsClose;
using testing::random_tensor;

struct Parameters {
  explicit Parameters(std::int64_t channels) {
    std::uint64_t seed = 10;
    for (Tensor* t : {&fc1, &fc2, &weight, &bias}) {
      *t = random_tensor(t == &fc1   ? Shape{3, channels, 1, 1}
                         : t == &fc2 ? Shape{channels, 3, 1, 1}
                                     : Shape{channels},
                         ++seed, {.dtype = DType::Float64});
      t->set_requires_grad();
    }
  }
  Tensor numbers(const Tensor& means) const { return conv2d(relu(conv2d(means, fc1)), fc2); }
  Tensor fc1, fc2, weight, bias;
};

Tensor squeezed(const Parameters& p, const Tensor& x, bool fused,
                detail::Gate gate = detail::Gate::Hardsigmoid) {
  const bool hard = gate == detail::Gate::Hardsigmoid;
  if (!fused) {
    const Tensor numbers = p.numbers(mean(x, {.axes = {2, 3}, .keep_axes = true}));
    return x * (hard ? hardsigmoid(numbers) : sigmoid(numbers));
  }
  const detail::Squeezed s = detail::squeeze(x);
  const Tensor numbers = p.numbers(s.means);
  return detail::excite(s, hard ? numbers : sigmoid(numbers), gate);
}

TEST(SqueezeExciteTest, has_the_numbers_and_gradients_of_operators_by_themselves) {
  for (const MemoryFormat format : {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast})
    for (const PendingActivation activation :
         {PendingActivation::None, PendingActivation::Relu, PendingActivation::Relu6,
          PendingActivation::Hardswish, PendingActivation::Silu})
      for (const std::string reader : {"alone", "with another", "with another behind", "hooked"}) {
        Tensors results[2];
        for (const bool fused : {false, true}) {
          const Parameters p(5);
          const Tensor x = random_tensor({3, 5, 4, 6}, 1,
                                         {.dtype = DType::Float64, .format = format, .requires_grad = true});
          Tensor a = detail::batch_norm_activate(x * 3.0, p.weight, p.bias, {}, {}, activation);
          Tensor seen;
          if (reader == "hooked")
            a.register_hook([&](const Tensor& g) {
              seen = g.clone();
              return Tensor();
            });
          Tensor y;
          if (reader == "with another") y = a * a;
          const auto gate = reader == "alone" ? detail::Gate::Hardsigmoid : detail::Gate::Plain;
          y = y.defined() ? squeezed(p, a, fused, gate) + y : squeezed(p, a, fused, gate);
          if (reader == "with another behind") y = y + a * 2.0;
          y.backward(random_tensor(y.shape(), 2, {.dtype = DType::Float64, .format = format}));
          results[fused] = {y.detach(), x.grad(), p.fc1.grad(), p.fc2.grad(), p.weight.grad(), p.bias.grad()};
          if (reader == "hooked") results[fused].push_back(seen);
        }
        for (std::size_t i = 0; i < results[0].size(); ++i)
          EXPECT_THAT(results[1][i], IsClose(results[0][i], {.relative = 1e-10, .absolute = 1e-11}))
              << i << ' ' << name(format) << ' ' << static_cast<int>(activation) << ' ' << reader;
      }
}

TEST(SqueezeExciteTest, means_alone_have_the_gradient_of_a_mean) {
  for (const PendingActivation activation : {PendingActivation::Relu, PendingActivation::Hardswish}) {
    Tensors results[2];
    for (const bool fused : {false, true}) {
      const Parameters p(5);
      const Tensor x = random_tensor(
          {3, 5, 4, 6}, 1,
          {.dtype = DType::Float64, .format = MemoryFormat::ChannelsLast, .requires_grad = true});
      const Tensor a = detail::batch_norm_activate(x, p.weight, p.bias, {}, {}, activation);
      const Tensor y = fused ? detail::plane_means("means", a) : mean(a, {.axes = {2, 3}, .keep_axes = true});
      y.backward(random_tensor(y.shape(), 2, {.dtype = DType::Float64}));
      results[fused] = {y.detach(), x.grad(), p.weight.grad(), p.bias.grad()};
    }
    for (std::size_t i = 0; i < results[0].size(); ++i)
      EXPECT_THAT(results[1][i], IsClose(results[0][i], {.relative = 1e-10, .absolute = 1e-11})) << i;
  }
}

TEST(SqueezeExciteTest, runs_again_and_without_some_gradients) {
  const Parameters p(4);
  const Tensor leaf = random_tensor({2, 4, 3, 3}, 1, {.dtype = DType::Float64});
  Tensor gradients[2], weights[2], of_fc[2];
  for (const bool fused : {false, true}) {
    Tensor x = leaf.clone();
    x.set_requires_grad();
    const auto block = [&](const Tensors& in) { return squeezed(p, hardswish(in[0] * 2.0), fused); };
    sum(recompute(block, {x})).backward();
    gradients[fused] = x.grad();
    of_fc[fused] = gradients_of({sum(squeezed(p, leaf, fused))}, {p.fc1})[0];
    const Tensor y = sum(squeezed(p, x, fused));
    weights[fused] = gradients_of({y}, {x})[0];
  }
  EXPECT_THAT(gradients[1], IsClose(gradients[0], {.relative = 1e-11, .absolute = 1e-12}));
  EXPECT_THAT(weights[1], IsClose(weights[0], {.relative = 1e-11, .absolute = 1e-12}));
  EXPECT_THAT(of_fc[1], IsClose(of_fc[0], {.relative = 1e-11, .absolute = 1e-12}));
}

}  // namespace
}  // namespace lamella
