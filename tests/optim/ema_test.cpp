#include "lamella/optim/ema.h"

#include <typeinfo>

#include "lamella/layers/layers.h"
#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using optim::Ema;
using optim::EmaOptions;

/// A module with everything: parameters, floating buffers, a counter, and a buffer that is not saved.
struct Net : Module {
  Conv2d conv{3, 4, 3};
  BatchNorm2d norm{4};
  Buffer extra = add_buffer("extra", ones({2}), false);
  Net() : Module("Net") {
    add("conv", conv);
    add("norm", norm);
  }
  Tensor forward(const Tensor& x) override { return norm(conv(x)); }
};

using Named = std::vector<std::pair<std::string, Tensor>>;

Named tensors_of(const Module& module) {
  Named all = module.named_parameters();
  for (auto& entry : module.named_buffers()) all.push_back(entry);
  return all;
}

/// Other numbers everywhere.
void change(const Module& module, int k) {
  const NoGrad no_grad;
  std::int64_t i = 0;
  for (auto& [name, tensor] : tensors_of(module)) {
    if (is_floating(tensor.dtype()))
      tensor.copy_(values(100 * k + i++, tensor.shape()));
    else
      tensor.fill_(k);
  }
}

std::vector<std::vector<double>> all_numbers(const Module& module) {
  std::vector<std::vector<double>> result;
  for (const auto& [name, tensor] : tensors_of(module)) result.push_back(tensor.to_vector<double>());
  return result;
}

/// Trains for some updates beside a plain average; gives the largest difference.
double error_of(Net& net, Ema& ema, const EmaOptions& options, int updates) {
  std::vector<std::vector<double>> expected = all_numbers(net);
  for (int n = 0; n < updates; ++n) {
    change(net, n);
    ema.update();
    const double decay = options.warm_up ? std::min(options.decay, (1.0 + n) / (10.0 + n)) : options.decay;
    const auto now = all_numbers(net);
    const Named tensors = tensors_of(net);
    for (std::size_t i = 0; i < now.size(); ++i)
      for (std::size_t k = 0; k < now[i].size(); ++k)
        expected[i][k] = is_floating(tensors[i].second.dtype())
                             ? decay * expected[i][k] + (1 - decay) * now[i][k]
                             : now[i][k];
  }
  const auto found = all_numbers(ema.module());
  double worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    for (std::size_t k = 0; k < found[i].size(); ++k)
      worst = std::max(worst, std::abs(found[i][k] - expected[i][k]));
  return worst;
}

TEST(EmaTest, averages_parameters_and_buffers) {
  for (const EmaOptions options :
       {EmaOptions{.decay = 0.9}, EmaOptions{.decay = 0.3, .warm_up = true}, EmaOptions{.warm_up = true},
        EmaOptions{.decay = 0}, EmaOptions{.decay = 1}}) {
    Net net;
    Ema single(net, options);
    EXPECT_LT(error_of(net, single, options, 8), 3e-7);
    EXPECT_EQ(single.updates(), 8);
    Net twice;
    twice.to(DType::Float64);
    Ema exact(twice, options);
    EXPECT_LT(error_of(twice, exact, options, 8), 1e-15);
  }
}

TEST(EmaTest, gives_a_module_for_evaluation) {
  Net net;
  Ema ema(net, {.decay = 0.5});
  EXPECT_TRUE(net.is_training());
  EXPECT_FALSE(ema.module().is_training());
  for (const Tensor& param : ema.module().parameters()) EXPECT_FALSE(param.requires_grad());
  for (const Tensor& param : net.parameters()) EXPECT_TRUE(param.requires_grad());
  const Tensor x = values(5, {1, 3, 5, 5}, DType::Float32);
  net.eval();
  EXPECT_THAT(ema.module()(x), testing::HasSameBits(net(x).detach()));
  change(net, 1);
  EXPECT_NE(ema.module()(x).to_vector<float>(), net(x).to_vector<float>());
  EXPECT_EQ(ema.module_as<Net>().conv.type_name(), "Conv2d");
  EXPECT_THROW(ema.module_as<Linear>(), std::bad_cast);
}

