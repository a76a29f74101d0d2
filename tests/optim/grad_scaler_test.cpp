#include "lamella/optim/grad_scaler.h"

#include "lamella/layers/layers.h"
#include "lamella/optim/adam.h"
#include "lamella/optim/clip.h"
#include "lamella/optim/rmsprop.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/reduce.h"
#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::Adam;
using optim::AdamW;
using optim::GradScaler;
using optim::Optimizer;
using optim::RMSprop;
using optim::SGD;
using testing::HasSameBits;

constexpr double kInf = std::numeric_limits<double>::infinity(),
                 kNaN = std::numeric_limits<double>::quiet_NaN();

/// Each kind of state that there is.
std::vector<MakeOptimizer> one_of_each() {
  return {maker<SGD>(optim::SGDOptions{.lr = 0.1}),
          maker<SGD>(optim::SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01}),
          maker<Adam>(optim::AdamOptions{.lr = 0.01, .amsgrad = true}),
          maker<AdamW>(optim::AdamWOptions{.lr = 0.01}),
          maker<RMSprop>(optim::RMSpropOptions{.lr = 0.02, .momentum = 0.9, .centered = true})};
}

Tensors mixed_params(Layout layout = Layout::Plain) {
  Tensors params = make_params(DType::Float32, layout);
  params.push_back(values(3, {4, 5}, DType::Float64).set_requires_grad());
  params.push_back(zeros({0}).set_requires_grad());
  params.push_back(values(4, {40000}, DType::Float32).set_requires_grad());  // more than one chunk
  return params;
}

/// Gradients that sum(w · p) has for a w of these numbers, by a backward of the scaled loss.
void backward(GradScaler& scaler, const Tensors& params, int step) {
  Tensor loss = zeros({});
  for (std::size_t i = 0; i < params.size(); ++i)
    loss = loss + sum(params[i] *
                      values(10 * step + static_cast<std::int64_t>(i), params[i].shape(), params[i].dtype()));
  for (Tensor param : params) param.zero_grad();
  scaler.scale(loss).backward();
}

/// One element of a gradient.
void poison(const Tensor& param, double value) {
  const Tensor gradient = param.grad();
  Tensor last = gradient;
  while (last.dim() > 0) last = last.select(0, -1);
  last.fill_(value);
}

/// Everything that a skipped update must leave alone, by its bits.
std::vector<Tensor> snapshot(const Tensors& params, const Optimizer& optimizer) {
  std::vector<Tensor> all;
  for (const Tensor& param : params) all.push_back(param.detach().clone());
  for (const auto& [name, tensor] : optimizer.state_dict()) all.push_back(tensor);
  return all;
}

void expect_same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_THAT(a[i], HasSameBits(b[i])) << i;
}

TEST(GradScalerTest, unscales_exactly) {
  for (const Layout layout :
       {Layout::Plain, Layout::ChannelsLast, Layout::TransposedGradients, Layout::EverySecond})
    for (const double scale : {1.0, 65536.0, 0x1p-20, 0x1p60}) {
      const Tensors params = mixed_params(layout), plain = mixed_params(layout);
      SGD sgd(params);
      GradScaler scaler({.init_scale = scale}), one({.init_scale = 1});
      backward(scaler, params, 1);
      backward(one, plain, 1);
      for (Tensor param : params) param.set_grad(lay_out(param.grad(), layout, true));
      scaler.unscale_(sgd);
      for (std::size_t i = 0; i < params.size(); ++i)
        EXPECT_THAT(params[i].grad(), HasSameBits(plain[i].grad())) << scale << ", parameter " << i;
    }
}

TEST(GradScalerTest, scales_the_loss_and_its_gradient) {
  const Tensor p = tensor({3}).set_requires_grad();
  GradScaler scaler;
  const Tensor loss = sum(p * p), scaled = scaler.scale(loss);
  EXPECT_EQ(scaled.item(), 9 * 65536.0);
  EXPECT_EQ(scaled.dtype(), DType::Float32);
  scaled.backward();
  EXPECT_EQ(p.grad().item(), 6 * 65536.0);
}

TEST(GradScalerTest, trains_with_the_bits_of_a_training_without_it) {
  for (const MakeOptimizer& make : one_of_each()) {
    const auto run = [&](bool scaled) {
      const Tensors params = mixed_params();
      const auto optimizer = make({{.params = params}});
      GradScaler scaler({.init_scale = 1024, .growth_interval = 2});
      GradScaler one({.init_scale = 1, .growth_interval = 1000});
      for (int step = 0; step < 5; ++step) {
        backward(scaled ? scaler : one, params, step);
        if (scaled) {
          scaler.step(*optimizer);
          scaler.update();
        } else {
          optimizer->step();
        }
      }
      EXPECT_EQ(scaler.scale(), scaled ? 4096 : 1024);
      return snapshot(params, *optimizer);
    };
    expect_same(run(true), run(false));
  }
}

