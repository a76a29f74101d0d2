#include "lamella/optim/optimizer.h"

#include "lamella/layers/layers.h"
#include "lamella/optim/adam.h"
#include "lamella/optim/rmsprop.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/arithmetic.h"
#include "lamella/tensor/reduce.h"
#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::Adam;
using optim::Optimizer;
using optim::ParamGroup;
using optim::RMSprop;
using optim::SGD;
using testing::HasSameBits;

std::vector<MakeOptimizer> one_of_each() {
  return {maker<SGD>(optim::SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01}),
          maker<Adam>(optim::AdamOptions{.lr = 0.01}),
          maker<RMSprop>(optim::RMSpropOptions{.lr = 0.02, .momentum = 0.9})};
}

TEST(OptimizerTest, gives_the_same_bits_for_any_number_of_threads) {
  const int before = num_threads();
  for (const MakeOptimizer& make : one_of_each()) {
    std::vector<std::vector<double>> results;
    for (const int threads : {1, 2, 3}) {
      set_num_threads(threads);
      // Sizes on both sides of where the work is cut.
      Tensors params;
      for (const std::int64_t size : {1, 16383, 7, 40000, 0, 16384, 3})
        params.push_back(values(size, {size}, DType::Float32).set_requires_grad());
      const auto optimizer = make({{.params = params}});
      for (int step = 0; step < 3; ++step) {
        for (Tensor& param : params) param.set_grad(values(step + 5, param.shape(), DType::Float32));
        optimizer->step();
      }
      results.push_back(numbers(params));
    }
    EXPECT_EQ(results[0], results[1]);
    EXPECT_EQ(results[0], results[2]);
  }
  set_num_threads(before);
}

TEST(OptimizerTest, treats_an_element_alike_wherever_it_lies) {
  for (const MakeOptimizer& make : one_of_each()) {
    Tensor whole = values(3, {50000}, DType::Float32).set_requires_grad();
    Tensors parts;
    for (std::int64_t at = 0; at < 50000; at += 10000)
      parts.push_back(whole.detach().slice(0, {at, at + 10000}).clone().set_requires_grad());
    const Tensor gradient = values(8, {50000}, DType::Float32);
    whole.set_grad(gradient);
    for (std::size_t i = 0; i < parts.size(); ++i)
      parts[i].set_grad(gradient.slice(
          0, {static_cast<std::int64_t>(i) * 10000, static_cast<std::int64_t>(i + 1) * 10000}));
    make({{.params = {whole}}})->step();
    make({{.params = parts}})->step();
    EXPECT_EQ(numbers({whole}), numbers(parts));
  }
}

TEST(OptimizerTest, leaves_parameters_without_gradient_alone) {
  for (const MakeOptimizer& make : one_of_each()) {
    const Tensors params = make_params();
    const Tensor before = params[1].detach().clone();
    const auto optimizer = make({{.params = params, .weight_decay = 0.5}});
    optimizer->step();
    EXPECT_EQ(optimizer->steps(), 0);
    train_step(*optimizer, params, 0);
    EXPECT_THAT(params[1].detach(), HasSameBits(before));
    EXPECT_EQ(optimizer->steps(), 1);
    EXPECT_FALSE(optimizer->state_dict().contains("state.1.step"));
    // After zero_grad() there is none either, though its memory is kept.
    const std::vector<double> numbers_before = numbers(params);
    optimizer->zero_grad();
    optimizer->step();
    EXPECT_EQ(numbers(params), numbers_before);
    EXPECT_EQ(optimizer->steps(), 1);
  }
}

TEST(OptimizerTest, takes_several_types_at_once_and_gradients_that_repeat_an_element) {
  for (const MakeOptimizer& make : one_of_each()) {
    const auto run = [&](bool together) {
      Tensors params = make_params();
      params[1] = values(3, {5}, DType::Float32).set_requires_grad();
      for (Tensor& param : params) {
        const Tensor gradient = full({}, 0.3, {.dtype = param.dtype()}).expand(param.shape());
        param.set_grad(together ? gradient : gradient.clone());
      }
      if (together)
        make({{.params = params}})->step();
      else
        for (const Tensor& param : params) make({{.params = {param}}})->step();
      return numbers(params);
    };
    EXPECT_EQ(run(true), run(false));
  }
}

