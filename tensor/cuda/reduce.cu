#include <limits>
#include <vector>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/workspace.h"
#include "tensor/cuda/index.cuh"
#include "tensor/functions.h"
#include "tensor/kernels/reduce.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::ReduceKind;
using detail::TensorView;

namespace {

template <class C>
__device__ bool is_nan(C value) {
  return value != value;
}

template <class C>
struct SumOf {
  using Acc = std::conditional_t<std::is_floating_point_v<C>, double, std::int64_t>;
  Acc start = Acc(0);
  __device__ static Acc add(Acc a, Acc b) { return detail::Add()(a, b); }  // integers wrap around
};

template <class C, bool kLargest>
struct ExtremeOf {
  using Acc = std::conditional_t<std::is_same_v<C, bool>, std::uint8_t, C>;
  Acc start = worst();
  __device__ static Acc add(Acc a, Acc b) {
    if (is_nan(a)) return a;
    return is_nan(b) || (kLargest ? b > a : b < a) ? b : a;
  }
  static constexpr Acc worst() {
    if constexpr (std::is_floating_point_v<C>)
      return kLargest ? -std::numeric_limits<C>::infinity() : std::numeric_limits<C>::infinity();
    return kLargest ? std::numeric_limits<Acc>::lowest() : std::numeric_limits<Acc>::max();
  }
};

struct AxisStrides {
  std::int64_t at[kMaxAxes];
};
template <int N>
AxisStrides axis_strides(const detail::StridedPlan<N>& plan, std::size_t operand) {
  AxisStrides result{};
  for (int axis = 0; axis < plan.axes; ++axis)
    result.at[axis] = plan.stride[operand][static_cast<std::size_t>(axis)];
  return result;
}
__device__ std::int64_t offset_of(const Index& index, const AxisStrides& strides, std::uint32_t i) {
  std::int64_t offset = 0;
  index.visit(i, [&](int axis, std::uint32_t at) { offset += at * strides.at[axis]; });
  return offset;
}

/// One part of a reduction: partial[part · outputs + output] for the parts in which `reduced` is cut.
template <class From, class Acc>
struct Part {
  const From* from;
  Index kept, reduced;
  AxisStrides kept_stride, reduced_stride;
  std::uint32_t length;  ///< reduced elements of one part
  Acc* partial;
};

/// Threads of a block: x over neighbouring outputs, y over the reduced elements of a part.
constexpr int kThreads = 256;

template <class Op, class From>
__global__ void reduce_parts(const Part<From, typename Op::Acc> part, const Op op) {
  detail::cuda::wait_for_stream();
  using Acc = typename Op::Acc;
  __shared__ Acc shared[kThreads];
  const std::uint32_t output = blockIdx.x * blockDim.x + threadIdx.x;
  const std::uint32_t begin = blockIdx.y * part.length;
  const std::uint32_t end = min(part.reduced.total, begin + part.length);
  Acc total = op.start;
  if (output < part.kept.total) {
    const From* from = part.from + offset_of(part.kept, part.kept_stride, output);
    for (std::uint32_t i = begin + threadIdx.y; i < end; i += blockDim.y)
      total = Op::add(
          total,
          static_cast<Acc>(detail::cuda::to_compute(from[offset_of(part.reduced, part.reduced_stride, i)])));
  }
  const unsigned at = threadIdx.y * blockDim.x + threadIdx.x;
  shared[at] = total;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) shared[at] = Op::add(shared[at], shared[at + half * blockDim.x]);
  }
  if (threadIdx.y == 0 && output < part.kept.total)
    part.partial[std::int64_t{blockIdx.y} * part.kept.total + output] = shared[at];
}

/// Adds the parts up in their order.
template <class Op, class To>
__global__ void finish(const typename Op::Acc* partial, std::int64_t parts, const Index kept,
                       const AxisStrides to_stride, To* to, double scale, const Op op) {
  detail::cuda::wait_for_stream();
  using Acc = typename Op::Acc;
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t o = blockIdx.x * blockDim.x + threadIdx.x; o < kept.total; o += step) {
    Acc total = op.start;
    for (std::int64_t part = 0; part < parts; ++part) total = Op::add(total, partial[part * kept.total + o]);
    if constexpr (std::is_same_v<Acc, double> && !std::is_same_v<To, std::int64_t>) total *= scale;
    to[offset_of(kept, to_stride, o)] = detail::cuda::from_compute<To>(static_cast<ComputeType<To>>(total));
  }
}

/// Blocks that keep a GPU busy, whichever it is: the cut must not depend on that.
constexpr std::int64_t kWantedBlocks = 1024;
/// Reduced elements that a part has at least.
constexpr std::int64_t kLeastLength = 2048;

