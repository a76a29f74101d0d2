#include "layers/depthwise_conv2d/cuda/plan.h"

#include <algorithm>
#include <utility>

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

/// What estimates are multiplied by where they are compared with those of phases and rolling rows: so that
/// the faster was chosen most often of 400 random geometries (docs/performance.md, item 32).
double measured_over_estimated(const Problem& p, const Plan& plan) {
  using Family = Plan::Family;
  constexpr std::int64_t kLarge = 40;  // taps
  const Size2 kernel = p.geometry.kernel;
  const bool repeats = p.geometry.multiplier() > 1, strides = p.geometry.stride.w > 1;
  const bool planes = plan.family == Family::Planes, pixels = plan.family == Family::Pixels;
  switch (p.pass) {
    case Pass::Forward:
      return planes ? (repeats ? 2.1 : 1.75) : pixels ? 0.9 : 1;
    case Pass::Input:
      return planes ? (repeats ? 2.1 : 1.6) : pixels ? (strides ? 1.5 : 1.15) : 1.05;
    default:
      return planes ? 2.2 : plan.family != Family::Runs ? 1 : kernel.h * kernel.w > kLarge ? 1.7 : 1.12;
  }
}

/// Adds plans of phases and of rolling rows: in front those that seem faster than the first of the others,
/// the rest behind. Of little work none is in front: their estimates were fitted to 50 MB and more, and are
/// wrong by far at 1 MB.
void join_phase_plans(const Problem& p, const Shape& s, std::vector<Plan>& plans) {
  constexpr std::int64_t kLeastBytes = 16 << 20;
  const Conv2dGeometry& g = p.geometry;
  const std::int64_t bytes =
      g.batch * (g.in_channels * g.in.h * g.in.w + g.out_channels * g.out.h * g.out.w) * s.number;
  const double first =
      bytes < kLeastBytes ? 0 : plans.front().cost * measured_over_estimated(p, plans.front());
  std::vector<Plan> phases;
  add_phase_plans(p, s, phases);
  p.channels_last ? add_rolling_plans(p, s, phases) : add_rolling_plane_plans(p, s, phases);
  std::stable_sort(phases.begin(), phases.end(),
                   [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
  const auto slower =
      std::find_if(phases.begin(), phases.end(), [&](const Plan& plan) { return plan.cost >= first; });
  plans.insert(plans.end(), slower, phases.end());
  plans.insert(plans.begin(), phases.begin(), slower);
}

}  // namespace

std::vector<Plan> plans_for(const Problem& p) {
  std::vector<Plan> plans;
  Shape s{};
  if (!describe_shape(p, s)) return plans;
  const bool all_are_read = p.geometry.stride == Size2(s.kernel.stride_h, s.kernel.stride_w);
  const auto sort_by_cost = [&] {
    std::stable_sort(plans.begin(), plans.end(),
                     [](const Plan& a, const Plan& b) { return a.cost < b.cost; });
  };
  add_run_plans(p, s, plans);
  add_matrix_plans(p, s, plans);
  add_diagonal_plans(p, s, plans);
  add_pair_plans(p, plans);
  add_column_plans(p, s, plans);
  add_position_plans(p, s, plans);
  sort_by_cost();
  const bool reads_some = (p.pass == Pass::Both || p.hook == Hook::NormSums) && !all_are_read;
  if (!reads_some) {
    add_box_plans(p, s, plans);
    p.channels_last ? add_pixel_plans(p, s, plans) : add_plane_plans(p, s, plans);
    add_direct_plans(p, s, plans);
    add_float_box_plans(p, s, plans);
    add_toeplitz_box_plans(p, s, plans);
    add_hankel_box_plans(p, s, plans);
  }
  // Estimates of planes do not compare with the others, which have come out ahead.
  if (p.channels_last) sort_by_cost();
  for (Plan& plan : plans) {
    plan.turned = s.turned;
    plan.clears = p.pass != Pass::Forward && p.pass != Pass::Weight && !all_are_read &&
                  (plan.clears || plan.has_pixels());
  }
  if (!plans.empty()) join_phase_plans(p, s, plans);
  return plans;
}

}  // namespace lamella::depthwise