TEST(EmaTest, follows_a_module_that_is_converted) {
  Net net, plain;
  plain.load_state_dict(net.state_dict());
  Ema a(net, {.decay = 0.5}), b(plain, {.decay = 0.5});
  const auto update = [](Net& module, Ema& ema, int k) {
    change(module, k);
    ema.update();
  };
  update(net, a, 1);
  update(plain, b, 1);
  net.to(MemoryFormat::ChannelsLast);
  update(net, a, 2);
  update(plain, b, 2);
  EXPECT_EQ(all_numbers(a.module()), all_numbers(b.module()));
  net.to(DType::Float64);
  update(net, a, 3);
  EXPECT_EQ(a.module().parameters()[0].dtype(), DType::Float64);
  EXPECT_EQ(a.module().parameters()[0].memory_format(), MemoryFormat::ChannelsLast);
  EXPECT_EQ(a.updates(), 3);
}

TEST(EmaTest, resumes_with_the_same_bits) {
  const EmaOptions options{.decay = 0.7, .warm_up = true};
  Net net;
  Ema whole(net, options);
  for (int k = 0; k < 3; ++k) {
    change(net, k);
    whole.update();
  }
  const StateDict state = whole.state_dict();
  Net other;
  Ema resumed(other, options);
  resumed.load_state_dict(state);
  EXPECT_EQ(resumed.updates(), 3);
  EXPECT_EQ(all_numbers(resumed.module()), all_numbers(whole.module()));
  for (int k = 3; k < 6; ++k) {
    change(net, k);
    whole.update();
    change(other, k);
    resumed.update();
  }
  EXPECT_EQ(all_numbers(resumed.module()), all_numbers(whole.module()));
  EXPECT_EQ(state.at("updates").item<std::int64_t>(), 3);
}

TEST(EmaTest, gives_the_same_bits_for_any_number_of_threads) {
  const int before = num_threads();
  std::vector<std::vector<std::vector<double>>> results;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    manual_seed(1);
    Linear net(300, 200);
    Ema ema(net, {.decay = 0.9});
    change(net, 4);
    ema.update();
    results.push_back(all_numbers(ema.module()));
  }
  set_num_threads(before);
  EXPECT_EQ(results[0], results[1]);
}

TEST(EmaTest, refuses_bad_options_and_half_types) {
  Linear net(2, 3);
  EXPECT_TRUE(throws<Error>([&] { Ema(net, {.decay = 1.1}); }, "Ema: decay is 1.1; it must be in [0, 1]"));
  EXPECT_TRUE(throws<Error>([&] { Ema(net, {.decay = -0.1}); }, "Ema: decay is -0.1"));
  EXPECT_TRUE(throws<Error>([&] { Ema(net, {.decay = NAN}); }, "Ema: decay is nan"));
  EXPECT_TRUE(throws<Error>([&] { Ema(ReLU(), {}); }, "Ema: ReLU has no parameters and no buffers"));
  Ema ema(net);
  net.to(DType::BFloat16);
  EXPECT_TRUE(throws<DTypeError>([&] { ema.update(); }, "Ema: weight [3,2] bfloat16 cpu must be float32"));
  EXPECT_EQ(ema.updates(), 0);
  EXPECT_TRUE(throws<DTypeError>([&] { Ema{net}; }, "Ema: weight [3,2] bfloat16 cpu must be float32"));
}

TEST(EmaTest, refuses_a_state_that_does_not_fit_and_changes_nothing) {
  Linear net(2, 3);
  Ema ema(net);
  const StateDict good = ema.state_dict();
  change(net, 3);
  ema.update();
  const auto before = all_numbers(ema.module());
  const auto refused = [&](const char* name, const Tensor& tensor, const char* part) {
    StateDict state = good.clone();
    state.set(name, tensor);
    const auto result = throws<Error>([&] { ema.load_state_dict(state); }, part);
    EXPECT_EQ(all_numbers(ema.module()), before);
    EXPECT_EQ(ema.updates(), 1);
    return result;
  };
  EXPECT_TRUE(throws<Error>([&] { ema.load_state_dict({}); }, "Ema: the state has no updates"));
  EXPECT_TRUE(refused("updates", tensor({1}), "Ema: updates is [1] float32 cpu; it must be one int64"));
  EXPECT_TRUE(refused("updates", from_vector<std::int64_t>({-1}, {}), "Ema: updates is -1"));
  EXPECT_TRUE(refused("module.bias", Tensor(), "Ema: the state has no module.bias"));
  EXPECT_TRUE(refused("module.bias", zeros({4}), "Ema: module.bias is [4] float32 cpu; it must have"));
  EXPECT_TRUE(refused("module.other", zeros({4}), "Ema: the state has module.other, which is no tensor"));
  ema.load_state_dict(good);
  EXPECT_EQ(ema.updates(), 0);
}

}  // namespace
}  // namespace lamella::test