TEST(OptimizerTest, counts_as_an_in_place_change) {
  for (const MakeOptimizer& make : one_of_each()) {
    Tensor p = tensor({1, 2, 3}).set_requires_grad();
    const auto optimizer = make({{.params = {p}}});
    const Tensor loss = sum(p * p);
    loss.backward({}, true);
    optimizer->step();
    EXPECT_TRUE(throws<Error>([&] { loss.backward(); }, "mul"));
  }
}

TEST(OptimizerTest, follows_a_module_that_is_converted) {
  for (const MakeOptimizer& make : one_of_each()) {
    manual_seed(3);
    Conv2d moved(4, 6, 3);
    Conv2d plain = clone(moved);
    const auto a = make({{.params = moved.parameters()}});
    const auto b = make({{.params = plain.parameters()}});
    const auto step = [](Conv2d& net, Optimizer& optimizer, int k) {
      for (Tensor& param : net.parameters()) param.set_grad(values(k, param.shape(), param.dtype()));
      optimizer.step();
    };
    step(moved, *a, 1);
    step(plain, *b, 1);
    moved.to(MemoryFormat::ChannelsLast);
    step(moved, *a, 2);
    step(plain, *b, 2);
    EXPECT_EQ(numbers(moved.parameters()), numbers(plain.parameters()));
    moved.to(DType::Float64);
    step(moved, *a, 3);
    step(plain, *b, 3);
    expect_close(numbers(moved.parameters()), numbers(plain.parameters()), 1e-5, "float64");
    EXPECT_EQ(moved.parameters()[0].dtype(), DType::Float64);
    EXPECT_EQ(moved.parameters()[0].memory_format(), MemoryFormat::ChannelsLast);
  }
}

TEST(OptimizerTest, refuses_half_types) {
  EXPECT_TRUE(
      throws<DTypeError>([] { SGD({tensor({1}, {.dtype = DType::BFloat16, .requires_grad = true})}); },
                         "SGD: parameter [1] bfloat16 cpu must be float32 or float64"));
  Linear net(2, 2);
  Adam adam(net.parameters());
  net.to(DType::Float16);
  for (Tensor& param : net.parameters()) param.set_grad(ones_like(param));
  const std::vector<double> before = numbers(net.parameters());
  EXPECT_TRUE(throws<DTypeError>([&] { adam.step(); }, "Adam: parameter [2,2] float16 cpu must be float32"));
  EXPECT_EQ(numbers(net.parameters()), before);
  EXPECT_EQ(adam.steps(), 0);
}

TEST(OptimizerTest, refuses_bad_parameters) {
  const Tensor p = tensor({1, 2}).set_requires_grad();
  EXPECT_TRUE(throws<Error>([] { SGD(Tensors{}); }, "SGD: parameter group 0 is empty"));
  EXPECT_TRUE(throws<Error>([] { SGD(std::vector<ParamGroup>{}); }, "SGD: no parameters"));
  EXPECT_TRUE(throws<Error>([&] { SGD(Tensors{p, Tensor()}); }, "SGD: a parameter is an undefined tensor"));
  EXPECT_TRUE(throws<Error>([&] { SGD({p, p}); }, "SGD: parameter [2] float32 cpu is given twice"));
  EXPECT_TRUE(throws<Error>([&] { SGD({{.params = {p}}, {.params = {p.detach()}}}); }, "is given twice"));
  EXPECT_TRUE(throws<Error>([&] { SGD({p * 2.0}); }, "is the result of an operator"));
  EXPECT_TRUE(throws<Error>([&] { SGD({p.detach().expand({3, 2})}); }, "the same element several times"));
  EXPECT_TRUE(throws<DTypeError>([] { SGD({arange(0, 3, 1, {.dtype = DType::Int64})}); }, "int64"));
  EXPECT_TRUE(throws<Error>([&] { SGD({{.params = {p}, .lr = -1.0}}); }, "SGD: lr is -1"));
  EXPECT_TRUE(
      throws<Error>([&] { SGD({{.params = {p}, .weight_decay = -1.0}}); }, "SGD: weight_decay is -1"));
}

