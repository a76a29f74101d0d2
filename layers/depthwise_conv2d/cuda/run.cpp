#include "layers/depthwise_conv2d/cuda/run.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/cuda/check.h"
#include "core/cuda/compiler.h"
#include "core/workspace.h"
#include "layers/depthwise_conv2d/cuda/plan.h"

namespace lamella::depthwise {

extern const detail::cuda::SourceFile kDeviceSources[10];

}  // namespace lamella::depthwise

namespace lamella::cuda::depthwise {
namespace {

using detail::ConstTensorView;
using lamella::depthwise::BoxSizes;
using lamella::depthwise::BoxWork;
using lamella::depthwise::Pass;
using lamella::depthwise::Plan;
using lamella::depthwise::Problem;
using lamella::depthwise::TensorMap;

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

/// The driver's cuTensorMapEncodeTiled, by the types of its arguments alone; null: the driver or GPU has no
/// copy engine.
using EncodeTiled = int (*)(TensorMap* map, int data_type, std::uint32_t rank, void* address,
                            const std::uint64_t* sizes, const std::uint64_t* strides,
                            const std::uint32_t* box, const std::uint32_t* steps, int interleave, int swizzle,
                            int promotion, int fill);
EncodeTiled encode_tiled() {
  static const EncodeTiled found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
    constexpr unsigned kSince = 12000;
    const auto status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kSince,
                                                         cudaEnableDefault, &result);
#else
    const auto status =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &result);
#endif
    if (status != cudaSuccess || result != cudaDriverEntryPointSuccess) {
      cudaGetLastError();
      function = nullptr;
    }
    return reinterpret_cast<EncodeTiled>(function);
  }();
  return found;
}
bool has_copy_engine(Device device) {
  int major = 0;
  return encode_tiled() != nullptr &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index) == cudaSuccess &&
         major >= 9;
}

/// What the copy engine must know to move boxes of a tensor; false: it cannot.
bool describe(const ConstTensorView& view, const BoxSizes& box, TensorMap& map) {
  constexpr int kFloat16 = 6, kBFloat16 = 9, kNoInterleave = 0, kPromote128Bytes = 2, kFillZeros = 0;
  constexpr std::uint64_t kLargestStride = std::uint64_t{1} << 40, kLargestSize = std::uint64_t{1} << 32;
  constexpr std::uint32_t kRank = 4;
  const std::uint64_t number = size_of(view.dtype);
  std::array<std::uint64_t, kRank> sizes{};
  std::array<std::uint64_t, kRank - 1> strides{};
  constexpr std::array<int, kRank> kAxes{1, 3, 2, 0};
  for (std::uint32_t i = 0; i < kRank; ++i) sizes[i] = static_cast<std::uint64_t>(view.shape[kAxes[i]]);
  for (std::uint32_t i = 1; i < kRank; ++i) {
    // Of an axis of one, any stride will do.
    std::uint64_t stride = static_cast<std::uint64_t>(view.strides[kAxes[i]]) * number;
    if (sizes[i] == 1) stride = (sizes[0] * number + 15) / 16 * 16;
    if (view.strides[kAxes[i]] <= 0 || stride >= kLargestStride || stride % 16 != 0) return false;
    strides[i - 1] = stride;
  }
  for (const std::uint64_t size : sizes)
    if (size == 0 || size > kLargestSize) return false;
  const auto extent = [](int count, int step) { return static_cast<std::uint32_t>((count - 1) * step + 1); };
  const std::array<std::uint32_t, kRank> extents{
      static_cast<std::uint32_t>(box.channels), extent(box.pixels, box.pixel_step),
      extent(box.rows, box.row_step), static_cast<std::uint32_t>(box.images)};
  const std::array<std::uint32_t, kRank> steps{1, static_cast<std::uint32_t>(box.pixel_step),
                                               static_cast<std::uint32_t>(box.row_step), 1};
  const int swizzle = box.channels == 64 ? 3 : box.channels == 32 ? 2 : 1;  // of 128, 64 or 32 bytes
  return encode_tiled()(&map, view.dtype == DType::Float16 ? kFloat16 : kBFloat16, kRank,
                        const_cast<void*>(view.data), sizes.data(), strides.data(), extents.data(),
                        steps.data(), kNoInterleave, swizzle, kPromote128Bytes, kFillZeros) == 0;
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
         {static_cast<std::int64_t>(p.pass), static_cast<std::int64_t>(p.dtype),
          std::int64_t{p.channels_last}, g.batch, g.in_channels, g.out_channels, g.in.h, g.in.w, g.kernel.h,
          g.kernel.w, g.stride.h, g.padding.h, g.dilation.h})
      hash = hash * 0x9e3779b97f4a7c15u + static_cast<std::size_t>(part);
    return hash;
  }
};

/// Whether the best of two passes are estimated to take less time than one for both gradients.
bool two_passes_are_faster(Problem problem, const std::vector<Plan>& plans) {
  if (plans.empty()) return true;
  double sum = 0;
  for (const Pass pass : {Pass::Input, Pass::Weight}) {
    problem.pass = pass;
    const std::vector<Plan> single = lamella::depthwise::plans_for(problem);
    if (single.empty()) return false;
    sum += single.front().cost;
  }
  return sum < plans.front().cost;
}

/// The best plan whose kernel can be had; null: none, or two passes are better.
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
  if (problem.pass == Pass::Both && two_passes_are_faster(problem, plans)) plans.clear();
  for (std::size_t i = 0; i < std::min(plans.size(), kTries) && !choice; ++i)
    if (const void* const kernel = detail::cuda::kernel_for(device_sources(), plans[i].kernel, device))
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

const detail::cuda::Sources& device_sources() {
  static constexpr detail::cuda::Sources kSources{"depthwise_conv2d", lamella::depthwise::kDeviceSources};
  return kSources;
}

