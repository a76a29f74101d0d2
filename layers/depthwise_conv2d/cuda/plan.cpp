#include "layers/depthwise_conv2d/cuda/plan.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <span>
#include <utility>

#include "layers/depthwise_conv2d/cuda/plan_phases.h"
#include "layers/depthwise_conv2d/cuda/planning.h"

namespace lamella::depthwise {

bool operator==(const Problem& a, const Problem& b) {
  const Conv2dGeometry &g = a.geometry, &h = b.geometry;
  return a.pass == b.pass && a.dtype == b.dtype && a.channels_last == b.channels_last &&
         a.input_alignment == b.input_alignment && a.output_alignment == b.output_alignment &&
         a.input_gaps == b.input_gaps && a.output_gaps == b.output_gaps && a.bias == b.bias &&
         a.transforms == b.transforms && a.hardswish == b.hardswish && a.hook == b.hook &&
         a.accumulate == b.accumulate && a.boxes == b.boxes && a.exact_taps == b.exact_taps &&
         a.shared_bytes == b.shared_bytes && g.batch == h.batch && g.in_channels == h.in_channels &&
         g.out_channels == h.out_channels && g.in == h.in && g.out == h.out && g.kernel == h.kernel &&
         g.stride == h.stride && g.padding == h.padding && g.dilation == h.dilation;
}

bool describe_shape(const Problem& p, Shape& s) {
  const Conv2dGeometry& g = p.geometry;
  s = {};
  s.number = static_cast<int>(size_of(p.dtype));
  if (s.number > 4 || g.multiplier() > 8) return false;
  s.images = g.batch;
  s.channels = g.in_channels;
  s.out_channels = g.out_channels;
  s.kernel = {static_cast<int>(g.kernel.h), static_cast<int>(g.kernel.w), 1, 1,
              static_cast<int>(g.multiplier())};
  s.kernel.stride_h =
      divide_dilation(s.h, g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h);
  s.kernel.stride_w =
      divide_dilation(s.w, g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w);
  constexpr int kLargestKernel = 15, kLargestStride = 4, kMostClasses = 64;
  if (std::max(s.kernel.kernel_h, s.kernel.kernel_w) > kLargestKernel) return false;
  if (std::max(s.kernel.stride_h, s.kernel.stride_w) > kLargestStride) return false;
  if (std::max(s.h.output_step, s.w.output_step) > kMostClasses) return false;
  // What makes norm sums has the input at hand, as a walk over it does.
  const bool turns = p.pass == Pass::Input && p.hook == Hook::None;
  s.forward = p.pass == Pass::Forward || (turns && g.stride == Size2(1) && g.multiplier() == 1);
  s.turned = s.forward && p.pass == Pass::Input;
  if (s.turned)
    for (Axis* axis : {&s.h, &s.w}) {
      std::swap(axis->input, axis->output);
      axis->padding = static_cast<int>((axis == &s.h ? g.kernel.h - 1 : g.kernel.w - 1)) * axis->input_step -
                      axis->padding;
    }
  return true;
}

namespace {

void sort_by_cost(std::span<Plan> plans) {
  std::stable_sort(plans.begin(), plans.end(), [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
}

/// Milliseconds for zeros in all of the input's gradient, which none needs that is added to.
double clear_cost(const Problem& p) {
  if (p.accumulate) return 0;
  constexpr double kWrite = 3.5e9;  // bytes a millisecond
  const Conv2dGeometry& g = p.geometry;
  return static_cast<double>(g.batch * g.in_channels * g.in.h * g.in.w) *
         static_cast<double>(size_of(p.dtype)) / kWrite;
}

/// What estimates of large problems are multiplied by: about what plans took over them, as means over 810
/// problems, and some 100 on which estimates had been worst (docs/performance.md, item 33). Of planes 1.1
/// to 1.4 times that: theirs are off by a factor of 1.5 either way, and of many the best by estimate is one
/// that is better by estimate alone.
double measured_over_estimated(const Problem& p, const Plan& plan) {
  using Family = Plan::Family;
  constexpr std::int64_t kManyTaps = 40, kFewChannels = 4;
  constexpr int kManyThreads = 256;
  const Conv2dGeometry& g = p.geometry;
  const bool repeats = g.multiplier() > 1, many_taps = g.kernel.h * g.kernel.w > kManyTaps;
  // Rows, or columns, that no tap meets.
  const bool skips_rows = std::gcd(g.stride.h, g.dilation.h) > 1,
             skips = skips_rows || std::gcd(g.stride.w, g.dilation.w) > 1;
  const double threads = plan.launch.threads > kManyThreads ? 1.3 : 1;
  switch (plan.family) {
    case Family::Planes:
      if (p.pass == Pass::Forward) return 2 * threads * (repeats ? 1.2 : 1);
      if (p.pass != Pass::Input) return 3.2 * threads * (skips_rows ? 0.66 : 1);
      return plan.turned ? 1.7 : 2.2 * threads * (repeats ? 1.3 : 1) * (skips ? 0.66 : 1);
    case Family::Pixels:
      if (p.pass == Pass::Forward) return 0.92;
      if (p.pass != Pass::Input) return p.pass == Pass::Weight ? 1 : 1.2;
      return (g.stride.w > 1 ? 1.5 : 1.15) * (g.in_channels <= kFewChannels ? 1.25 : 1);
    case Family::Runs:
      if (p.pass == Pass::Forward) return 1;
      if (p.pass == Pass::Input) return many_taps ? 1.5 : 1.05;
      return many_taps ? 1.7 : p.pass == Pass::Weight ? 1.12 : 1.2;
    default:
      return 1;
  }
}

/// Whether all estimates are compared.
bool compares_all(Problem p, const Shape& s) {
  // What both gradients take at once is compared with what each takes.
  if (p.pass == Pass::Both) p.pass = Pass::Input;
  return is_large(p, s) && (p.channels_last ? may_use_rolling(p, s) : may_use_phases(p, s));
}

/// Adds plans of phases and of rolling rows. Where all estimates are compared, puts all plans in order by
/// what they may take; else the new ones are behind.
void join_phase_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  std::vector<Plan> phases;
  add_phase_plans(p, s, phases);
  p.channels_last ? add_rolling_plans(p, s, phases) : add_rolling_plane_plans(p, s, phases);
  for (Plan& plan : phases)
    if (plan.clears) plan.cost += clear_cost(p);
  sort_by_cost(phases);
  plans.insert(plans.end(), std::make_move_iterator(phases.begin()), std::make_move_iterator(phases.end()));
  if (!compares_all(p, s)) return;
  for (Plan& plan : plans) plan.cost *= measured_over_estimated(p, plan);
  sort_by_cost(plans);
}

}  // namespace

std::vector<Plan> plans_for(const Problem& p) {
  std::vector<Plan> plans;
  Shape s{};
  if (!describe_shape(p, s)) return plans;
  const bool all_are_read = p.geometry.stride == Size2(s.kernel.stride_h, s.kernel.stride_w);
  add_run_plans(p, s, plans);
  add_matrix_plans(p, s, plans);
  add_diagonal_plans(p, s, plans);
  add_pair_plans(p, plans);
  add_column_plans(p, s, plans);
  add_position_plans(p, s, plans);
  const std::size_t before_planes = plans.size();
  const bool reads_some = (p.pass == Pass::Both || p.hook == Hook::NormSums) && !all_are_read;
  if (!reads_some) {
    add_box_plans(p, s, plans);
    p.channels_last ? add_pixel_plans(p, s, plans) : add_plane_plans(p, s, plans);
    add_direct_plans(p, s, plans);
    add_float_box_plans(p, s, plans);
    add_toeplitz_box_plans(p, s, plans);
    add_map_box_plans(p, s, plans);
    add_hankel_box_plans(p, s, plans);
  }
  for (Plan& plan : plans) {
    plan.turned = s.turned;
    plan.clears = p.pass != Pass::Forward && p.pass != Pass::Weight && !all_are_read &&
                  (plan.clears || plan.has_pixels());
    if (plan.clears) plan.cost += clear_cost(p);
  }
  // Estimates of planes do not compare with the others, which have come out ahead.
  const std::size_t ahead = p.channels_last ? 0 : before_planes;
  sort_by_cost(std::span(plans).first(ahead));
  sort_by_cost(std::span(plans).subspan(ahead));
  if (!plans.empty()) join_phase_plans(p, s, plans);
  return plans;
}

}  // namespace lamella::depthwise
