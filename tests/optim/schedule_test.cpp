#include "lamella/optim/schedule.h"

#include "lamella/optim/sgd.h"
#include "tests/optim/golden.h"

namespace lamella::test {
namespace {

using namespace optim;  // NOLINT(google-build-using-namespace)

std::unique_ptr<SGD> make_sgd() {
  return std::make_unique<SGD>(
      std::vector<ParamGroup>{{.params = {tensor({1})}}, {.params = {tensor({2})}, .lr = 0.05}},
      SGDOptions{.lr = 0.4});
}

/// Both groups' rates against PyTorch's, in one go and after resuming at each step.
void check_schedule(const std::string& name, const Schedule& schedule) {
  const std::vector<double>& expected = golden(name);
  const auto sgd = make_sgd();
  LrScheduler scheduler(*sgd, schedule);
  std::vector<double> found;
  for (std::size_t n = 0; 2 * n < expected.size(); ++n) {
    EXPECT_EQ(scheduler.steps(), static_cast<std::int64_t>(n));
    EXPECT_EQ(scheduler.last_lr(), (std::vector<double>{sgd->lr(0), sgd->lr(1)}));
    found.push_back(sgd->lr(0));
    found.push_back(sgd->lr(1));
    EXPECT_EQ(schedule.lr(static_cast<std::int64_t>(n), 0.05), sgd->lr(1));

    const auto other = make_sgd();
    other->load_state_dict(sgd->state_dict());
    LrScheduler resumed(*other, schedule);
    resumed.load_state_dict(scheduler.state_dict());
    EXPECT_EQ(resumed.last_lr(), scheduler.last_lr());
    scheduler.step();
    resumed.step();
    EXPECT_EQ(other->lr(0), sgd->lr(0));
    EXPECT_EQ(other->lr(1), sgd->lr(1));
  }
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], 1e-13 * expected[i]) << name << ", number " << i;
}

TEST(ScheduleTest, gives_the_rates_of_pytorch) {
  check_schedule("step_decay", StepDecay({.step_size = 3}));
  check_schedule("multi_step", MultiStep({.milestones = {2, 5, 6}, .gamma = 0.5}));
  check_schedule("exponential", Exponential({.gamma = 0.9}));
  check_schedule("cosine", Cosine({.T_max = 7, .eta_min = 0.01}));
  check_schedule("one_cycle", OneCycle({.total_steps = 11}));
  check_schedule("one_cycle_options",
                 OneCycle({.total_steps = 10, .pct_start = 0.45, .div_factor = 10, .final_div_factor = 50}));
  check_schedule("linear_warmup", LinearWarmup());
  check_schedule("linear_warmup_options",
                 LinearWarmup({.start_factor = 0.1, .end_factor = 0.8, .total_iters = 4}));
  check_schedule("sequential",
                 optim::Sequential({.schedules = {LinearWarmup({.start_factor = 0.25, .total_iters = 3}),
                                                  Exponential({.gamma = 0.7}), StepDecay({.step_size = 2})},
                                    .milestones = {3, 6}}));
}

TEST(ScheduleTest, stays_where_it_ends) {
  EXPECT_EQ(Cosine({.T_max = 7, .eta_min = 0.01}).lr(8, 0.4), 0.01);
  EXPECT_EQ(Cosine({.T_max = 7, .eta_min = 0.01}).lr(1000, 0.4), 0.01);
  const OneCycle cycle({.total_steps = 10});
  EXPECT_EQ(cycle.factor(10), cycle.factor(9));
  EXPECT_EQ(cycle.factor(1000), cycle.factor(9));
  EXPECT_EQ(LinearWarmup({.end_factor = 0.5}).factor(1000), 0.5);
  EXPECT_EQ(Constant().lr(1000, 0.3), 0.3);
  EXPECT_EQ(Constant({.factor = 0.5}).lr(7, 0.3), 0.15);
}