namespace {

/// A plan with the operands that play its parts; null where only the generic kernels can.
struct Choice {
  const Chosen* chosen = nullptr;
  ConstTensorView x, y;
  ConstTensorView from, into;  ///< what the kernel takes for its input and its output
  BoxWork boxes;               ///< with maps, where the plan wants them
};

Choice choice_for(const Conv2dGeometry& geometry, const Operands& o) {
  Problem problem;
  const bool forward = o.output.data != nullptr, input = o.grad_input.data != nullptr;
  problem.pass = forward ? Pass::Forward
                 : input ? (o.to != nullptr ? Pass::Both : Pass::Input)
                         : Pass::Weight;
  Choice choice;
  const ConstTensorView& x = choice.x =
      forward || problem.pass != Pass::Input ? o.input : ConstTensorView(o.grad_input);
  const ConstTensorView& y = choice.y = forward ? ConstTensorView(o.output) : o.grad_output;
  problem.dtype = y.dtype;
  problem.geometry = geometry;
  if (geometry.kernel.h == 1) problem.geometry.dilation.h = 1;
  if (geometry.kernel.w == 1) problem.geometry.dilation.w = 1;
  const auto is_each = [&](bool (*is)(const ConstTensorView&)) {
    return is(x) && is(y) && (!input || is(o.grad_input));
  };
  // Planes where a tensor is both: with one channel, or one pixel.
  if (!is_each(is_dense)) {
    if (!is_each(has_neighbouring_channels)) return choice;
    problem.channels_last = true;
  }
  int (*const alignment)(const ConstTensorView&) = problem.channels_last ? alignment_of : address_alignment;
  problem.input_alignment = std::min(alignment(x), input ? alignment(o.grad_input) : 16);
  problem.output_alignment = alignment(y);
  if (problem.pass != Pass::Weight && !has_dense_taps(o.weight)) return choice;
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  const std::int64_t largest = std::max(geometry.in.h * geometry.in.w, geometry.out.h * geometry.out.w);
  if (geometry.batch * geometry.out_channels > kMost || largest > kMost / 2) return choice;
  problem.bias = o.to != nullptr && o.to->bias.data != nullptr;
  problem.accumulate = o.accumulate;

  const Device device = y.device;
  problem.boxes = has_copy_engine(device);
  problem.exact_taps = problem.pass != Pass::Weight && o.weight.dtype == DType::Float32;
  const Chosen* const chosen = choose(problem, device);
  if (chosen == nullptr) return choice;
  const Plan& plan = chosen->plan;
  if (plan.clears && !o.accumulate && !is_run(o.grad_input)) return choice;
  choice.from = plan.turned ? y : x;
  choice.into = plan.turned ? ConstTensorView(o.grad_input) : y;
  if (plan.family == Plan::Family::Boxes) {
    BoxWork& boxes = choice.boxes;
    if (plan.x_box.channels > 0 && !describe(choice.from, plan.x_box, boxes.x)) return choice;
    if (plan.y_box.channels > 0 && !describe(choice.into, plan.y_box, boxes.y)) return choice;
    if (plan.dx_box.channels > 0 && !describe(o.grad_input, plan.dx_box, boxes.dx)) return choice;
  }
  choice.chosen = chosen;
  return choice;
}

}  // namespace

std::optional<std::int64_t> planned_workspace(const Conv2dGeometry& geometry, const Operands& operands) {
  const Choice choice = choice_for(geometry, operands);
  if (choice.chosen == nullptr) return std::nullopt;
  return choice.chosen->plan.workspace_bytes(geometry);
}

bool run_planned(const Conv2dGeometry& geometry, const Operands& o) {
  Choice choice = choice_for(geometry, o);
  const Chosen* const chosen = choice.chosen;
  if (chosen == nullptr) return false;
  const Plan& plan = chosen->plan;
  const bool forward = o.output.data != nullptr, input = !forward && o.grad_input.data != nullptr;
  const Device device = choice.y.device;
  const auto stream = static_cast<cudaStream_t>(current_stream(device).handle);
  if (plan.clears && !o.accumulate) {
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
  BoxWork& boxes = choice.boxes;
  lamella::depthwise::PixelWork& pixels = boxes.work;
  pixels = plan.pixels;
  lamella::depthwise::PlaneWork planes = plan.planes;
  const ConstTensorView &from = choice.from, &into = choice.into;
  void* work = &planes;
  if (plan.family == Plan::Family::Planes || plan.family == Plan::Family::Runs) {
    planes.x = from.data;
    planes.y = const_cast<void*>(into.data);
    planes.dx = o.grad_input.data;
    planes.channels = static_cast<int>(geometry.in_channels);
    planes.taps = parameters;
    planes.accumulate = o.accumulate;
    planes.parts = sums.as<float>();
  } else {
    pixels.x = pixels_of(from);
    pixels.y = pixels_of(into);
    if (input) pixels.dx = pixels_of(o.grad_input);
    pixels.taps = parameters;
    pixels.accumulate = o.accumulate;
    pixels.parts = sums.as<float>();
    work = &pixels;
    if (plan.family == Plan::Family::Boxes) work = &boxes;
  }
  void* arguments[] = {work};
  detail::cuda::check(cudaLaunchKernel(chosen->kernel, dim3(static_cast<unsigned>(plan.launch.blocks)),
                                       dim3(static_cast<unsigned>(plan.launch.threads)), arguments,
                                       static_cast<std::size_t>(plan.launch.shared_bytes), stream),
                      "depthwise_conv2d");
  if (o.to != nullptr) finish_rows(sums.as<float>(), plan.launch.parts, *o.to);
  return true;
}

}  // namespace lamella::cuda::depthwise
