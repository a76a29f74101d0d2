#include "lamella/layers/layers.h"
#include "lamella/optim/grad_scaler.h"
#include "lamella/optim/sgd.h"
#include "lamella/tensor/reduce.h"
#include "tests/optim/golden.h"

/// What a GradScaler saves and loads, and what it refuses.
namespace lamella::test {
namespace {

using optim::GradScaler;
using optim::SGD;
using testing::HasSameBits;

constexpr double kInf = std::numeric_limits<double>::infinity(),
                 kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(GradScalerTest, resumes_from_its_state) {
  Tensor p = tensor({1}).set_requires_grad();
  SGD sgd({p});
  const optim::GradScalerOptions options{.growth_interval = 3};
  GradScaler first(options);
  const auto step = [&](GradScaler& scaler, bool overflow) {
    p.zero_grad();
    scaler.scale(sum(p)).backward();
    if (overflow) p.grad().fill_(kInf);
    scaler.step(sgd);
    scaler.update();
  };
  for (const bool overflow : {true, false, false}) step(first, overflow);
  const StateDict state = first.state_dict();
  EXPECT_EQ(state.at("scale").item(), 32768);
  EXPECT_EQ(state.at("growth_tracker").item<std::int64_t>(), 2);
  EXPECT_EQ(state.at("skipped").item<std::int64_t>(), 1);
  step(first, false);
  EXPECT_EQ(state.at("scale").item(), 32768);  // a snapshot
  GradScaler second(options);
  const std::uint64_t revision = second.revision();
  second.load_state_dict(state);
  EXPECT_EQ(second.revision(), revision);  // loaded in place: a recording stays right
  step(second, false);
  for (const auto& [name, tensor] : first.state_dict())
    EXPECT_THAT(second.state_dict().at(name), HasSameBits(tensor)) << name;
  EXPECT_EQ(second.scale(), 65536);
}

TEST(GradScalerTest, refuses_a_state_that_does_not_fit_and_changes_nothing) {
  GradScaler scaler;
  const StateDict good = scaler.state_dict();
  const auto refused = [&](const std::string& name, const Tensor& value, const std::string& part) {
    StateDict state = good.clone();
    state.set(name, value);
    const auto result = throws<Error>([&] { scaler.load_state_dict(state); }, part);
    for (const auto& [key, tensor] : good) EXPECT_THAT(scaler.state_dict().at(key), HasSameBits(tensor));
    return result;
  };
  const auto integer = [](std::int64_t value) { return from_vector<std::int64_t>({value}, {}); };
  EXPECT_TRUE(throws<Error>([&] { scaler.load_state_dict({}); }, "GradScaler: the state has no scale"));
  EXPECT_TRUE(refused("skipped", Tensor(), "GradScaler: the state has no skipped"));
  EXPECT_TRUE(refused("scale", scalar(0), "GradScaler: scale is 0; it must be in [2^-126, 2^126]"));
  EXPECT_TRUE(refused("scale", scalar(kInf), "GradScaler: scale is inf"));
  EXPECT_TRUE(refused("scale", scalar(kNaN), "GradScaler: scale is nan"));
  EXPECT_TRUE(refused("scale", tensor({1, 2}), "it must be one floating number"));
  EXPECT_TRUE(refused("growth_tracker", integer(-1), "GradScaler: growth_tracker is -1"));
  EXPECT_TRUE(refused("skipped", scalar(1), "GradScaler: skipped is [] float32 cpu; it must be one int64"));
  EXPECT_TRUE(refused("other", scalar(1), "GradScaler: the state has other, which"));
}

TEST(GradScalerTest, refuses_options_out_of_range) {
  const auto refused = [](const optim::GradScalerOptions& options, const std::string& part) {
    return throws<Error>([&] { GradScaler{options}; }, part);
  };
  EXPECT_TRUE(refused({.init_scale = 0}, "GradScaler: init_scale is 0; it must be in [2^-126, 2^126]"));
  EXPECT_TRUE(refused({.init_scale = kInf}, "GradScaler: init_scale is inf"));
  EXPECT_TRUE(refused({.init_scale = kNaN}, "GradScaler: init_scale is nan"));
  EXPECT_TRUE(refused({.growth_factor = 1}, "growth_factor is 1; it must be finite and above 1"));
  EXPECT_TRUE(refused({.growth_factor = kInf}, "growth_factor is inf"));
  EXPECT_TRUE(refused({.backoff_factor = 1}, "backoff_factor is 1; it must be in (0, 1)"));
  EXPECT_TRUE(refused({.backoff_factor = 0}, "backoff_factor is 0"));
  EXPECT_TRUE(refused({.growth_interval = 0}, "growth_interval is 0; it must be at least 1"));
}

TEST(GradScalerTest, refuses_calls_out_of_order) {
  Tensor p = tensor({1}).set_requires_grad(), idle = tensor({1}).set_requires_grad();
  SGD sgd({p}), other({idle});
  GradScaler scaler;
  const std::string first = ", but no loss was scaled since the last update(); call scale(loss).backward()";
  EXPECT_TRUE(throws<Error>([&] { scaler.unscale_(sgd); }, "GradScaler: unscale_() for SGD" + first));
  EXPECT_TRUE(throws<Error>([&] { scaler.step(sgd); }, "GradScaler: step() for SGD" + first));
  EXPECT_TRUE(throws<Error>([&] { scaler.update(); }, "GradScaler: update(), but no optimizer was unscaled"));
  EXPECT_TRUE(throws<Error>([&] { scaler.scale(Tensor()); }, "GradScaler"));
  EXPECT_TRUE(throws<DTypeError>([&] { scaler.scale(arange(0, 3, 1, {.dtype = DType::Int64})); }, "int64"));
  scaler.scale(sum(p)).backward();
  EXPECT_TRUE(throws<Error>([&] { scaler.step(other); }, "SGD, none of whose parameters has a gradient"));
  scaler.unscale_(sgd);
  EXPECT_TRUE(throws<Error>([&] { scaler.unscale_(sgd); }, "unscale_() for SGD twice since the last update"));
  EXPECT_EQ(p.grad().item(), 1);
  scaler.step(sgd);
  EXPECT_TRUE(throws<Error>([&] { scaler.step(sgd); }, "GradScaler: step() for SGD twice"));
  EXPECT_TRUE(throws<Error>([&] { scaler.unscale_(sgd); }, "unscale_() for SGD after its step()"));
  EXPECT_EQ(sgd.steps(), 1);
  const Tensor late = scaler.scale(sum(p));
  scaler.update();
  EXPECT_TRUE(throws<Error>([&] { scaler.step(sgd); }, "no loss was scaled"));
  // A graph that has the old scale.
  EXPECT_TRUE(throws<Error>([&] { late.backward(); }, "GradScaler"));
}

TEST(GradScalerTest, refuses_half_gradients) {
  Linear net(2, 2);
  SGD sgd(net.parameters());
  net.to(DType::Float16);
  GradScaler scaler;
  scaler.scale(sum(net.parameters()[0]).to(DType::Float32)).backward();
  EXPECT_TRUE(throws<DTypeError>([&] { scaler.step(sgd); }, "GradScaler: gradient [2,2] float16 cpu of SGD"));
}

TEST(GradScalerTest, goes_on_after_an_update_was_given_up) {
  Tensor p = tensor({1}).set_requires_grad();
  SGD sgd({p}, {.lr = 1});
  GradScaler scaler;
  scaler.scale(sum(p)).backward();
  p.grad().fill_(kInf);
  scaler.unscale_(sgd);
  scaler.abandon();
  EXPECT_TRUE(throws<Error>([&] { scaler.update(); }, "no optimizer was unscaled"));
  p.zero_grad();
  scaler.scale(sum(p)).backward();
  scaler.step(sgd);
  scaler.update();
  EXPECT_EQ(p.item(), 0);
  EXPECT_EQ(scaler.skipped(), 0);
  EXPECT_EQ(scaler.scale(), 65536);
}

}  // namespace
}  // namespace lamella::test
