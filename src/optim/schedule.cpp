#include "lamella/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "optim/options.h"

namespace lamella::optim {

namespace {

double count(std::int64_t n) { return static_cast<double>(n); }

/// From a to b along half a cosine, as t goes from 0 to 1.
double along_cosine(double a, double b, double t) {
  return b + (a - b) * (1 + std::cos(std::numbers::pi * t)) / 2;
}

void check_count(const char* kind, const char* option, std::int64_t value) {
  LAMELLA_CHECK(Error, value >= 1, kind, ": ", option, " is ", value, "; it must be at least 1");
}

void check_positive(const char* kind, const char* option, double value) {
  LAMELLA_CHECK(Error, std::isfinite(value) && value > 0, kind, ": ", option, " is ", value,
                "; it must be finite and above 0");
}

void check_milestones(const char* kind, const std::vector<std::int64_t>& milestones) {
  std::int64_t before = 0;
  for (const std::int64_t milestone : milestones) {
    LAMELLA_CHECK(Error, milestone > before, kind, ": milestones has ", milestone, " after ", before,
                  "; they must be above 0 and ascend");
    before = milestone;
  }
}

/// How many milestones are reached.
std::size_t reached(const std::vector<std::int64_t>& milestones, std::int64_t step) {
  return static_cast<std::size_t>(std::upper_bound(milestones.begin(), milestones.end(), step) -
                                  milestones.begin());
}

Schedule::Function constant(const ConstantOptions& options) {
  check_option("Constant", "factor", options.factor);
  return [o = options](std::int64_t, double initial) { return initial * o.factor; };
}

Schedule::Function step_decay(const StepDecayOptions& options) {
  check_count("StepDecay", "step_size", options.step_size);
  check_option("StepDecay", "gamma", options.gamma);
  return [o = options](std::int64_t n, double initial) {
    return initial * std::pow(o.gamma, count(n / o.step_size));
  };
}

Schedule::Function multi_step(const MultiStepOptions& options) {
  check_milestones("MultiStep", options.milestones);
  check_option("MultiStep", "gamma", options.gamma);
  return [o = options](std::int64_t n, double initial) {
    return initial * std::pow(o.gamma, static_cast<double>(reached(o.milestones, n)));
  };
}

Schedule::Function exponential(const ExponentialOptions& options) {
  check_positive("Exponential", "gamma", options.gamma);
  return [o = options](std::int64_t n, double initial) { return initial * std::pow(o.gamma, count(n)); };
}

Schedule::Function cosine(const CosineOptions& options) {
  check_count("Cosine", "T_max", options.T_max);
  check_option("Cosine", "eta_min", options.eta_min);
  return [o = options](std::int64_t n, double initial) {
    return n >= o.T_max ? o.eta_min : along_cosine(initial, o.eta_min, count(n) / count(o.T_max));
  };
}

Schedule::Function one_cycle(const OneCycleOptions& options) {
  check_count("OneCycle", "total_steps", options.total_steps);
  check_option_closed("OneCycle", "pct_start", options.pct_start, 0, 1);
  check_positive("OneCycle", "div_factor", options.div_factor);
  check_positive("OneCycle", "final_div_factor", options.final_div_factor);
  return [o = options](std::int64_t n, double peak) {
    const double first = peak / o.div_factor, last = first / o.final_div_factor;
    const double end = count(o.total_steps) - 1, turn = o.pct_start * count(o.total_steps) - 1;
    const double at = std::min(count(n), end);
    if (at <= turn) return turn > 1e-9 ? along_cosine(first, peak, at / turn) : peak;  // else: only rounding
    return along_cosine(peak, last, (at - turn) / (end - turn));
  };
}

Schedule::Function linear_warmup(const LinearWarmupOptions& options) {
  check_option_closed("LinearWarmup", "start_factor", options.start_factor, 0, 1);
  check_option_closed("LinearWarmup", "end_factor", options.end_factor, 0, 1);
  check_count("LinearWarmup", "total_iters", options.total_iters);
  return [o = options](std::int64_t n, double initial) {
    const double share = count(std::min(n, o.total_iters)) / count(o.total_iters);
    return initial * (o.start_factor + (o.end_factor - o.start_factor) * share);
  };
}

Schedule::Function sequential(const SequentialOptions& options) {
  LAMELLA_CHECK(Error, !options.schedules.empty(), "Sequential: schedules is empty");
  LAMELLA_CHECK(Error, options.milestones.size() + 1 == options.schedules.size(),
                "Sequential: milestones has ", options.milestones.size(), " entries for ",
                options.schedules.size(), " schedules; it must have one less");
  check_milestones("Sequential", options.milestones);
  return [o = options](std::int64_t n, double initial) {
    const std::size_t which = reached(o.milestones, n);
    return o.schedules[which].lr(which > 0 ? n - o.milestones[which - 1] : n, initial);
  };
}

}  // namespace

Schedule::Schedule(Function function) : function_(std::move(function)) {
  LAMELLA_CHECK(Error, function_ != nullptr, "Schedule: the function is empty");
}

double Schedule::lr(std::int64_t step, double initial_lr) const {
  LAMELLA_CHECK(Error, step >= 0, "Schedule: step is ", step, "; it must not be negative");
  return function_(step, initial_lr);
}

Constant::Constant(const ConstantOptions& options) : Schedule(constant(options)) {}
StepDecay::StepDecay(const StepDecayOptions& options) : Schedule(step_decay(options)) {}
MultiStep::MultiStep(const MultiStepOptions& options) : Schedule(multi_step(options)) {}
Exponential::Exponential(const ExponentialOptions& options) : Schedule(exponential(options)) {}
Cosine::Cosine(const CosineOptions& options) : Schedule(cosine(options)) {}
OneCycle::OneCycle(const OneCycleOptions& options) : Schedule(one_cycle(options)) {}
LinearWarmup::LinearWarmup(const LinearWarmupOptions& options) : Schedule(linear_warmup(options)) {}
Sequential::Sequential(const SequentialOptions& options) : Schedule(sequential(options)) {}

}  // namespace lamella::optim
