#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/cuda/copy_engine.h"
#include "core/cuda/launch.h"
#include "core/workspace.h"
#include "layers/conv/cuda/pointwise/maps.h"
#include "layers/conv/cuda/pointwise/pointwise.h"
#include "layers/dense.h"
#include "tensor/kernels/copy.h"

namespace lamella::pointwise {

extern const std::span<const detail::cuda::SourceFile> kDeviceSources;

}  // namespace lamella::pointwise

namespace lamella::cuda::pointwise {
namespace {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;
using lamella::pointwise::ceiling;
using lamella::pointwise::Factors;
using lamella::pointwise::FinishSumsWork;
using lamella::pointwise::Hook;
using lamella::pointwise::Pass;
using lamella::pointwise::Plan;
using lamella::pointwise::PointLaunch;
using lamella::pointwise::PointWork;
using lamella::pointwise::Problem;
using lamella::pointwise::WeighWork;

constexpr const char* kName = "conv2d (1x1)";
thread_local const Chosen* used = nullptr;

struct Hash {
  std::size_t operator()(const std::pair<Problem, int>& key) const {
    std::size_t hash = static_cast<std::size_t>(key.second);
    const Problem& p = key.first;
    for (const std::int64_t part :
         {static_cast<std::int64_t>(p.pass), static_cast<std::int64_t>(p.dtype), p.pixels,
          std::int64_t{p.in_channels}, std::int64_t{p.out_channels}, static_cast<std::int64_t>(p.load),
          static_cast<std::int64_t>(p.hook), std::int64_t{p.bias}})
      hash = hash * 0x9e3779b97f4a7c15u + static_cast<std::size_t>(part);
    return hash;
  }
};

/// Pixels of an image tensor whose rows of channels follow each other.
bool is_matrix(const ConstTensorView& view, DType dtype) {
  return view.data != nullptr && view.shape.size() == 4 && view.dtype == dtype &&
         detail::is_dense(view.shape, view.strides, MemoryFormat::ChannelsLast);
}
std::int64_t pixels_of(const ConstTensorView& view) { return view.shape[0] * view.shape[2] * view.shape[3]; }

/// The problem of two images: x before the convolution, y behind it. False: not one for these kernels.
bool describe_problem(const ConstTensorView& x, const ConstTensorView& y, Problem& problem) {
  problem.dtype = x.dtype;
  if (!is_matrix(x, x.dtype) || !is_matrix(y, x.dtype) || x.device != y.device) return false;
  problem.pixels = pixels_of(x);
  if (problem.pixels != pixels_of(y)) return false;
  constexpr std::int64_t kMost = 1 << 15;
  if (x.shape[1] > kMost || y.shape[1] > kMost) return false;
  problem.in_channels = static_cast<int>(x.shape[1]);
  problem.out_channels = static_cast<int>(y.shape[1]);
  problem.shared_bytes = detail::cuda::most_shared_bytes(x.device);
  return lamella::pointwise::can_plan(problem) && detail::cuda::has_copy_engine(x.device);
}

const Chosen* plan_of(const Problem& problem, Device device) {
  return used != nullptr ? used : choose(problem, device);
}

void launch(const void* kernel, const PointLaunch& how, void* work, Device device) {
  void* arguments[] = {work};
  detail::cuda::launch_early(kName, device, static_cast<unsigned>(how.blocks),
                             static_cast<unsigned>(how.threads), static_cast<std::size_t>(how.shared_bytes),
                             kernel, arguments);
}

const void* finish_kernel(const std::string& expression, Device device) {
  return detail::cuda::kernel_for(device_sources(), expression, device);
}
constexpr int kFinishThreads = 256, kFinishLanes = 32;

/// A kernel that adds up parts, with neighbouring numbers in a block's lanes: few, where there are many
/// parts.
struct SumsKernel {
  const void* kernel = nullptr;
  int lanes = kFinishLanes;
};
SumsKernel sums_kernel(const char* from, DType to, int parts, Device device) {
  constexpr int kFew = 8;
  SumsKernel sums;
  if (parts < kFew) sums.lanes = kFinishThreads;
  const char* const type = to == DType::Float32    ? "float"
                           : to == DType::Float64  ? "double"
                           : to == DType::BFloat16 ? "BFloat16"
                                                   : "Float16";
  sums.kernel = finish_kernel(
      std::string("finish_sums<") + from + ", " + type + ", " + std::to_string(sums.lanes) + ">", device);
  return sums;
}
void launch_sums(const SumsKernel& sums, FinishSumsWork work, Device device) {
  launch(sums.kernel,
         {ceiling(work.rows * work.columns, std::int64_t{sums.lanes}), kFinishThreads,
          kFinishThreads * static_cast<int>(sizeof(double)), 0},
         &work, device);
}

/// [Co][Ci] without gaps, in the type of the images: the weight itself, or a copy.
class Weights {
 public:
  Weights(const ConstTensorView& weight, DType dtype)
      : co_(weight.shape[0]), ci_(weight.shape[1]), data_(weight.data) {
    const bool dense = (co_ == 1 || weight.strides[0] == ci_) && (ci_ == 1 || weight.strides[1] == 1);
    constexpr std::uintptr_t kAligned = 16;
    if (weight.dtype == dtype && dense && reinterpret_cast<std::uintptr_t>(data_) % kAligned == 0) return;
    copy_.emplace(weight.device, co_ * ci_ * static_cast<std::int64_t>(size_of(dtype)));
    const TensorView to{copy_->as<void>(), weight.shape, {ci_, 1, 1, 1}, dtype, weight.device};
    copy(weight, to, GradientWrite::Overwrite);
    data_ = to.data;
  }
  const void* data() const { return data_; }
  std::int64_t rows() const { return co_; }
  std::int64_t columns() const { return ci_; }