TEST(ScheduleTest, one_cycle_has_a_peak_wherever_it_turns) {
  for (const double pct_start : {0.0, 0.05, 0.1, 0.3, 1.0})
    for (const std::int64_t steps : {1, 2, 10}) {
      const OneCycle cycle({.total_steps = steps, .pct_start = pct_start});
      for (std::int64_t n = 0; n < steps; ++n) {
        EXPECT_GE(cycle.factor(n), 1 / 25.0 / 1e4 * (1 - 1e-9)) << pct_start << ' ' << steps << ' ' << n;
        EXPECT_LE(cycle.factor(n), 1 + 1e-9) << pct_start << ' ' << steps << ' ' << n;
      }
    }
  EXPECT_EQ(OneCycle({.total_steps = 10, .pct_start = 0.1}).factor(0), 1);
  EXPECT_NEAR(OneCycle({.total_steps = 10, .pct_start = 1}).factor(9), 1, 1e-15);
}

TEST(ScheduleTest, takes_a_function) {
  const Schedule halves([](std::int64_t n, double initial) { return initial / static_cast<double>(n + 1); });
  EXPECT_EQ(halves.lr(3, 2), 0.5);
  EXPECT_TRUE(throws<Error>([&] { halves.lr(-1, 2); }, "Schedule: step is -1"));
  EXPECT_TRUE(throws<Error>([] { Schedule(nullptr); }, "Schedule: the function is empty"));
  const auto sgd = make_sgd();
  LrScheduler scheduler(*sgd, Schedule([](std::int64_t n, double) { return n == 2 ? -1.0 : 0.1; }));
  scheduler.step();
  EXPECT_TRUE(throws<Error>([&] { scheduler.step(); }, "LrScheduler: the schedule's rate is -1"));
  EXPECT_EQ(scheduler.steps(), 1);
  EXPECT_EQ(sgd->lr(1), 0.1);
}

template <class S, class Options>
::testing::AssertionResult refused(const Options& options, const char* part) {
  return throws<Error>([&] { S{options}; }, part);
}

TEST(ScheduleTest, refuses_bad_options) {
  EXPECT_TRUE(refused<Constant>(ConstantOptions{.factor = -1}, "Constant: factor is -1"));
  EXPECT_TRUE(refused<StepDecay>(StepDecayOptions{}, "StepDecay: step_size is 0; it must be at least 1"));
  EXPECT_TRUE(refused<StepDecay>(StepDecayOptions{.step_size = 1, .gamma = NAN}, "StepDecay: gamma is nan"));
  EXPECT_TRUE(refused<MultiStep>(MultiStepOptions{.milestones = {0}}, "MultiStep: milestones has 0"));
  EXPECT_TRUE(
      refused<MultiStep>(MultiStepOptions{.milestones = {3, 3}}, "MultiStep: milestones has 3 after 3"));
  EXPECT_TRUE(refused<MultiStep>(MultiStepOptions{.gamma = -0.1}, "MultiStep: gamma is -0.1"));
  EXPECT_TRUE(refused<Exponential>(ExponentialOptions{}, "Exponential: gamma is 0"));
  EXPECT_TRUE(refused<Exponential>(ExponentialOptions{.gamma = INFINITY}, "Exponential: gamma is inf"));
  EXPECT_TRUE(refused<Cosine>(CosineOptions{}, "Cosine: T_max is 0"));
  EXPECT_TRUE(refused<Cosine>(CosineOptions{.T_max = 1, .eta_min = -1}, "Cosine: eta_min is -1"));
  EXPECT_TRUE(refused<OneCycle>(OneCycleOptions{}, "OneCycle: total_steps is 0"));
  EXPECT_TRUE(
      refused<OneCycle>(OneCycleOptions{.total_steps = 5, .pct_start = 1.5}, "OneCycle: pct_start is 1.5"));
  EXPECT_TRUE(
      refused<OneCycle>(OneCycleOptions{.total_steps = 5, .pct_start = NAN}, "OneCycle: pct_start is nan"));
  EXPECT_TRUE(
      refused<OneCycle>(OneCycleOptions{.total_steps = 5, .div_factor = 0}, "OneCycle: div_factor is 0"));
  EXPECT_TRUE(refused<OneCycle>(OneCycleOptions{.total_steps = 5, .final_div_factor = -1},
                                "OneCycle: final_div_factor is -1"));
  EXPECT_TRUE(
      refused<LinearWarmup>(LinearWarmupOptions{.start_factor = 2}, "LinearWarmup: start_factor is 2"));
  EXPECT_TRUE(refused<LinearWarmup>(LinearWarmupOptions{.end_factor = -1}, "LinearWarmup: end_factor is -1"));
  EXPECT_TRUE(refused<LinearWarmup>(LinearWarmupOptions{.total_iters = 0}, "LinearWarmup: total_iters is 0"));
  EXPECT_TRUE(refused<optim::Sequential>(SequentialOptions{}, "Sequential: schedules is empty"));
  EXPECT_TRUE(refused<optim::Sequential>(SequentialOptions{.schedules = {Constant()}, .milestones = {1}},
                                         "Sequential: milestones has 1 entries for 1 schedules"));
  EXPECT_TRUE(refused<optim::Sequential>(
      SequentialOptions{.schedules = {Constant(), Constant(), Constant()}, .milestones = {5, 4}},
      "Sequential: milestones has 4 after 5"));
}

