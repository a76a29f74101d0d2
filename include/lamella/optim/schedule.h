#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "lamella/core/export.h"
#include "lamella/layers/state_dict.h"
#include "lamella/optim/optimizer.h"

namespace lamella::optim {

/// Learning rate as a function of the step number alone: nothing needs to be replayed to resume. A value;
/// copies are cheap. A step is whatever LrScheduler::step() is called after, an epoch or a batch.
class LAMELLA_API Schedule {
 public:
  /// Gives the rate at step n >= 0 of a group that began with `initial_lr`.
  using Function = std::function<double(std::int64_t step, double initial_lr)>;
  /// A schedule of the user's own. Throws Error for an empty function.
  explicit Schedule(Function function);

  /// The rate at `step`. Throws Error for a negative step.
  double lr(std::int64_t step, double initial_lr) const;
  /// The rate at `step` as a multiple of the initial one, which is taken as 1.
  double factor(std::int64_t step) const { return lr(step, 1); }

 private:
  Function function_;
};

// Names and defaults are those of PyTorch's schedulers, given in brackets; so are the rates, but for what is
// said. n is the step, from 0.

/// Options of Constant.
struct ConstantOptions {
  double factor = 1;  ///< not negative
};
/// initial_lr · factor, always.
struct LAMELLA_API Constant : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit Constant(const ConstantOptions& options = {});
};

/// Options of StepDecay.
struct StepDecayOptions {
  std::int64_t step_size = 0;  ///< steps between two decays; must be given
  double gamma = 0.1;          ///< not negative
};
/// initial_lr · gamma^⌊n / step_size⌋ [StepLR].
struct LAMELLA_API StepDecay : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit StepDecay(const StepDecayOptions& options);
};

/// Options of MultiStep.
struct MultiStepOptions {
  std::vector<std::int64_t> milestones = {};  ///< ascending, above 0
  double gamma = 0.1;                         ///< not negative
};
/// initial_lr · gamma^k after k of the milestones are reached [MultiStepLR].
struct LAMELLA_API MultiStep : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit MultiStep(const MultiStepOptions& options);
};

/// Options of Exponential.
struct ExponentialOptions {
  double gamma = 0;  ///< above 0; must be given
};
/// initial_lr · gamma^n [ExponentialLR].
struct LAMELLA_API Exponential : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit Exponential(const ExponentialOptions& options);
};

/// Options of Cosine.
struct CosineOptions {
  std::int64_t T_max = 0;  ///< step at which eta_min is reached; must be given
  double eta_min = 0;      ///< a rate, not a factor; not negative
};
/// eta_min + (initial_lr − eta_min) · (1 + cos(π n / T_max)) / 2, and eta_min from T_max on (where PyTorch's
/// rises again) [CosineAnnealingLR; "SGDR", arXiv 1608.03983].
struct LAMELLA_API Cosine : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit Cosine(const CosineOptions& options);
};

/// Options of OneCycle.
struct OneCycleOptions {
  std::int64_t total_steps = 0;   ///< must be given
  double pct_start = 0.3;         ///< share of the steps that rise, in [0, 1]
  double div_factor = 25;         ///< peak over first rate, above 0
  double final_div_factor = 1e4;  ///< first over last rate, above 0
};
/// Rises along a cosine from initial_lr / div_factor to initial_lr at step pct_start · total_steps − 1, then
/// falls along another to initial_lr / (div_factor · final_div_factor) at step total_steps − 1, where it
/// stays. The optimizer's rate is the peak [OneCycleLR's max_lr; "Super-Convergence", arXiv 1708.07120].
/// Momentum does not change.
struct LAMELLA_API OneCycle : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit OneCycle(const OneCycleOptions& options);
};

/// Options of LinearWarmup.
struct LinearWarmupOptions {
  double start_factor = 1.0 / 3;  ///< in [0, 1]
  double end_factor = 1;          ///< in [0, 1]
  std::int64_t total_iters = 5;   ///< steps until end_factor; above 0
};
/// initial_lr times a factor that goes from start_factor to end_factor on a line, and stays [LinearLR].
struct LAMELLA_API LinearWarmup : Schedule {
  /// Throws Error naming the option that is out of range.
  explicit LinearWarmup(const LinearWarmupOptions& options = {});
};