 private:
  std::int64_t co_, ci_;
  const void* data_;
  std::optional<detail::Workspace> copy_;
};

Factors factors_of(const Transform& t) { return {t.scale, t.shift, t.low, t.high}; }

bool is_weight(const ConstTensorView& weight, const Problem& p) {
  return weight.shape.size() == 4 && weight.shape[0] == p.out_channels && weight.shape[1] == p.in_channels &&
         weight.shape[2] == 1 && weight.shape[3] == 1 &&
         (weight.dtype == p.dtype || weight.dtype == DType::Float32);
}

/// multiply_points() of a plan, with everything but hooks bound. False: these tensors cannot be moved.
bool bind(const Plan& plan, const Problem& p, const ConstTensorView& x, const Weights& weights,
          const ConstTensorView& y, PointWork& work) {
  work = plan.work;
  return describe(x.data, p.dtype, p.pixels, p.inputs(), plan.x, work.x) &&
         describe(weights.data(), p.dtype, weights.rows(), weights.columns(), plan.weights, work.weights) &&
         describe(y.data, p.dtype, p.pixels, p.outputs(), plan.y, work.y);
}

/// Where multiply_points() leaves its sums.
double* take_parts(detail::LeftParts& left, const Plan& plan, std::int64_t of_part = 0) {
  return static_cast<double*>(left.take(DType::Float64, plan.launch.parts, 2, of_part));
}

}  // namespace

const detail::cuda::Sources& device_sources() {
  static const detail::cuda::Sources kSources{"conv2d (1x1)", lamella::pointwise::kDeviceSources};
  return kSources;
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
  std::vector<Plan> plans = lamella::pointwise::plans_for(problem);
  for (std::size_t i = 0; i < std::min(plans.size(), kTries) && !choice; ++i)
    if (const void* const kernel = detail::cuda::kernel_for(device_sources(), plans[i].kernel, device))
      choice = std::make_unique<Chosen>(Chosen{std::move(plans[i]), kernel});
  const std::unique_lock lock(mutex);
  return chosen.emplace(key, std::move(choice)).first->second.get();
}

UsePlan::UsePlan(const Chosen& chosen) { used = &chosen; }
UsePlan::~UsePlan() { used = nullptr; }

bool forward(const ForwardOperands& o) {
  Problem p;
  p.load = o.transform.load;
  p.hook = o.moments != nullptr ? Hook::Moments : Hook::None;
  if (!describe_problem(o.input, o.output, p) || !is_weight(o.weight, p)) return false;
  if (o.bias.data != nullptr && (o.bias.dtype != p.dtype && o.bias.dtype != DType::Float32)) return false;
  if (o.bias.data != nullptr && o.bias.shape[0] != 1 && o.bias.strides[0] != 1) return false;
  const Device device = o.output.device;
  const Chosen* const chosen = plan_of(p, device);
  if (chosen == nullptr) return false;
  const Weights weights(o.weight, p.dtype);
  PointWork work;
  if (!bind(chosen->plan, p, o.input, weights, o.output, work)) return false;
  work.bias = o.bias.data;
  work.bias_is_float32 = o.bias.dtype == DType::Float32;
  work.load = factors_of(o.transform);
  if (o.moments != nullptr)
    work.parts =
        take_parts(*o.moments, chosen->plan, std::int64_t{chosen->plan.item_pixels} * work.items_per_part);
  launch(chosen->kernel, chosen->plan.launch, &work, device);
  return true;
}

bool backward_input(const InputOperands& o) {
  Problem p;
  p.pass = Pass::Input;
  if (o.sums != nullptr) p.hook = o.sums->of.load == Load::HardSwish ? Hook::HardSwishSums : Hook::ClampSums;
  if (!describe_problem(o.grad_input, o.grad_output, p) || !is_weight(o.weight, p)) return false;
  if (o.sums != nullptr && (!is_matrix(o.sums->z, p.dtype) || o.sums->z.shape != o.grad_input.shape))
    return false;
  const Device device = o.grad_output.device;
  const Chosen* const chosen = plan_of(p, device);
  if (chosen == nullptr) return false;
  const Weights weights(o.weight, p.dtype);
  PointWork work;
  if (!bind(chosen->plan, p, o.grad_output, weights, o.grad_input, work)) return false;
  if (o.sums != nullptr && !describe(o.sums->z.data, p.dtype, p.pixels, p.outputs(), chosen->plan.z, work.z))
    return false;
  if (o.sums != nullptr) {
    work.hook = factors_of(o.sums->of);
    work.center = o.sums->center;
    work.parts = take_parts(*o.sums->sums, chosen->plan);
  }
  launch(chosen->kernel, chosen->plan.launch, &work, device);
  return true;
}

bool backward_weight(const WeightOperands& o) {
  Problem p;
  p.pass = Pass::Weight;
  p.load = o.transform.load;
  p.bias = o.grad_bias.data != nullptr;
  if (o.grad_weight.data == nullptr && o.parts == nullptr) return false;
  if (!describe_problem(o.input, o.grad_output, p) || (o.parts == nullptr && !is_weight(o.grad_weight, p)))
    return false;
  if (o.parts != nullptr && p.bias) return false;
  if (p.bias && o.grad_bias.dtype != p.dtype && o.grad_bias.dtype != DType::Float32) return false;
  const Device device = o.input.device;
  const Chosen* const chosen = plan_of(p, device);
  if (chosen == nullptr) return false;
  const int count = chosen->plan.launch.parts;
  const SumsKernel finish =
      o.parts == nullptr ? sums_kernel("float", o.grad_weight.dtype, count, device) : SumsKernel{};
  const SumsKernel finish_bias =
      p.bias ? sums_kernel("float", o.grad_bias.dtype, count, device) : SumsKernel{};
  if ((o.parts == nullptr && finish.kernel == nullptr) || (p.bias && finish_bias.kernel == nullptr))
    return false;
  WeighWork work = chosen->plan.weigh;
  if (!describe(o.input.data, p.dtype, p.pixels, p.in_channels, chosen->plan.x, work.x) ||
      !describe(o.grad_output.data, p.dtype, p.pixels, p.out_channels, chosen->plan.g, work.g))
    return false;
  work.load = factors_of(o.transform);
  if (o.parts != nullptr) {
    const std::int64_t numbers = std::int64_t{p.out_channels} * p.in_channels;
    work.parts = o.parts->take(count, 1, numbers, numbers);
    launch(chosen->kernel, chosen->plan.launch, &work, device);
    return true;
  }
  const detail::Workspace parts(device, chosen->plan.workspace_bytes(p));
  work.parts = parts.as<float>();
  work.bias_parts = work.parts + std::int64_t{count} * p.out_channels * p.in_channels;
  launch(chosen->kernel, chosen->plan.launch, &work, device);
  FinishSumsWork rest;
  rest.parts = work.parts;
  rest.count = count;
  rest.rows = p.out_channels, rest.columns = p.in_channels;
  rest.to = o.grad_weight.data;
  rest.row = o.grad_weight.strides[0], rest.column = o.grad_weight.strides[1];
  rest.accumulate = o.weight_write == GradientWrite::Accumulate;
  launch_sums(finish, rest, device);
  if (!p.bias) return true;
  rest.parts = work.bias_parts;
  rest.columns = 1;
  rest.to = o.grad_bias.data;
  rest.row = o.grad_bias.strides[0];
  rest.accumulate = o.bias_write == GradientWrite::Accumulate;
  launch_sums(finish_bias, rest, device);
  return true;
}

}  // namespace lamella::cuda::pointwise