TEST(LrSchedulerTest, refuses_a_state_that_does_not_fit_and_changes_nothing) {
  const auto sgd = make_sgd();
  LrScheduler scheduler(*sgd, Exponential({.gamma = 0.5}));
  scheduler.step();
  const StateDict good = scheduler.state_dict();
  scheduler.step();
  const auto refuses = [&](const char* name, const Tensor& tensor, const char* part) {
    StateDict state = good.clone();
    state.set(name, tensor);
    const auto result = throws<Error>([&] { scheduler.load_state_dict(state); }, part);
    EXPECT_EQ(scheduler.steps(), 2);
    EXPECT_EQ(sgd->lr(0), 0.1);
    return result;
  };
  EXPECT_TRUE(throws<Error>([&] { scheduler.load_state_dict({}); }, "LrScheduler: the state has no step"));
  EXPECT_TRUE(refuses("step", from_vector<std::int64_t>({-1}, {}), "LrScheduler: step is -1"));
  EXPECT_TRUE(refuses("step", tensor({1}), "LrScheduler: step is [1] float32 cpu; it must be int64"));
  EXPECT_TRUE(refuses("initial_lrs", tensor({1}, {.dtype = DType::Float64}), "with 2 elements"));
  EXPECT_TRUE(refuses("initial_lrs", tensor({1, -1}, {.dtype = DType::Float64}), "initial_lrs is -1"));
  EXPECT_TRUE(refuses("initial_lrs", Tensor(), "LrScheduler: the state has no initial_lrs"));
  EXPECT_TRUE(refuses("best", tensor({1}), "LrScheduler: the state has best, which does not belong to it"));
  scheduler.load_state_dict(good);
  EXPECT_EQ(sgd->lr(0), 0.2);
}

using Mode = ReduceOnPlateauOptions::Mode;
using ThresholdMode = ReduceOnPlateauOptions::ThresholdMode;

const std::vector<double> kMetrics{1,    0.9,  0.8995, 0.91, 0.95, 0.7,  0.7, 0.71,
                                   0.72, 0.69, 0.69,   0.69, 0.69, 0.69, NAN, 0.3};

void check_plateau(const std::string& name, const ReduceOnPlateauOptions& options) {
  const std::vector<double>& expected = golden(name);
  const auto sgd = make_sgd();
  ReduceOnPlateau scheduler(*sgd, options);
  for (std::size_t n = 0; n < kMetrics.size(); ++n) {
    // Resumed before each step.
    const auto other = make_sgd();
    other->load_state_dict(sgd->state_dict());
    ReduceOnPlateau resumed(*other, options);
    resumed.load_state_dict(scheduler.state_dict());
    scheduler.step(kMetrics[n]);
    resumed.step(kMetrics[n]);
    EXPECT_EQ(resumed.last_lr(), scheduler.last_lr());
    const StateDict state = scheduler.state_dict(), resumed_state = resumed.state_dict();
    for (const auto& [key, value] : state)
      EXPECT_THAT(resumed_state.at(key), testing::HasSameBits(value)) << key;
    EXPECT_EQ(scheduler.last_lr()[1], sgd->lr(1));
    EXPECT_NEAR(sgd->lr(0), expected[2 * n], 1e-14) << name << ", step " << n;
    EXPECT_NEAR(sgd->lr(1), expected[2 * n + 1], 1e-14) << name << ", step " << n;
  }
}