TEST(GradScalerTest, skips_an_update_whose_gradient_is_not_finite) {
  for (const MakeOptimizer& make : one_of_each())
    for (const double bad : {kInf, -kInf, kNaN})
      for (const std::size_t where : {0u, 3u, 5u}) {
        const Tensors params = mixed_params();
        const auto optimizer = make(
            {{.params = {params[0], params[1]}}, {.params = {params[2], params[3], params[4], params[5]}}});
        GradScaler scaler;
        for (int step = 0; step < 2; ++step) {
          backward(scaler, params, step);
          scaler.step(*optimizer);
          scaler.update();
        }
        const std::vector<Tensor> before = snapshot(params, *optimizer);
        backward(scaler, params, 2);
        poison(params[where], bad);
        scaler.step(*optimizer);
        EXPECT_EQ(scaler.scale(), 65536);
        scaler.update();
        expect_same(snapshot(params, *optimizer), before);
        EXPECT_EQ(optimizer->steps(), 2);
        EXPECT_EQ(scaler.scale(), 32768);
        EXPECT_EQ(scaler.skipped(), 1);
        EXPECT_EQ(scaler.growth_tracker(), 0);
        // The next one is made, and as if nothing had been between.
        backward(scaler, params, 3);
        scaler.step(*optimizer);
        scaler.update();
        EXPECT_EQ(optimizer->steps(), 3);
        EXPECT_EQ(scaler.skipped(), 1);
        EXPECT_EQ(scaler.scale(), 32768);
        EXPECT_NE(numbers({params[0].detach()}), numbers({before[0]}));
      }
}

TEST(GradScalerTest, a_skipped_first_update_leaves_the_state_of_a_fresh_optimizer) {
  for (const MakeOptimizer& make : one_of_each()) {
    const auto run = [&](bool skip_first, bool resume) {
      const Tensors params = mixed_params();
      auto optimizer = make({{.params = params}});
      GradScaler scaler;
      if (skip_first) {
        backward(scaler, params, 7);
        poison(params[1], kInf);
        scaler.step(*optimizer);
        scaler.update();
        EXPECT_EQ(optimizer->steps(), 0);
      }
      if (resume) {
        const StateDict state = optimizer->state_dict();
        optimizer = make({{.params = params}});
        optimizer->load_state_dict(state);
      }
      for (int step = 0; step < 3; ++step) {
        backward(scaler, params, step);
        scaler.step(*optimizer);
        scaler.update();
      }
      return snapshot(params, *optimizer);
    };
    expect_same(run(true, false), run(false, false));
    expect_same(run(true, true), run(false, false));
  }
}

TEST(GradScalerTest, sees_a_gradient_that_unscaling_makes_infinite) {
  Tensor p = tensor({1}).set_requires_grad();
  SGD sgd({p});
  GradScaler scaler({.init_scale = 0x1p-10});
  scaler.scale(sum(p)).backward();
  p.set_grad(tensor({1e38}));
  scaler.step(sgd);
  scaler.update();
  EXPECT_EQ(p.item(), 1);
  EXPECT_EQ(scaler.skipped(), 1);
}

TEST(GradScalerTest, grows_after_an_interval_without_overflow) {
  Tensor p = tensor({1}).set_requires_grad();
  SGD sgd({p});
  GradScaler scaler({.init_scale = 8, .growth_factor = 4, .backoff_factor = 0.25, .growth_interval = 3});
  const auto step = [&](bool overflow) {
    p.zero_grad();
    scaler.scale(sum(p)).backward();
    if (overflow) poison(p, kInf);
    scaler.step(sgd);
    scaler.update();
    return std::pair(scaler.scale(), scaler.growth_tracker());
  };
  using State = std::pair<double, std::int64_t>;
  EXPECT_EQ(step(false), State(8, 1));
  EXPECT_EQ(step(false), State(8, 2));
  EXPECT_EQ(step(false), State(32, 0));
  EXPECT_EQ(step(false), State(32, 1));
  EXPECT_EQ(step(true), State(8, 0));
  EXPECT_EQ(step(true), State(2, 0));
  EXPECT_EQ(step(false), State(2, 1));
  EXPECT_EQ(step(false), State(2, 2));
  EXPECT_EQ(step(false), State(8, 0));
  EXPECT_EQ(scaler.skipped(), 2);
}