template <class Op, class From, class To>
void reduce_as(const ConstTensorView& input, const TensorView& output, double scale) {
  using Acc = typename Op::Acc;
  Shape reduced_shape = input.shape;
  for (int axis = 0; axis < input.shape.size(); ++axis)
    if (output.shape[axis] == input.shape[axis] && input.shape[axis] != 1) reduced_shape[axis] = 1;
  const auto all_kept = detail::plan_strided<2>(output.shape, {input.strides, output.strides});
  const auto all_reduced = detail::plan_strided<1>(reduced_shape, {input.strides});
  const Op op;
  const auto inner = static_cast<std::size_t>(all_kept.axes - 1);
  const bool kept_inside = all_kept.stride[0][inner] == 1 && all_kept.size[inner] >= 8;
  const int across = kept_inside ? 32 : 1;  // neighbouring threads read neighbouring memory

  struct Slice {
    Index index;
    std::int64_t offset, parts, length;
  };
  for_each_slice<2>(all_kept, [&](const Index& kept, const std::array<std::int64_t, 2>& at) {
    std::vector<Slice> slices;
    std::int64_t parts = 0;
    const std::int64_t columns = (std::int64_t{kept.total} + across - 1) / across;
    for_each_slice<1>(all_reduced, [&](const Index& reduced, const std::array<std::int64_t, 1>& offset) {
      const std::int64_t most = (std::int64_t{reduced.total} + kLeastLength - 1) / kLeastLength;
      const std::int64_t count = std::max<std::int64_t>(1, std::min(kWantedBlocks / columns, most));
      const std::int64_t length = (std::int64_t{reduced.total} + count - 1) / count;
      slices.push_back({reduced, offset[0], (reduced.total + length - 1) / length, length});
      parts += slices.back().parts;
    });
    const detail::Workspace partial(output.device,
                                    parts * kept.total * static_cast<std::int64_t>(sizeof(Acc)));
    std::int64_t done = 0;
    for (const Slice& slice : slices) {
      Part<From, Acc> part{};
      part.from = input.as<From>() + at[0] + slice.offset;
      part.kept = kept;
      part.reduced = slice.index;
      part.kept_stride = axis_strides(all_kept, 0);
      part.reduced_stride = axis_strides(all_reduced, 0);
      part.length = static_cast<std::uint32_t>(slice.length);
      part.partial = partial.template as<Acc>() + done * kept.total;
      done += slice.parts;
      detail::cuda::launch_early(
          "reduce", output.device, dim3(static_cast<unsigned>(columns), static_cast<unsigned>(slice.parts)),
          dim3(static_cast<unsigned>(across), static_cast<unsigned>(kThreads / across)), 0,
          reduce_parts<Op, From>, part, op);
    }
    detail::cuda::launch_early("reduce", output.device, detail::cuda::blocks_for(kept.total, kThreads),
                               kThreads, 0, finish<Op, To>, partial.template as<Acc>(), parts, kept,
                               axis_strides(all_kept, 1), output.as<To>() + at[1], scale, op);
  });
}

/// The first extreme of a line, by one warp.
template <class T, bool kLargest>
__global__ void arg_extreme_lines(const T* from, const Index lines, const AxisStrides from_stride,
                                  const AxisStrides to_stride, std::int64_t length, std::int64_t step,
                                  std::int64_t* to) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  const auto better = [](C a, std::int64_t a_at, C b, std::int64_t b_at) {
    const bool a_nan = is_nan(a), b_nan = is_nan(b);
    if (a_nan || b_nan) return a_nan && (!b_nan || a_at < b_at);
    if (a == b) return a_at < b_at;
    return kLargest ? a > b : a < b;
  };
  constexpr unsigned kWarp = 32;
  const std::uint32_t lane = threadIdx.x % kWarp;
  const std::uint32_t stride = gridDim.x * (blockDim.x / kWarp);
  for (std::uint32_t line = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp; line < lines.total;
       line += stride) {
    const T* numbers = from + offset_of(lines, from_stride, line);
    // Lanes without an element repeat the first one.
    std::int64_t where = lane < length ? lane : 0;
    C best = detail::cuda::to_compute(numbers[where * step]);
    for (std::int64_t k = lane + kWarp; k < length; k += kWarp) {
      const C value = detail::cuda::to_compute(numbers[k * step]);
      if (better(value, k, best, where)) best = value, where = k;
    }
    for (unsigned half = kWarp / 2; half > 0; half /= 2) {
      const C other = __shfl_down_sync(0xffffffffu, best, half);
      const std::int64_t at = __shfl_down_sync(0xffffffffu, where, half);
      if (better(other, at, best, where)) best = other, where = at;
    }
    if (lane == 0) to[offset_of(lines, to_stride, line)] = where;
  }
}

}  // namespace

void reduce(ReduceKind kind, const ConstTensorView& input, const TensorView& output, double scale) {
  detail::dispatch_all(input.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    using C = ComputeType<T>;
    using SumType = std::conditional_t<std::is_floating_point_v<C>, T, std::int64_t>;
    switch (kind) {
      case ReduceKind::Sum:
        return reduce_as<SumOf<C>, T, SumType>(input, output, scale);
      case ReduceKind::Max:
        return reduce_as<ExtremeOf<C, true>, T, T>(input, output, 1);
      case ReduceKind::Min:
        return reduce_as<ExtremeOf<C, false>, T, T>(input, output, 1);
    }
  });
}

void arg_extreme(bool largest, const ConstTensorView& input, int axis, const TensorView& output) {
  const std::int64_t length = input.shape[axis], step = input.strides[axis];
  Strides line_strides = input.strides;
  line_strides[axis] = 0;
  const auto plan = detail::plan_strided<2>(output.shape, {output.strides, line_strides});
  detail::dispatch_all(input.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_slice<2>(plan, [&](const Index& lines, const std::array<std::int64_t, 2>& at) {
      constexpr int kLines = kThreads / 32;
      const auto kernel = largest ? arg_extreme_lines<T, true> : arg_extreme_lines<T, false>;
      detail::cuda::launch_early("arg_extreme", output.device, detail::cuda::blocks_for(lines.total, kLines),
                                 kThreads, 0, kernel, input.as<T>() + at[1], lines, axis_strides(plan, 1),
                                 axis_strides(plan, 0), length, step, output.as<std::int64_t>() + at[0]);
    });
  });
}

}  // namespace lamella::cuda