TEST(ReduceOnPlateauTest, gives_the_rates_of_pytorch) {
  check_plateau("plateau_min_rel", {.factor = 0.5, .patience = 1, .threshold = 1e-2});
  check_plateau("plateau_min_abs", {.patience = 2,
                                    .threshold = 0.05,
                                    .threshold_mode = ThresholdMode::Abs,
                                    .cooldown = 1,
                                    .min_lr = 0.04});
  check_plateau("plateau_max_rel",
                {.mode = Mode::Max, .factor = 0.2, .patience = 3, .cooldown = 2, .eps = 0.02});
  check_plateau("plateau_max_abs", {.mode = Mode::Max,
                                    .factor = 0.7,
                                    .patience = 1,
                                    .threshold = 0.04,
                                    .threshold_mode = ThresholdMode::Abs});
}

TEST(ReduceOnPlateauTest, refuses_bad_options) {
  const auto sgd = make_sgd();
  const auto refuses = [&](const ReduceOnPlateauOptions& options, const char* part) {
    return throws<Error>([&] { ReduceOnPlateau(*sgd, options); }, part);
  };
  EXPECT_TRUE(refuses({.factor = 1}, "ReduceOnPlateau: factor is 1; it must be in [0, 1)"));
  EXPECT_TRUE(refuses({.factor = -0.5}, "ReduceOnPlateau: factor is -0.5"));
  EXPECT_TRUE(refuses({.patience = -1}, "ReduceOnPlateau: patience is -1"));
  EXPECT_TRUE(refuses({.threshold = NAN}, "ReduceOnPlateau: threshold is nan"));
  EXPECT_TRUE(refuses({.threshold = 1}, "ReduceOnPlateau: threshold is 1; it must be in [0, 1)"));
  EXPECT_TRUE(refuses({.cooldown = -1}, "ReduceOnPlateau: cooldown is -1"));
  EXPECT_TRUE(refuses({.min_lr = -1}, "ReduceOnPlateau: min_lr is -1"));
  EXPECT_TRUE(refuses({.eps = INFINITY}, "ReduceOnPlateau: eps is inf"));
}

TEST(ReduceOnPlateauTest, refuses_a_state_that_does_not_fit_and_changes_nothing) {
  const auto sgd = make_sgd();
  ReduceOnPlateau scheduler(*sgd);
  scheduler.step(3);
  const StateDict good = scheduler.state_dict();
  scheduler.step(2);
  const auto refuses = [&](const char* name, const Tensor& tensor, const char* part) {
    StateDict state = good.clone();
    state.set(name, tensor);
    const auto result = throws<Error>([&] { scheduler.load_state_dict(state); }, part);
    EXPECT_EQ(scheduler.best(), 2);
    return result;
  };
  EXPECT_TRUE(refuses("best", tensor({NAN}, {.dtype = DType::Float64}), "ReduceOnPlateau: best is NaN"));
  EXPECT_TRUE(refuses("num_bad_epochs", tensor({1}), "ReduceOnPlateau: num_bad_epochs is [1] float32"));
  EXPECT_TRUE(refuses("cooldown_counter", Tensor(), "ReduceOnPlateau: the state has no cooldown_counter"));
  EXPECT_TRUE(refuses("step", tensor({1}), "ReduceOnPlateau: the state has step, which does not belong"));
  scheduler.load_state_dict(good);
  EXPECT_EQ(scheduler.best(), 3);
}

}  // namespace
}  // namespace lamella::test
