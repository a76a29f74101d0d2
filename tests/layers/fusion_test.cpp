#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "lamella/layers/activation.h"
#include "lamella/layers/conv.h"
#include "lamella/layers/norm.h"
#include "lamella/layers/pool.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/testing/matchers.h"
#include "layers/norm/batch_norm_activate.h"
#include "tensor/door.h"

namespace lamella {
namespace {

using detail::FusionGuard;
using testing::HasSameBits;
using testing::IsClose;
using testing::random_tensor;

constexpr MemoryFormat kFormats[] = {MemoryFormat::Contiguous, MemoryFormat::ChannelsLast};
using Activation = Tensor (*)(const Tensor&);

/// An inverted residual by hand: expand, depthwise, project, each normalised, with a shortcut.
struct Block {
  Block(DType dtype, MemoryFormat format, std::uint64_t seed) {
    const auto make = [&](const Shape& shape) {
      Tensor t = random_tensor(shape, ++seed, {.dtype = dtype});
      return t.set_requires_grad();
    };
    x = random_tensor({3, 4, 7, 6}, ++seed, {.dtype = dtype, .format = format});
    x.set_requires_grad();
    expand = make({12, 4, 1, 1});
    depthwise = make({12, 1, 3, 3});
    project = make({4, 12, 1, 1});
    for (Tensor* t : {&w1, &b1, &w2, &b2}) *t = make({12});
    for (Tensor* t : {&w3, &b3}) *t = make({4});
  }
  Tensor run(Activation activation, bool training) const {
    const BatchNormOptions options{.training = training};
    const auto norm = [&](const Tensor& t, const Tensor& w, const Tensor& b) {
      const TensorOptions like{.dtype = t.dtype()};
      return batch_norm(t, w, b, zeros({t.size(1)}, like), full({t.size(1)}, 1.5, like), options);
    };
    Tensor y = activation(norm(conv2d(x, expand), w1, b1));
    y = activation(norm(conv2d(y, depthwise, {}, {.padding = 1, .groups = 12}), w2, b2));
    return norm(conv2d(y, project), w3, b3) + x;
  }
  Tensors leaves() const { return {x, expand, depthwise, project, w1, b1, w2, b2, w3, b3}; }

