#include "layers/depthwise_conv2d/cuda/run.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "core/cuda/check.h"
#include "core/cuda/compiler.h"
#include "core/workspace.h"
#include "layers/depthwise_conv2d/cuda/plan.h"

namespace lamella::depthwise {

extern const detail::cuda::SourceFile kDeviceSources[8];

}  // namespace lamella::depthwise

namespace lamella::cuda::depthwise {
namespace {

using detail::ConstTensorView;
using lamella::depthwise::Pass;
using lamella::depthwise::Plan;
using lamella::depthwise::Problem;

constexpr detail::cuda::Sources kSources{"depthwise_conv2d", lamella::depthwise::kDeviceSources};

/// Whether a tensor is [N,C,H,W] without gaps.
bool is_dense(const ConstTensorView& view) {
  std::int64_t expected = 1;
  for (int axis = 3; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != expected) return false;
    expected *= view.shape[axis];
  }
  return true;
}
bool has_neighbouring_channels(const ConstTensorView& view) { return view.shape[1] == 1 || view.strides[1] == 1; }

/// The largest power of two up to 16 that divides the view's address and, in bytes, the distances of its pixels.
int alignment_of(const ConstTensorView& view) {
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(view.data) | 16;
  for (const int axis : {0, 2, 3})
    if (view.shape[axis] != 1) bits |= static_cast<std::uintptr_t>(view.strides[axis]) * size_of(view.dtype);
  bits |= static_cast<std::uintptr_t>(view.shape[1]) * size_of(view.dtype);
  return static_cast<int>(bits & (~bits + 1));
}

/// Taps [C·m, 1, kh, kw] without gaps.
bool has_dense_taps(const ConstTensorView& weight) {
  const std::int64_t kw = weight.shape[3], taps = weight.shape[2] * kw;
  return (weight.shape[0] == 1 || weight.strides[0] == taps) && (weight.shape[2] == 1 || weight.strides[2] == kw) &&
         (kw == 1 || weight.strides[3] == 1);
}

struct Chosen {
  Plan plan;
  const void* kernel = nullptr;
};

struct Hash {
  std::size_t operator()(const std::pair<Problem, int>& key) const {
    std::size_t hash = static_cast<std::size_t>(key.second);
    const Problem& p = key.first;
    const Conv2dGeometry& g = p.geometry;
    for (const std::int64_t part :
         {static_cast<std::int64_t>(p.pass), static_cast<std::int64_t>(p.dtype), std::int64_t{p.channels_last}, g.batch,
          g.in_channels, g.out_channels, g.in.h, g.in.w, g.kernel.h, g.kernel.w, g.stride.h, g.padding.h, g.dilation.h})
      hash = hash * 0x9e3779b97f4a7c15u + static_cast<std::size_t>(part);
    return hash;
  }
};

/// The best plan whose kernel can be had; null: none.
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
  std::vector<Plan> plans = lamella::depthwise::plans_for(problem);
  for (std::size_t i = 0; i < std::min(plans.size(), kTries) && !choice; ++i)
    if (const void* const kernel = detail::cuda::kernel_for(kSources, plans[i].kernel, device))
      choice = std::make_unique<Chosen>(Chosen{std::move(plans[i]), kernel});
  const std::unique_lock lock(mutex);
  return chosen.emplace(key, std::move(choice)).first->second.get();
}

lamella::depthwise::Pixels pixels_of(const ConstTensorView& view) {
  return {const_cast<void*>(view.data), view.strides[0], view.strides[2], view.strides[3]};
}

/// Whether a view's numbers are one run of memory, in either format.
bool is_run(const ConstTensorView& view) {
  std::int64_t last = 0;
  for (int axis = 0; axis < 4; ++axis) last += (view.shape[axis] - 1) * view.strides[axis];
  return last + 1 == view.numel();
}

}  // namespace

bool run_planned(const Conv2dGeometry& geometry, const Operands& o) {
  Problem problem;
  const bool forward = o.output.data != nullptr, input = o.grad_input.data != nullptr;
  problem.pass = forward ? Pass::Forward : input ? (o.to != nullptr ? Pass::Both : Pass::Input) : Pass::Weight;
  const ConstTensorView x = forward || problem.pass != Pass::Input ? o.input : ConstTensorView(o.grad_input);
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
    problem.input_alignment = std::min(alignment_of(x), input ? alignment_of(o.grad_input) : 16);
    problem.output_alignment = alignment_of(y);
  }
  if (problem.pass != Pass::Weight && !has_dense_taps(o.weight)) return false;
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  const std::int64_t largest = std::max(geometry.in.h * geometry.in.w, geometry.out.h * geometry.out.w);
  if (geometry.batch * geometry.out_channels > kMost || largest > kMost / 2) return false;
  problem.bias = o.to != nullptr && o.to->bias.data != nullptr;
  problem.accumulate = o.accumulate;

  const Device device = y.device;
  const Chosen* const chosen = choose(problem, device);
  if (chosen == nullptr) return false;
  const Plan& plan = chosen->plan;
  const auto stream = static_cast<cudaStream_t>(current_stream(device).handle);
  if (plan.clears && !o.accumulate) {
    if (!is_run(o.grad_input)) return false;
    const std::size_t bytes = static_cast<std::size_t>(o.grad_input.numel()) * size_of(o.grad_input.dtype);
    detail::cuda::check(cudaMemsetAsync(o.grad_input.data, 0, bytes, stream), "depthwise_conv2d");
  }
  const detail::Workspace sums(device, plan.workspace_bytes(geometry));

  lamella::depthwise::Parameters parameters;
  parameters.taps = o.weight.data;
  parameters.taps_are_float32 = o.weight.dtype == DType::Float32;
  parameters.bias = o.bias.data;
  parameters.bias_is_float32 = o.bias.dtype == DType::Float32;
  parameters.turned = plan.turned;
  lamella::depthwise::PixelWork pixels = plan.pixels;
  lamella::depthwise::PlaneWork planes = plan.planes;
  void* work = nullptr;
  if (plan.has_planes) {
    planes.x = plan.turned ? y.data : x.data;
    planes.y = plan.turned ? o.grad_input.data : const_cast<void*>(y.data);
    planes.dx = o.grad_input.data;
    planes.channels = static_cast<int>(geometry.in_channels);
    planes.taps = parameters;
    planes.accumulate = o.accumulate;
    planes.parts = sums.as<float>();
    work = &planes;
  } else {
    pixels.x = pixels_of(plan.turned ? y : x);
    pixels.y = pixels_of(plan.turned ? ConstTensorView(o.grad_input) : y);
    if (input) pixels.dx = pixels_of(o.grad_input);
    pixels.taps = parameters;
    pixels.accumulate = o.accumulate;
    pixels.parts = sums.as<float>();
    work = &pixels;
  }
  void* arguments[] = {work};
  detail::cuda::check(
      cudaLaunchKernel(chosen->kernel, dim3(static_cast<unsigned>(plan.launch.blocks)),
                       dim3(static_cast<unsigned>(plan.launch.threads)), arguments,
                       static_cast<std::size_t>(plan.launch.shared_bytes), stream),
      "depthwise_conv2d");
  if (o.to != nullptr) finish_rows(sums.as<float>(), plan.launch.parts, *o.to);
  return true;
}

}  // namespace lamella::cuda::depthwise
