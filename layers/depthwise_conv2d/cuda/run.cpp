#include "layers/depthwise_conv2d/cuda/run.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/cuda/check.h"
#include "core/cuda/compiler.h"
#include "core/cuda/copy_engine.h"
#include "core/cuda/launch.h"
#include "core/cuda/stream.h"
#include "core/workspace.h"
#include "layers/depthwise_conv2d/cuda/maps.h"
#include "layers/depthwise_conv2d/cuda/plan.h"
#include "layers/depthwise_conv2d/cuda/tuning.h"

namespace lamella::depthwise {

extern const std::span<const detail::cuda::SourceFile> kDeviceSources;

}  // namespace lamella::depthwise

namespace lamella::cuda::depthwise {
namespace {

using detail::ConstTensorView;
using lamella::depthwise::BoxWork;
using lamella::depthwise::Hook;
using lamella::depthwise::PairWork;
using lamella::depthwise::Pass;
using lamella::depthwise::PhaseCut;
using lamella::depthwise::PhaseRaw;
using lamella::depthwise::Plan;
using lamella::depthwise::Problem;
using lamella::depthwise::Tuning;

/// Whether a tensor is [N,C,H,W] without gaps.
bool is_dense(const ConstTensorView& view) {
  std::int64_t expected = 1;
  for (int axis = 3; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}
bool has_neighbouring_channels(const ConstTensorView& view) {
  return view.shape[1] == 1 || view.strides[1] == 1;
}

/// Whether pixels of neighbouring channels lie further apart than these take.
bool has_gaps(const ConstTensorView& view) { return view.shape[3] != 1 && view.strides[3] != view.shape[1]; }

/// The largest power of two up to 16 that divides the view's address and, in bytes, the distances of its
/// pixels.
int alignment_of(const ConstTensorView& view) {
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(view.data) | 16;
  for (const int axis : {0, 2, 3})
    if (view.shape[axis] != 1) bits |= static_cast<std::uintptr_t>(view.strides[axis]) * size_of(view.dtype);
  bits |= static_cast<std::uintptr_t>(view.shape[1]) * size_of(view.dtype);
  return static_cast<int>(bits & (~bits + 1));
}

/// The largest power of two up to 16 that divides the view's address.
int address_alignment(const ConstTensorView& view) {
  const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(view.data) | 16;
  return static_cast<int>(bits & (~bits + 1));
}

/// Taps [C·m, 1, kh, kw] without gaps.
bool has_dense_taps(const ConstTensorView& weight) {
  const std::int64_t kw = weight.shape[3], taps = weight.shape[2] * kw;
  return (weight.shape[0] == 1 || weight.strides[0] == taps) &&
         (weight.shape[2] == 1 || weight.strides[2] == kw) && (kw == 1 || weight.strides[3] == 1);
}

struct Hash {
  std::size_t operator()(const std::pair<Problem, int>& key) const {
    std::size_t hash = static_cast<std::size_t>(key.second);
    const Problem& p = key.first;
    const Conv2dGeometry& g = p.geometry;
    for (const std::int64_t part :
         {static_cast<std::int64_t>(p.pass), static_cast<std::int64_t>(p.dtype),
          std::int64_t{p.channels_last}, std::int64_t{p.transforms}, std::int64_t{p.hardswish},
          static_cast<std::int64_t>(p.hook), g.batch, g.in_channels, g.out_channels, g.in.h, g.in.w,
          g.kernel.h, g.kernel.w, g.stride.h, g.padding.h, g.dilation.h})
      hash = hash * 0x9e3779b97f4a7c15u + static_cast<std::size_t>(part);
    return hash;
  }
};

lamella::depthwise::Pixels pixels_of(const ConstTensorView& view) {
  return {const_cast<void*>(view.data), view.strides[0], view.strides[2], view.strides[3]};
}

lamella::depthwise::PhaseTensor strided(const ConstTensorView& view) {
  // Of one column any stride will do, and kernels of channels side by side may be compiled for this one.
  const std::int64_t column = view.shape[3] == 1 ? view.shape[1] : view.strides[3];
  return {const_cast<void*>(view.data), view.strides[0], view.strides[1], view.strides[2], column};
}

lamella::depthwise::GradientTarget target_of(const detail::TensorView& view, bool add) {
  lamella::depthwise::GradientTarget target;
  target.data = view.data;
  if (view.data == nullptr) return target;
  target.is_float32 = view.dtype == DType::Float32, target.add = add;
  target.channel = view.strides[0];
  if (view.shape.size() > 1) target.row = view.strides[2], target.column = view.strides[3];
  return target;
}

/// Whether a view's numbers are one run of memory, in either format.
bool is_run(const ConstTensorView& view) {
  std::int64_t last = 0;
  for (int axis = 0; axis < 4; ++axis) last += (view.shape[axis] - 1) * view.strides[axis];
  return last + 1 == view.numel();
}

}  // namespace

const Tuning& tuning_of(Device device) {
  static std::mutex mutex;
  static std::map<int, Tuning> tunings;
  const std::lock_guard lock(mutex);
  const auto found = tunings.find(device.index);
  if (found != tunings.end()) return found->second;
  cudaDeviceProp properties{};
  detail::cuda::check(cudaGetDeviceProperties(&properties, device.index), "cudaGetDeviceProperties");
  // Of one problem a user's own choice goes first.
  Tuning tuning = lamella::depthwise::extend(lamella::depthwise::tuning_from_environment(properties.name));
  tuning.merge(lamella::depthwise::extend(lamella::depthwise::shipped_tuning(properties.name)));
  return tunings.emplace(device.index, std::move(tuning)).first->second;
}

const Chosen* choose(const Problem& problem, Device device) {
  constexpr std::size_t kTries = 3;
  using Key = std::pair<Problem, int>;
  static std::shared_mutex mutex;
  static std::unordered_map<Key, std::unique_ptr<const Chosen>, Hash> chosen;
  const Key key(problem, device.index);
  {
    const std::shared_lock lock(mutex);
    const auto found = chosen.find(key);
    if (found != chosen.end()) return found->second.get();
  }
  std::unique_ptr<Chosen> choice;
  std::vector<Plan> plans = lamella::depthwise::plans_to_try(problem, tuning_of(device));
  for (std::size_t i = 0; i < std::min(plans.size(), kTries) && !choice; ++i)
    if (const void* const kernel = detail::cuda::kernel_for(device_sources(), plans[i].kernel, device))
      choice = std::make_unique<Chosen>(Chosen{std::move(plans[i]), kernel});
  const std::unique_lock lock(mutex);
  return chosen.emplace(key, std::move(choice)).first->second.get();
}

const detail::cuda::Sources& device_sources() {
  static const detail::cuda::Sources kSources{"depthwise_conv2d", lamella::depthwise::kDeviceSources};
  return kSources;
}

namespace {

/// What a kernel takes for its input and its output.
struct Bound {
  ConstTensorView from, into;
  BoxWork boxes;             ///< with maps, where the plan wants them
  std::vector<Bound> kinds;  ///< of a pair's
};

/// False: the plan does not suit these operands.
bool bind(const Plan& plan, const Operands& o, Bound& bound) {
  if (plan.family == Plan::Family::Pairs) {
    Operands of_input = o, of_weight = o;
    of_input.to = nullptr, of_weight.grad_input = {};
    bound.kinds.resize(plan.kinds.size());
    return bind(plan.kinds[0], of_input, bound.kinds[0]) && bind(plan.kinds[1], of_weight, bound.kinds[1]);
  }
  const bool forward = o.output.data != nullptr;
  const ConstTensorView x =
      forward || o.to != nullptr || o.hook == Hook::NormSums ? o.input : ConstTensorView(o.grad_input);
  const ConstTensorView y = forward ? ConstTensorView(o.output) : o.grad_output;
  if (plan.clears && !o.accumulate && !is_run(o.grad_input)) return false;
  const bool is_reverse = plan.turned || plan.phases.h.scatters;
  bound.from = is_reverse ? y : x;
  bound.into = is_reverse ? ConstTensorView(o.grad_input) : y;
  if (plan.family == Plan::Family::Phases) {
    // Rows that are copied as one piece have no gaps.
    const auto has_no_gaps = [](const PhaseRaw& raw, int every, const ConstTensorView& view) {
      return raw.by_columns || view.shape[3] == 1 ||
             raw.column_bytes == every * view.strides[3] * static_cast<std::int64_t>(size_of(view.dtype));
    };
    const PhaseCut& cut = plan.phases.cut;
    return has_no_gaps(cut.source_raw, plan.phases.w.source_every, bound.from) &&
           (cut.target_bytes == 0 || has_no_gaps(cut.target_raw, 1, bound.into));
  }
  BoxWork& boxes = bound.boxes;
  if ((plan.x_images.images > 0 && !describe(bound.from, plan.x_images, boxes.x)) ||
      (plan.y_images.images > 0 && !describe(bound.into, plan.y_images, boxes.y)))
    return false;
  if (!plan.moves_boxes()) return true;
  return (plan.x_box.channels == 0 || describe(bound.from, plan.x_box, boxes.x)) &&
         (plan.y_box.channels == 0 || describe(bound.into, plan.y_box, boxes.y)) &&
         (plan.dx_box.channels == 0 || describe(o.grad_input, plan.dx_box, boxes.dx));
}

}  // namespace

bool describe_problem(const Conv2dGeometry& geometry, const Operands& o, Problem& problem) {
  const bool forward = o.output.data != nullptr, input = o.grad_input.data != nullptr;
  problem.pass = forward ? Pass::Forward
                 : input ? (o.to != nullptr ? Pass::Both : Pass::Input)
                         : Pass::Weight;
  const bool reads_input = problem.pass != Pass::Input || o.hook == Hook::NormSums;
  const ConstTensorView x = reads_input ? o.input : ConstTensorView(o.grad_input);
  const ConstTensorView y = forward ? ConstTensorView(o.output) : o.grad_output;
  problem.dtype = y.dtype;
  problem.geometry = geometry;
  if (geometry.kernel.h == 1) problem.geometry.dilation.h = 1;
  if (geometry.kernel.w == 1) problem.geometry.dilation.w = 1;
  const auto is_each = [&](bool (*is)(const ConstTensorView&)) {
    return is(x) && is(y) && (!input || is(o.grad_input));
  };
  // Planes where a tensor is both: with one channel, or one pixel.
  if (!is_each(is_dense)) {
    if (!is_each(has_neighbouring_channels)) return false;
    problem.channels_last = true;
  }
  int (*const alignment)(const ConstTensorView&) = problem.channels_last ? alignment_of : address_alignment;
  problem.input_alignment = std::min(alignment(x), input ? alignment(o.grad_input) : 16);
  problem.output_alignment = alignment(y);
  problem.input_gaps = problem.channels_last && (has_gaps(x) || (input && has_gaps(o.grad_input)));
  problem.output_gaps = problem.channels_last && has_gaps(y);
  if (problem.pass != Pass::Weight && !has_dense_taps(o.weight)) return false;
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  const std::int64_t largest = std::max(geometry.in.h * geometry.in.w, geometry.out.h * geometry.out.w);
  if (geometry.batch * geometry.out_channels > kMost || largest > kMost / 2) return false;
  problem.bias = o.to != nullptr && o.to->bias.data != nullptr;
  problem.accumulate = o.accumulate;
  problem.transforms = o.transform.scale != nullptr;
  problem.hardswish = problem.transforms && o.transform.hardswish;
  problem.hook = o.hook;

  problem.boxes = detail::cuda::has_copy_engine(y.device);
  problem.shared_bytes = detail::cuda::most_shared_bytes(y.device);
  problem.exact_taps = problem.pass != Pass::Weight && o.weight.dtype == DType::Float32;
  return true;
}

bool run_plan(const Plan& plan, const void* kernel, const Conv2dGeometry& geometry, const Operands& o) {
  Bound bound;
  if (!bind(plan, o, bound)) return false;
  const bool forward = o.output.data != nullptr, input = !forward && o.grad_input.data != nullptr;
  const Device device = o.device();
  if (plan.clears && !o.accumulate) {
    const std::size_t bytes = static_cast<std::size_t>(o.grad_input.numel()) * size_of(o.grad_input.dtype);
    detail::cuda::check(cudaMemsetAsync(o.grad_input.data, 0, bytes, detail::cuda::stream_of(device)),
                        "depthwise_conv2d");
  }
  // What somebody else merges gets memory of its own.
  detail::LeftParts* const left = o.hook != Hook::None ? o.results.left : nullptr;
  const Hook merged = left != nullptr ? Hook::None : o.hook;
  detail::GradientParts* const weights_left = o.to != nullptr ? o.to->left : nullptr;
  const bool needs_memory = weights_left == nullptr || merged != Hook::None;
  const detail::Workspace sums(device, needs_memory ? plan.workspace_bytes(geometry, merged) : 0);
  float* parts = sums.as<float>();
  // Direct kernels have all of a sum, and write gradients of these types themselves.
  const auto is_written = [&](const detail::TensorView& gradient) {
    return gradient.data == nullptr || gradient.dtype == DType::Float32 ||
           gradient.dtype == o.grad_output.dtype;
  };
  const bool finishes = plan.family == Plan::Family::Direct && o.to != nullptr && weights_left == nullptr &&
                        is_written(o.to->weight) && is_written(o.to->bias) &&
                        (o.to->weight.data != nullptr || o.to->bias.data != nullptr);
  if (weights_left != nullptr) {
    const std::int64_t taps = geometry.kernel.h * geometry.kernel.w;
    parts = weights_left->take(plan.launch.parts, geometry.out_channels, taps, taps + 1);
  }
  lamella::depthwise::StoreHook hook;
  if (left != nullptr)
    hook.parts = static_cast<float*>(left->take_interleaved(
        DType::Float32, plan.launch.hook_parts,
        o.hook == Hook::Statistics ? lamella::depthwise::kMomentFloats : lamella::depthwise::kNormSumFloats));
  else if (o.hook != Hook::None)
    hook.parts = sums.as<float>() + plan.part_floats(geometry);
  hook.center = o.results.center;

  lamella::depthwise::Parameters parameters;
  parameters.taps = o.weight.data;
  parameters.taps_are_float32 = o.weight.dtype == DType::Float32;
  parameters.bias = o.bias.data;
  parameters.bias_is_float32 = o.bias.dtype == DType::Float32;
  // Of either kind of work what all of it has.
  const auto describe_work = [&](const Plan& of, auto& work) {
    work.taps = parameters;
    work.taps.turned = of.turned;
    work.accumulate = o.accumulate;
    work.transform = o.transform;
    work.hook = hook;
    work.parts = parts;
  };
  const auto planes_for = [&](const Plan& of, const Bound& to) {
    lamella::depthwise::PlaneWork work = of.planes;
    work.x = to.from.data;
    work.y = const_cast<void*>(to.into.data);
    work.dx = o.grad_input.data;
    work.channels = static_cast<int>(of.family != Plan::Family::Planes && forward ? geometry.out_channels
                                                                                  : geometry.in_channels);
    if (of.x_images.images > 0) work.x_images = to.boxes.x;
    if (of.y_images.images > 0) work.y_images = to.boxes.y;
    describe_work(of, work);
    return work;
  };
  const auto describe_pixels = [&](const Plan& of, Bound& to) {
    lamella::depthwise::PixelWork& work = to.boxes.work;
    work = of.pixels;
    work.x = pixels_of(to.from);
    work.y = pixels_of(to.into);
    if (input) work.dx = pixels_of(o.grad_input);
    describe_work(of, work);
    if (finishes) {
      work.dw = target_of(o.to->weight, o.to->add_weight);
      work.db = target_of(o.to->bias, o.to->add_bias);
    }
  };
  lamella::depthwise::PlaneWork planes;
  lamella::depthwise::PhaseWork phases;
  PairWork<lamella::depthwise::PlaneWork> plane_pair;
  PairWork<BoxWork> box_pair;
  void* work = &planes;
  if (plan.family == Plan::Family::Pairs) {
    const Plan &of_input = plan.kinds[0], &of_weight = plan.kinds[1];
    const bool has_boxes = of_input.moves_boxes();
    if (has_boxes) {
      for (std::size_t i = 0; i < plan.kinds.size(); ++i) describe_pixels(plan.kinds[i], bound.kinds[i]);
      box_pair = {bound.kinds[0].boxes, bound.kinds[1].boxes, static_cast<int>(of_input.launch.blocks),
                  static_cast<int>(of_weight.launch.blocks)};
      work = &box_pair;
    } else {
      plane_pair = {planes_for(of_input, bound.kinds[0]), planes_for(of_weight, bound.kinds[1]),
                    static_cast<int>(of_input.launch.blocks), static_cast<int>(of_weight.launch.blocks)};
      work = &plane_pair;
    }
  } else if (plan.has_phases()) {
    phases = plan.phases;
    phases.source = strided(bound.from), phases.target = strided(bound.into);
    phases.taps = parameters;
    phases.accumulate = o.accumulate;
    phases.parts = parts;
    work = &phases;
  } else if (!plan.has_pixels()) {
    planes = planes_for(plan, bound);
  } else {
    describe_pixels(plan, bound);
    work = plan.moves_boxes() ? static_cast<void*>(&bound.boxes) : &bound.boxes.work;
  }
  void* arguments[] = {work};
  lamella::depthwise::each_output(planes, input, [&] {
    detail::cuda::launch_early("depthwise_conv2d", device, static_cast<unsigned>(plan.launch.blocks),
                               static_cast<unsigned>(plan.launch.threads),
                               static_cast<std::size_t>(plan.launch.shared_bytes), kernel, arguments);
  });
  if (o.to != nullptr && weights_left == nullptr && !finishes) finish_rows(parts, plan.launch.parts, *o.to);
  if (left != nullptr) return true;
  if (o.hook == Hook::Statistics)
    finish_statistics(hook.parts, plan.launch.hook_parts, geometry.out_channels, device, o.results);
  if (o.hook == Hook::NormSums)
    finish_norm_sums(hook.parts, plan.launch.hook_parts, geometry.in_channels, device, o.results);
  return true;
}

bool run_planned(const Conv2dGeometry& geometry, const Operands& operands) {
  Problem problem;
  if (!describe_problem(geometry, operands, problem)) return false;
  const Chosen* const chosen = choose(problem, operands.device());
  return chosen != nullptr && run_plan(chosen->plan, chosen->kernel, geometry, operands);
}

std::optional<std::int64_t> planned_workspace(const Conv2dGeometry& geometry, const Operands& operands) {
  Problem problem;
  if (!describe_problem(geometry, operands, problem)) return std::nullopt;
  const Chosen* const chosen = choose(problem, operands.device());
  Bound bound;
  if (chosen == nullptr || !bind(chosen->plan, operands, bound)) return std::nullopt;
  return chosen->plan.workspace_bytes(geometry, operands.hook);
}

}  // namespace lamella::cuda::depthwise