TEST(OptimizerTest, has_groups_with_settings_of_their_own) {
  const Tensors params = make_params();
  SGD sgd(two_groups(params), {.lr = 0.3, .weight_decay = 0.1});
  EXPECT_EQ(sgd.groups(), 2u);
  EXPECT_EQ(sgd.params(0).size(), 2u);
  EXPECT_EQ(sgd.lr(0), 0.3);
  EXPECT_EQ(sgd.lr(1), 0.05);
  EXPECT_EQ(sgd.weight_decay(0), 0.1);
  EXPECT_EQ(sgd.weight_decay(1), 0);
  sgd.set_lr(1, 0.7);
  EXPECT_EQ(sgd.lr(1), 0.7);
  sgd.set_lr(0.2);
  EXPECT_EQ(sgd.lr(0), 0.2);
  EXPECT_EQ(sgd.lr(1), 0.2);
  EXPECT_TRUE(throws<Error>([&] { sgd.lr(2); }, "SGD: no parameter group 2; there are 2"));
  EXPECT_TRUE(throws<Error>([&] { sgd.set_lr(2, 1); }, "SGD: no parameter group 2"));
  EXPECT_TRUE(throws<Error>([&] { sgd.set_lr(0, -1); }, "SGD: lr is -1"));
  EXPECT_TRUE(throws<Error>([&] { sgd.set_lr(NAN); }, "SGD: lr is nan"));
  EXPECT_EQ(sgd.lr(0), 0.2);
}

TEST(OptimizerTest, uses_a_rate_set_between_steps) {
  Tensor p = tensor({1}).set_requires_grad();
  SGD sgd({p}, {.lr = 1});
  p.set_grad(tensor({1}));
  sgd.step();
  sgd.set_lr(0.25);
  sgd.step();
  EXPECT_EQ(p.item<float>(), -0.25f);
}

TEST(OptimizerTest, decays_weights_only) {
  struct Net : Module {
    Conv2d conv{3, 4, 3};
    BatchNorm2d norm{4};
    Parameter bias = add_parameter("bias", ones({2, 2}));
    Net() : Module("Net") {
      add("conv", conv);
      add("norm", norm);
    }
  };
  const Net net;
  const auto groups = optim::no_decay_groups(net.named_parameters(), 0.1);
  ASSERT_EQ(groups.size(), 2u);
  ASSERT_EQ(groups[0].params.size(), 1u);
  EXPECT_EQ(groups[0].params[0].dim(), 4);
  EXPECT_EQ(groups[0].weight_decay, 0.1);
  EXPECT_EQ(groups[1].params.size(), 4u);
  EXPECT_EQ(groups[1].weight_decay, 0.0);
  EXPECT_EQ(optim::no_decay_groups({{"w", ones({2, 2})}}, 0.1).size(), 1u);
}

TEST(OptimizerTest, state_is_a_snapshot) {
  const Tensors params = make_params();
  SGD sgd(params, {.lr = 0.1, .momentum = 0.9});
  train_step(sgd, params, 1);
  const StateDict state = sgd.state_dict();
  const std::vector<double> before = state.at("state.0.momentum_buffer").to_vector<double>();
  train_step(sgd, params, 2);
  EXPECT_EQ(state.at("state.0.momentum_buffer").to_vector<double>(), before);
  EXPECT_EQ(state.at("state.0.step").item<std::int64_t>(), 1);
  sgd.load_state_dict(state);
  train_step(sgd, params, 3);
  EXPECT_EQ(state.at("state.0.momentum_buffer").to_vector<double>(), before);
}

TEST(OptimizerTest, restores_the_rates) {
  const Tensors params = make_params();
  SGD sgd(two_groups(params), {.lr = 0.1});
  sgd.set_lr(0, 0.01);
  SGD other(two_groups(params), {.lr = 0.1});
  other.load_state_dict(sgd.state_dict());
  EXPECT_EQ(other.lr(0), 0.01);
  EXPECT_EQ(other.lr(1), 0.05);
}

TEST(OptimizerTest, loads_state_of_another_type_and_layout) {
  const Tensors params = make_params(DType::Float32),
                others = make_params(DType::Float64, Layout::ChannelsLast);
  Adam adam(params), other(others);
  train_step(adam, params, 1);
  other.load_state_dict(adam.state_dict());
  for (const auto& [name, tensor] : other.state_dict())
    EXPECT_EQ(tensor.to_vector<double>(), adam.state_dict().at(name).to_vector<double>()) << name;
  EXPECT_EQ(other.state_dict().at("state.0.exp_avg").dtype(), DType::Float64);
  EXPECT_EQ(other.state_dict().at("state.0.exp_avg").memory_format(), MemoryFormat::ChannelsLast);
}

