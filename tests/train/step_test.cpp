#include "lamella/train/step.h"

#include <gtest/gtest.h>

#include <limits>

#include "lamella/autograd/autocast.h"
#include "lamella/autograd/autograd.h"
#include "lamella/core/random.h"
#include "lamella/layers/layers.h"
#include "lamella/layers/loss.h"
#include "lamella/optim/grad_scaler.h"
#include "lamella/optim/schedule.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/create.h"
#include "lamella/tensor/reduce.h"
#include "lamella/testing/matchers.h"

namespace lamella::train {
namespace {

using testing::HasSameBits;
using ::testing::HasSubstr;

struct Net : Module {
  Linear first{4, 8};
  Dropout dropout{0.5};
  Linear second{8, 3};
  Net() : Module("Net") {
    add("first", first);
    add("dropout", dropout);
    add("second", second);
  }
  Tensor forward(const Tensor& x) override { return second(dropout(first(x))); }
};

struct Batch {
  Tensor input = testing::random_tensor({6, 4}, 1, {.dtype = DType::Float32});
  Tensor target = from_vector<std::int64_t>({0, 1, 2, 0, 1, 2}, {6});
};

Net seeded_net() {
  manual_seed(3);
  return Net();
}

TEST(StepTest, does_what_the_plain_loop_does) {
  const Batch batch;
  Net plain = seeded_net();
  optim::SGD plain_sgd(plain.parameters(), {.lr = 0.1, .momentum = 0.9});
  Tensor plain_loss;
  for (int i = 0; i < 3; ++i) {
    next_random_step();
    plain_loss = cross_entropy(plain(batch.input), batch.target);
    plain_sgd.zero_grad();
    plain_loss.backward();
    plain_sgd.step();
  }
  Net net = seeded_net();
  optim::SGD sgd(net.parameters(), {.lr = 0.1, .momentum = 0.9});
  Step step(net, sgd);
  Step::Result result;
  for (int i = 0; i < 3; ++i) result = step(batch.input, batch.target);
  EXPECT_EQ(step.count(), 3);
  EXPECT_THAT(result.loss, HasSameBits(plain_loss.detach()));
  EXPECT_FALSE(result.loss.requires_grad());
  EXPECT_EQ(result.output.shape(), Shape({6, 3}));
  for (std::size_t i = 0; i < plain.parameters().size(); ++i)
    EXPECT_THAT(net.parameters()[i], HasSameBits(plain.parameters()[i]));
}

TEST(StepTest, rounds_the_parameters_of_the_step_as_operators_would) {
  const Batch batch;
  const auto train = [&](bool plain) {
    Net net = seeded_net();
    const StateDict before = net.state_dict().clone();
    optim::SGD sgd(net.parameters(), {.lr = 0.1, .momentum = 0.9});
    Step step(net, sgd, {.autocast = DType::BFloat16});
    Tensors losses;
    for (int i = 0; i < 6; ++i) {
      if (i == 3) net.load_state_dict(before);
      if (!plain) {
        losses.push_back(step(batch.input, batch.target).loss);
        continue;
      }
      next_random_step();
      Tensor loss;
      {
        const Autocast mixed(DType::BFloat16);
        loss = cross_entropy(net(batch.input), batch.target);
      }
      sgd.zero_grad();
      loss.backward();
      sgd.step();
      losses.push_back(loss.detach());
    }
    return losses;
  };
  const Tensors plain = train(true), stepped = train(false);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_THAT(stepped[i], HasSameBits(plain[i])) << i;
}

TEST(StepTest, accumulates_the_mean_gradient) {
  const Batch batch;
  Net whole = seeded_net(), parts = seeded_net();
  whole.eval();  // dropout would draw other numbers for other batches
  parts.eval();
  optim::SGD whole_sgd(whole.parameters(), {.lr = 0.5}), parts_sgd(parts.parameters(), {.lr = 0.5});
  Step whole_step(whole, whole_sgd), parts_step(parts, parts_sgd, {.accumulate = 2});
  whole_step(batch.input, batch.target);
  const Tensor before = parts.first.weight().clone();
  parts_step(batch.input.slice(0, {.end = 3}), batch.target.slice(0, {.end = 3}));
  EXPECT_THAT(parts.first.weight(), HasSameBits(before));
  parts_step(batch.input.slice(0, {.begin = 3}), batch.target.slice(0, {.begin = 3}));
  EXPECT_EQ(parts_sgd.steps(), 1);
  for (std::size_t i = 0; i < whole.parameters().size(); ++i)
    EXPECT_THAT(parts.parameters()[i],
                testing::IsClose(whole.parameters()[i], {.relative = 1e-5, .absolute = 1e-6}));
}

TEST(StepTest, clips_the_gradient) {
  const Batch batch;
  Net net = seeded_net();
  optim::SGD sgd(net.parameters(), {.lr = 1});
  const Tensors before = [&] {
    Tensors copies;
    for (const Tensor& parameter : net.parameters()) copies.push_back(parameter.detach().clone());
    return copies;
  }();
  Step step(net, sgd, {.clip_grad_norm = 0.01});
  step(batch.input, batch.target);
  double squares = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Tensor change = sub(net.parameters()[i].detach(), before[i]);
    squares += sum(mul(change, change)).item();
  }
  EXPECT_NEAR(std::sqrt(squares), 0.01, 1e-5);
}

TEST(StepTest, with_a_scaler_has_the_bits_of_one_without) {
  const Batch batch;
  for (const int accumulate : {1, 2}) {
    Net plain = seeded_net(), scaled = seeded_net();
    optim::SGD plain_sgd(plain.parameters(), {.lr = 0.5, .momentum = 0.9}),
        scaled_sgd(scaled.parameters(), {.lr = 0.5, .momentum = 0.9});
    optim::GradScaler scaler({.growth_interval = 2});
    Step plain_step(plain, plain_sgd, {.clip_grad_norm = 0.1, .accumulate = accumulate}),
        scaled_step(scaled, scaled_sgd, {.clip_grad_norm = 0.1, .accumulate = accumulate, .scaler = &scaler});
    const RandomState state = random_state();
    Tensors losses;
    for (int i = 0; i < 6; ++i) losses.push_back(plain_step(batch.input, batch.target).loss);
    set_random_state(state);
    for (const Tensor& loss : losses)
      EXPECT_THAT(scaled_step(batch.input, batch.target).loss, HasSameBits(loss));
    for (std::size_t i = 0; i < plain.parameters().size(); ++i)
      EXPECT_THAT(scaled.parameters()[i], HasSameBits(plain.parameters()[i]));
    EXPECT_EQ(scaler.scale(), accumulate == 1 ? 65536 * 8 : 65536 * 2);
    EXPECT_EQ(scaler.skipped(), 0);
  }
}

TEST(StepTest, skips_updates_that_overflow_and_learns_in_float16) {
  const Batch batch;
  Net net = seeded_net();
  net.eval();  // no dropout
  optim::SGD sgd(net.parameters(), {.lr = 0.2, .momentum = 0.9});
  optim::LrScheduler schedule(sgd, optim::Cosine({.T_max = 200}));
  optim::GradScaler scaler({.init_scale = 0x1p40});
  Step step(net, sgd, {.scheduler = &schedule, .autocast = DType::Float16, .scaler = &scaler});
  const Tensor weight = net.first.weight().detach().clone();
  const float first = step(batch.input, batch.target).loss.item<float>();
  EXPECT_THAT(net.first.weight(), HasSameBits(weight));
  EXPECT_EQ(scaler.skipped(), 1);
  EXPECT_EQ(scaler.scale(), 0x1p39);
  EXPECT_LT(sgd.lr(), 0.2);  // the schedule does not know
  float last = first;
  for (int i = 0; i < 99; ++i) last = step(batch.input, batch.target).loss.item<float>();
  EXPECT_LT(first, 3);  // not the scaled one
  EXPECT_LT(last, 0.3 * first);
  EXPECT_GE(scaler.skipped(), 20);
  EXPECT_LE(scaler.skipped(), 40);
  EXPECT_EQ(sgd.steps() + scaler.skipped(), 100);
}

/// Fails once.
class Failing : public optim::Optimizer {
 public:
  explicit Failing(const Tensors& params) : Optimizer("Failing", {{.params = params}}, 1, 0) {}
  int calls = 0;

