#include <algorithm>
#include <cmath>
#include <utility>

#include "lamella/optim/schedule.h"
#include "lamella/tensor/create.h"
#include "optim/options.h"

namespace lamella::optim {

namespace {

/// The entry `key`, one-dimensional or single, of `size` elements and type `dtype`.
const Tensor& entry(const char* kind, const StateDict& dict, const char* key, DType dtype,
                    std::int64_t size) {
  const Tensor* const found = dict.find(key);
  LAMELLA_CHECK(Error, found != nullptr && found->defined(), kind, ": the state has no ", key);
  LAMELLA_CHECK(Error, found->dtype() == dtype && found->numel() == size, kind, ": ", key, " is ",
                found->describe(), "; it must be ", name(dtype), " with ", size,
                size == 1 ? " element" : " elements");
  return *found;
}

std::int64_t counter(const char* kind, const StateDict& dict, const char* key) {
  const std::int64_t value = entry(kind, dict, key, DType::Int64, 1).item<std::int64_t>();
  LAMELLA_CHECK(Error, value >= 0, kind, ": ", key, " is ", value, "; it must not be negative");
  return value;
}

void check_size(const char* kind, const StateDict& dict, std::initializer_list<const char*> keys) {
  for (const auto& [name, tensor] : dict) {
    const bool known =
        std::any_of(keys.begin(), keys.end(), [&name = name](const char* key) { return name == key; });
    LAMELLA_CHECK(Error, known, kind, ": the state has ", name, ", which does not belong to it");
  }
}

Tensor whole(std::int64_t value) { return from_vector<std::int64_t>({value}, {}); }

}  // namespace

LrScheduler::LrScheduler(Optimizer& optimizer, Schedule schedule)
    : optimizer_(&optimizer), schedule_(std::move(schedule)) {
  for (std::size_t group = 0; group < optimizer.groups(); ++group)
    initial_lrs_.push_back(optimizer.lr(group));
  set(rates(0, initial_lrs_));
}

std::vector<double> LrScheduler::rates(std::int64_t step, const std::vector<double>& initial) const {
  std::vector<double> result;
  for (const double lr : initial) {
    result.push_back(schedule_.lr(step, lr));
    check_option("LrScheduler", "the schedule's rate", result.back());
  }
  return result;
}

void LrScheduler::set(std::vector<double> rates) {
  for (std::size_t group = 0; group < rates.size(); ++group) optimizer_->set_lr(group, rates[group]);
  last_lr_ = std::move(rates);
}

void LrScheduler::step() {
  set(rates(step_ + 1, initial_lrs_));
  ++step_;
}

StateDict LrScheduler::state_dict() const {
  return {{"step", whole(step_)},
          {"initial_lrs", from_vector(initial_lrs_, {static_cast<std::int64_t>(initial_lrs_.size())})}};
}

void LrScheduler::load_state_dict(const StateDict& dict) {
  constexpr const char* kKind = "LrScheduler";
  check_size(kKind, dict, {"step", "initial_lrs"});
  const std::int64_t step = counter(kKind, dict, "step");
  std::vector<double> initial =
      entry(kKind, dict, "initial_lrs", DType::Float64, static_cast<std::int64_t>(initial_lrs_.size()))
          .to_vector<double>();
  for (const double lr : initial) check_option(kKind, "initial_lrs", lr);
  set(rates(step, initial));
  step_ = step;
  initial_lrs_ = std::move(initial);
}

// ---- ReduceOnPlateau ----

using PlateauMode = ReduceOnPlateauOptions::Mode;
using ThresholdMode = ReduceOnPlateauOptions::ThresholdMode;

ReduceOnPlateau::ReduceOnPlateau(Optimizer& optimizer, const ReduceOnPlateauOptions& options)
    : optimizer_(&optimizer), options_(options) {
  constexpr const char* kKind = "ReduceOnPlateau";
  check_option(kKind, "factor", options.factor, 0, 1);
  const bool share_below = options.mode == PlateauMode::Min && options.threshold_mode == ThresholdMode::Rel;
  check_option(kKind, "threshold", options.threshold, 0, share_below ? 1 : kNoLimit);
  check_option(kKind, "min_lr", options.min_lr);
  check_option(kKind, "eps", options.eps);
  check_option(kKind, "patience", static_cast<double>(options.patience));
  check_option(kKind, "cooldown", static_cast<double>(options.cooldown));
  if (options.mode == PlateauMode::Max) best_ = -best_;
}

bool ReduceOnPlateau::better(double metric) const {
  const bool relative = options_.threshold_mode == ThresholdMode::Rel;
  if (options_.mode == PlateauMode::Min)
    return metric < (relative ? best_ * (1 - options_.threshold) : best_ - options_.threshold);
  return metric > (relative ? best_ * (1 + options_.threshold) : best_ + options_.threshold);
}

void ReduceOnPlateau::step(double metric) {
  if (better(metric)) {
    best_ = metric;
    bad_ = 0;
  } else {
    ++bad_;
  }
  if (cooldown_ > 0) {
    --cooldown_;
    bad_ = 0;
  }
  if (bad_ <= options_.patience) return;
  for (std::size_t group = 0; group < optimizer_->groups(); ++group) {
    const double before = optimizer_->lr(group), after = std::max(before * options_.factor, options_.min_lr);
    if (before - after > options_.eps) optimizer_->set_lr(group, after);
  }
  cooldown_ = options_.cooldown;
  bad_ = 0;
}

std::vector<double> ReduceOnPlateau::last_lr() const {
  std::vector<double> rates;
  for (std::size_t group = 0; group < optimizer_->groups(); ++group) rates.push_back(optimizer_->lr(group));
  return rates;
}

StateDict ReduceOnPlateau::state_dict() const {
  return {{"best", from_vector<double>({best_}, {})},
          {"num_bad_epochs", whole(bad_)},
          {"cooldown_counter", whole(cooldown_)}};
}

void ReduceOnPlateau::load_state_dict(const StateDict& dict) {
  constexpr const char* kKind = "ReduceOnPlateau";
  check_size(kKind, dict, {"best", "num_bad_epochs", "cooldown_counter"});
  const double best = entry(kKind, dict, "best", DType::Float64, 1).item();
  const std::int64_t bad = counter(kKind, dict, "num_bad_epochs");
  const std::int64_t cooldown = counter(kKind, dict, "cooldown_counter");
  LAMELLA_CHECK(Error, !std::isnan(best), kKind, ": best is NaN; it must be a number");
  best_ = best;
  bad_ = bad;
  cooldown_ = cooldown;
}

}  // namespace lamella::optim