TEST(GradScalerTest, stays_a_finite_number_above_zero) {
  Tensor p = tensor({1}).set_requires_grad();
  SGD sgd({p});
  GradScaler scaler({.init_scale = 1, .growth_factor = 0x1p100, .backoff_factor = 0x1p-100});
  GradScaler growing({.init_scale = 1, .growth_factor = 0x1p100, .growth_interval = 1});
  for (int i = 0; i < 4; ++i) {
    p.zero_grad();
    growing.scale(sum(p) * 0x1p-30).backward();
    growing.step(sgd);
    growing.update();
    p.zero_grad();
    scaler.scale(sum(p)).backward();
    poison(p, kNaN);
    scaler.step(sgd);
    scaler.update();
  }
  EXPECT_EQ(growing.scale(), 0x1p126);
  EXPECT_EQ(growing.skipped(), 0);
  EXPECT_EQ(scaler.scale(), 0x1p-126);
  EXPECT_EQ(scaler.skipped(), 4);
}

TEST(GradScalerTest, serves_several_optimizers) {
  Tensors params;
  std::vector<std::unique_ptr<SGD>> optimizers;
  for (int i = 0; i < 5; ++i) {
    params.push_back(tensor({1, 2}).set_requires_grad());
    optimizers.push_back(std::make_unique<SGD>(Tensors{params.back()}, optim::SGDOptions{.lr = 0.5}));
  }
  GradScaler scaler;
  for (int round = 0; round < 3; ++round) {
    backward(scaler, params, round);
    const std::vector<double> before = numbers(params);
    if (round == 0) poison(params[3], kInf);          // while room is made for more flags
    if (round != 2) scaler.unscale_(*optimizers[2]);  // their order may change
    for (const auto& optimizer : optimizers) scaler.step(*optimizer);
    scaler.update();
    for (std::size_t i = 0; i < params.size(); ++i)
      EXPECT_EQ(params[i].to_vector<double>()[0] == before[2 * i], round == 0 && i == 3) << round << ' ' << i;
  }
  EXPECT_EQ(scaler.skipped(), 1);
  EXPECT_EQ(scaler.scale(), 32768);
  EXPECT_EQ(optimizers[3]->steps(), 2);
  EXPECT_EQ(optimizers[4]->steps(), 3);
}

TEST(GradScalerTest, clips_what_was_unscaled) {
  Tensor p = tensor({3, 4}).set_requires_grad();
  SGD sgd({p}, {.lr = 1});
  GradScaler scaler;
  scaler.scale(sum(p * p)).backward();
  scaler.unscale_(sgd);
  EXPECT_EQ(optim::clip_grad_norm_({p}, 1).item(), 10);
  scaler.step(sgd);
  scaler.update();
  EXPECT_THAT(p.detach(), testing::IsClose(tensor({2.4, 3.2}), {.relative = 1e-6}));
}

/// A user's own, which does not know of UpdateBatch::skip.
class Plain : public Optimizer {
 public:
  explicit Plain(const Tensors& params) : Optimizer("Plain", {{.params = params}}, 0.5, 0) {}

 protected:
  std::vector<std::string> state_names() const override { return {}; }
  void update(const optim::UpdateBatch& batch) override {
    EXPECT_FALSE(batch.skip.defined());
    for (Tensor param : batch.params) param.copy_(param - param.grad() * batch.lr);
  }
};

TEST(GradScalerTest, skips_for_an_optimizer_that_does_not) {
  Tensor p = tensor({8}).set_requires_grad();
  Plain plain({p});
  GradScaler scaler;
  for (const bool overflow : {false, true, false}) {
    p.zero_grad();
    scaler.scale(sum(p)).backward();
    if (overflow) poison(p, kNaN);
    scaler.step(plain);
    scaler.update();
  }
  EXPECT_EQ(p.item(), 7);
  EXPECT_EQ(plain.steps(), 2);
  EXPECT_EQ(scaler.skipped(), 1);
}

TEST(GradScalerTest, gives_the_same_bits_for_any_number_of_threads) {
  const int threads_before = num_threads();
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    const Tensors params = mixed_params();
    Adam adam(params);
    GradScaler scaler({.init_scale = 3e4, .growth_factor = 1.7, .growth_interval = 1});
    for (int step = 0; step < 4; ++step) {
      backward(scaler, params, step);
      if (step == 2) poison(params[5], kInf);
      scaler.step(adam);
      scaler.update();
    }
    results.push_back(numbers(params));
    results.back().push_back(scaler.scale());
  }
  set_num_threads(threads_before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

}  // namespace
}  // namespace lamella::test