 protected:
  std::vector<std::string> state_names() const override { return {}; }
  void update(const optim::UpdateBatch&) override {
    if (calls++ == 0) throw Error("no memory");
  }
};

TEST(StepTest, goes_on_with_its_scaler_after_an_exception) {
  const Batch batch;
  Net net = seeded_net();
  Failing optimizer(net.parameters());
  optim::GradScaler scaler;
  Step step(net, optimizer, {.scaler = &scaler});
  EXPECT_THROW(step(batch.input, batch.target), Error);
  step(batch.input, batch.target);
  EXPECT_EQ(optimizer.calls, 2);
  EXPECT_EQ(scaler.growth_tracker(), 1);
}

TEST(StepTest, stops_at_a_loss_that_is_not_finite_before_anything_changes) {
  const Batch batch;
  Net net = seeded_net();
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  Step step(net, sgd);
  step(batch.input, batch.target);
  {
    const NoGrad no_grad;
    Tensor weight = net.second.weight();
    weight.select(0, 1).fill_(std::numeric_limits<double>::quiet_NaN());
  }
  const Tensor bias = net.second.bias().detach().clone();
  try {
    step(batch.input, batch.target);
    FAIL() << "no error";
  } catch (const NonFiniteError& error) {
    EXPECT_STREQ(error.what(),
                 "train: the loss is nan at step 1; the first parameter that is not finite is second.weight");
  }
  EXPECT_THAT(net.second.bias(), HasSameBits(bias));
  EXPECT_EQ(sgd.steps(), 1);
}

TEST(StepTest, says_when_the_input_is_to_blame) {
  Batch batch;
  batch.input.select(0, 2).fill_(std::numeric_limits<double>::infinity());
  Net net = seeded_net();
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  Step step(net, sgd);
  try {
    step(batch.input, batch.target);
    FAIL() << "no error";
  } catch (const NonFiniteError& error) {
    EXPECT_THAT(error.what(), HasSubstr("all parameters are finite, but the input is not"));
  }
}

TEST(StepTest, refuses_bad_options_and_losses) {
  Net net;
  optim::SGD sgd(net.parameters(), {.lr = 0.1});
  EXPECT_THROW(Step(net, sgd, {.clip_grad_norm = -1}), Error);
  EXPECT_THROW(Step(net, sgd, {.accumulate = 0}), Error);
  EXPECT_THROW(Step(net, sgd, {.check_every = -1}), Error);
  Step vector_loss(net, sgd, {.loss = [](const Tensor& y, const Tensor&) { return y; }});
  const Batch batch;
  EXPECT_THROW(vector_loss(batch.input, batch.target), ShapeError);
  Step captured(net, sgd, {.capture = true});
  EXPECT_THROW(captured(batch.input, batch.target), DeviceError);
  EXPECT_EQ(sgd.steps(), 0);
}

TEST(FirstNonFiniteTest, reads_parameters_and_buffers) {
  struct Norm : Module {
    BatchNorm2d norm{2};
    Norm() : Module("Norm") { add("norm", norm); }
  };
  Norm net;
  EXPECT_EQ(first_non_finite(net), "");
  net.state_dict().at("norm.running_var").detach().fill_(std::numeric_limits<double>::infinity());
  EXPECT_EQ(first_non_finite(net), "norm.running_var");
}

}  // namespace
}  // namespace lamella::train