/// Options of Sequential.
struct SequentialOptions {
  std::vector<Schedule> schedules = {};       ///< in order; at least one
  std::vector<std::int64_t> milestones = {};  ///< where each but the first begins; ascending, above 0
};
/// One schedule after the other, each counting from 0 where it begins and from the same initial_lr
/// [SequentialLR]. A warm-up into a cosine:
///   Sequential({.schedules = {LinearWarmup({.total_iters = 5}), Cosine({.T_max = 95})}, .milestones = {5}})
struct LAMELLA_API Sequential : Schedule {
  /// Throws Error unless there is one milestone less than schedules and they ascend.
  explicit Sequential(const SequentialOptions& options);
};

/// Sets an optimizer's learning rates by a schedule. The optimizer must outlive it.
class LAMELLA_API LrScheduler {
 public:
  /// Takes the groups' present rates as the initial ones, and sets those of step 0. Throws Error for a rate
  /// of the schedule that is negative or not finite, here and below.
  LrScheduler(Optimizer& optimizer, Schedule schedule);

  /// To the next step; call it after Optimizer::step().
  void step();
  /// Steps made so far.
  std::int64_t steps() const { return step_; }
  /// The rates that were set last, per group.
  const std::vector<double>& last_lr() const { return last_lr_; }

  /// "step" (int64) and "initial_lrs" (float64, per group).
  StateDict state_dict() const;
  /// Takes over what state_dict() gave and sets the optimizer's rates. Throws Error naming what is missing,
  /// left over or does not fit, with nothing changed.
  void load_state_dict(const StateDict& dict);

 private:
  std::vector<double> rates(std::int64_t step, const std::vector<double>& initial) const;
  void set(std::vector<double> rates);

  Optimizer* optimizer_;
  Schedule schedule_;
  std::vector<double> initial_lrs_;
  std::vector<double> last_lr_;
  std::int64_t step_ = 0;
};

/// Options of ReduceOnPlateau; names and defaults are PyTorch's.
struct ReduceOnPlateauOptions {
  /// Whether a smaller or a larger metric is better.
  enum class Mode { Min, Max };
  /// Whether to be better takes a share of the best so far, or an amount.
  enum class ThresholdMode { Rel, Abs };
  Mode mode = Mode::Min;                              ///< which way is better
  double factor = 0.1;                                ///< of the rates, in [0, 1)
  std::int64_t patience = 10;                         ///< steps without improvement that are put up with
  double threshold = 1e-4;                            ///< by how much to be better; below 1 for Min and Rel
  ThresholdMode threshold_mode = ThresholdMode::Rel;  ///< a share or an amount
  std::int64_t cooldown = 0;                          ///< steps after a reduction that do not count
  double min_lr = 0;                                  ///< no rate goes below
  double eps = 1e-8;                                  ///< smaller reductions are left out
};

/// Multiplies the learning rates by `factor` when a metric has not become better in more than `patience`
/// steps, and then waits for `cooldown` steps before it counts again [ReduceLROnPlateau]. NaN is never
/// better. The optimizer must outlive it.
class LAMELLA_API ReduceOnPlateau {
 public:
  /// Throws Error naming an option that is out of range: all numbers must be finite and not negative.
  explicit ReduceOnPlateau(Optimizer& optimizer, const ReduceOnPlateauOptions& options = {});

  /// Takes the metric of one more epoch.
  void step(double metric);
  /// The best metric so far; infinite (the bad way) before the first.
  double best() const { return best_; }
  /// The optimizer's rates, per group.
  std::vector<double> last_lr() const;

  /// "best" (float64), "num_bad_epochs" and "cooldown_counter" (int64). The rates are the optimizer's.
  StateDict state_dict() const;
  /// Takes over what state_dict() gave. Throws Error naming what is missing, left over or does not fit, with
  /// nothing changed.
  void load_state_dict(const StateDict& dict);

 private:
  bool better(double metric) const;

  Optimizer* optimizer_;
  ReduceOnPlateauOptions options_;
  double best_ = std::numeric_limits<double>::infinity();
  std::int64_t bad_ = 0;
  std::int64_t cooldown_ = 0;
};

}  // namespace lamella::optim