TEST(OptimizerTest, refuses_a_state_that_does_not_fit_and_changes_nothing) {
  const Tensors params = make_params();
  Adam adam(two_groups(params), {.lr = 0.1});
  train_step(adam, params, 1);
  const StateDict good = adam.state_dict();
  const auto with = [&](const std::string& name, const Tensor& tensor) {
    StateDict state = good.clone();
    state.set(name, tensor);
    return state;
  };
  const auto without = [&](const std::string& left_out) {
    StateDict state;
    for (const auto& [name, tensor] : good)
      if (name != left_out) state.set(name, tensor);
    return state;
  };
  Adam target(two_groups(params), {.lr = 0.2});
  const auto refused = [&](const StateDict& state, const std::string& part) {
    const auto result = throws<Error>([&] { target.load_state_dict(state); }, part);
    EXPECT_EQ(target.steps(), 0);
    EXPECT_EQ(target.lr(0), 0.2);
    EXPECT_EQ(target.state_dict().size(), 2u);
    return result;
  };
  EXPECT_TRUE(refused({}, "Adam: the state has no param_groups.0.lr"));
  EXPECT_TRUE(refused(without("param_groups.1.lr"), "Adam: the state has no param_groups.1.lr"));
  EXPECT_TRUE(refused(with("param_groups.1.lr", tensor({-1})), "Adam: param_groups.1.lr is -1"));
  EXPECT_TRUE(refused(with("param_groups.1.lr", tensor({1, 2})), "it must be one floating number"));
  EXPECT_TRUE(
      refused(with("param_groups.2.lr", tensor({1})), "Adam: the state has param_groups.2.lr, which"));
  EXPECT_TRUE(refused(without("state.2.exp_avg_sq"), "Adam: the state has no state.2.exp_avg_sq"));
  EXPECT_TRUE(refused(without("state.2.step"), "Adam: the state has state.2.exp_avg, which does not belong"));
  EXPECT_TRUE(refused(with("state.2.exp_avg", zeros({2, 3})),
                      "Adam: state.2.exp_avg is [2,3] float32 cpu; parameter [3,2] float64 cpu needs"));
  EXPECT_TRUE(refused(with("state.2.exp_avg", zeros({3, 2}, {.dtype = DType::Int64})), "must be floating"));
  EXPECT_TRUE(refused(with("state.2.exp_avg", Tensor()), "Adam: the state has no state.2.exp_avg"));
  EXPECT_TRUE(refused(with("state.2.step", tensor({1})), "it must be one int64"));
  EXPECT_TRUE(refused(with("state.2.step", from_vector<std::int64_t>({-1}, {})), "state.2.step is -1"));
  EXPECT_TRUE(refused(with("state.3.exp_avg", zeros({3, 2})), "Adam: the state has state.3.exp_avg, which"));
  EXPECT_TRUE(refused(with("state.0.momentum_buffer", zeros({1})), "state.0.momentum_buffer"));
  target.load_state_dict(good);
  EXPECT_EQ(target.steps(), 1);
}

/// A user's own: p ← p − lr · (number of updates) · (sum of all gradients).
class Plain : public Optimizer {
 public:
  explicit Plain(const Tensors& params) : Optimizer("Plain", {{.params = params}}, 0.5, 0) {}

 protected:
  std::vector<std::string> state_names() const override { return {"sum"}; }
  void update(const optim::UpdateBatch& batch) override {
    for (std::size_t i = 0; i < batch.params.size(); ++i) {
      Tensor sum = batch.state[i][0], param = batch.params[i];
      sum.copy_(sum + param.grad());
      param.copy_(param - sum * batch.lr * batch.steps[i].to(param.dtype()));
    }
  }
};

TEST(OptimizerTest, can_be_derived_from) {
  Tensor p = tensor({8}).set_requires_grad();
  Plain plain({p});
  p.set_grad(tensor({2}));
  plain.step();
  EXPECT_EQ(p.item(), 7);
  plain.step();
  EXPECT_EQ(p.item(), 3);
  EXPECT_EQ(plain.state_dict().at("state.0.sum").item(), 4);
}

}  // namespace
}  // namespace lamella::test