  Tensor x, expand, depthwise, project, w1, b1, w2, b2, w3, b3;
};

TEST(FusionTest, an_inverted_residual_gives_the_same_numbers_fused_or_not) {
  for (const MemoryFormat format : kFormats)
    for (const DType dtype : {DType::Float64, DType::Float32})
      for (const Activation activation :
           {Activation(relu), Activation(relu6), Activation(hardswish), Activation(silu)})
        for (const bool training : {true, false}) {
          Tensors results[2];
          for (const bool fused : {false, true}) {
            const FusionGuard guard(fused);
            const Block block(dtype, format, 1);
            const Tensor y = block.run(activation, training);
            y.backward(random_tensor(y.shape(), 50, {.dtype = dtype}));
            results[fused].push_back(y);
            for (const Tensor& leaf : block.leaves()) results[fused].push_back(leaf.grad());
          }
          // Where an activation bends, a last digit can send the gradient the other way; these seeds have no
          // such place.
          const double u = dtype == DType::Float64 ? 1e-12 : 2e-4;
          for (std::size_t i = 0; i < results[0].size(); ++i)
            EXPECT_THAT(results[1][i], IsClose(results[0][i], {.relative = u, .absolute = 10 * u})) << i;
        }
}

TEST(FusionTest, one_debt_serves_several_readers_and_is_settled_once) {
  for (const MemoryFormat format : kFormats) {
    const Tensor x = random_tensor({2, 3, 5, 4}, 1, {.format = format, .requires_grad = true});
    const auto run = [&] {
      const Tensor y = relu(batch_norm(x, {}, {}, {}, {}));
      return Tensors{y * y, y.slice(1, {1, {}, 1}), adaptive_avg_pool2d(y, 1),
                     y.permute({0, 2, 3, 1}).contiguous()};
    };
    const detail::PendingCounters before = detail::pending_counters();
    const Tensors fused = run();
    EXPECT_EQ(detail::pending_counters().applied - before.applied, 1u);
    const FusionGuard guard(false);
    const Tensors plain = run();
    for (std::size_t i = 0; i < plain.size(); ++i)
      EXPECT_THAT(fused[i], IsClose(plain[i], {.relative = 1e-14, .absolute = 1e-15}));
  }
}

TEST(FusionTest, an_in_place_change_of_the_result_leaves_the_input_alone) {
  const Tensor x = random_tensor({2, 3, 5, 4}, 1);
  const Tensor before = x.clone();
  Tensor y = batch_norm(x, {}, {}, {}, {});
  y.fill_(3);
  EXPECT_THAT(y, HasSameBits(full({2, 3, 5, 4}, 3, {.dtype = float64})));
  EXPECT_THAT(x, HasSameBits(before));
}

TEST(FusionTest, norms_and_activations_follow_each_other_in_any_order) {
  for (const MemoryFormat format : kFormats) {
    const auto run = [&](bool fused) {
      const FusionGuard guard(fused);
      const Tensor x = random_tensor({3, 4, 5, 6}, 1, {.format = format, .requires_grad = true});
      Tensor y = batch_norm(relu(batch_norm(batch_norm(x, {}, {}, {}, {}), {}, {}, {}, {})), {}, {}, {}, {});
      y = max_pool2d(silu(relu6(y)), {.kernel = 2});
      y.backward(random_tensor(y.shape(), 2));
      return Tensors{y, x.grad()};
    };
    const Tensors fused = run(true), plain = run(false);
    EXPECT_THAT(fused[0], IsClose(plain[0], {.relative = 1e-12, .absolute = 1e-13}));
    EXPECT_THAT(fused[1], IsClose(plain[1], {.relative = 1e-10, .absolute = 1e-11}));
  }
}

TEST(FusionTest, one_operator_for_norm_and_activation_has_the_gradients_of_two) {
  using detail::PendingActivation;
  const std::pair<Activation, PendingActivation> kinds[] = {{relu, PendingActivation::Relu},
                                                            {relu6, PendingActivation::Relu6},
                                                            {hardswish, PendingActivation::Hardswish},
                                                            {silu, PendingActivation::Silu}};
  // Few and many channels, a rest of pixels, and in row-major order planes small, large, and larger than
  // caches.
  const Shape shapes[] = {{3, 5, 7, 3}, {9, 130, 3, 2}, {2, 50, 17, 19}, {65, 17, 32, 32}};
  for (const Shape& shape : shapes)
    for (const MemoryFormat format : kFormats)
      for (const DType dtype : {DType::Float64, DType::Float32})
        for (const auto& [activation, pending] : kinds)
          for (const char* reader : {"alone", "with another", "without a gradient"}) {
            if (shape[0] == 65 && (dtype == DType::Float64 || reader[0] != 'a')) continue;
            Tensors results[2];
            for (const bool fused : {false, true}) {
              const FusionGuard guard(fused);
              const Tensor leaf = random_tensor(shape, 1, {.dtype = dtype, .format = format});
              Tensor w = random_tensor({shape[1]}, 2, {.dtype = dtype});
              Tensor b = random_tensor({shape[1]}, 3, {.dtype = dtype});
              w.set_requires_grad();
              b.set_requires_grad();
              Tensor x = leaf;
              if (reader != std::string("without a gradient")) x.set_requires_grad();
              const Tensor y = fused ? detail::batch_norm_activate(x, w, b, {}, {}, pending)
                                     : activation(batch_norm(x, w, b, {}, {}));
              const Tensor out = reader == std::string("with another") ? x * 0.5 + y : y;
              out.backward(random_tensor(shape, 4, {.dtype = dtype, .format = format}));
              results[fused] = {out, w.grad(), b.grad()};
              if (x.grad().defined()) results[fused].push_back(x.grad());
            }
            const double u = dtype == DType::Float64 ? 1e-11 : 2e-4;
            ASSERT_EQ(results[0].size(), reader == std::string("without a gradient") ? 3u : 4u);
            for (std::size_t i = 0; i < results[0].size(); ++i)
              EXPECT_THAT(results[1][i], IsClose(results[0][i], {.relative = u, .absolute = 10 * u}))
                  << i << ' ' << shape.to_string() << ' ' << name(format) << ' ' << reader;
          }
}

}  // namespace
}  // namespace lamella
