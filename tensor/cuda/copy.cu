#include "core/cuda/packet.cuh"
#include "core/cuda/recording.h"
#include "core/cuda_backend.h"
#include "core/workspace.h"
#include "tensor/cuda/map.cuh"
#include "tensor/functions.h"
#include "tensor/kernels/copy.h"

namespace lamella::cuda {

using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;

namespace {

struct Identity {
  template <class C>
  LAMELLA_HOST_DEVICE C operator()(C x) const {
    return x;
  }
};

/// Whether both lie in memory without gaps, in the same order.
bool same_bytes(const ConstTensorView& source, const TensorView& target) {
  if (source.dtype != target.dtype) return false;
  const auto plan = detail::plan_strided<2>(target.shape, {target.strides, source.strides});
  return plan.axes == 1 && plan.stride[0][0] == 1 && plan.stride[1][0] == 1;
}

struct Strides8 {
  std::int64_t at[kMaxAxes];
};

__global__ void note_nan(const Index index, const void* data, DType dtype, const Strides8 strides,
                         int* found) {
  detail::cuda::wait_for_stream();
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < index.total; i += step) {
    std::int64_t offset = 0;
    index.visit(i, [&](int axis, std::uint32_t at) { offset += at * strides.at[axis]; });
    const double value = detail::cuda::load_number<double>(dtype, data, offset);
    if (value != value) *found = 1;  // every writer writes the same
  }
}

/// Tensors that lie without gaps, in the order of their copies. They travel with the launch, so that a
/// recorded one stays right.
struct RoundTable {
  static constexpr int kMost = 128;
  const float* from[kMost];
  void* to[kMost];
  std::uint32_t size[kMost];
  std::uint32_t end[kMost];  ///< blocks of the tensors up to this one
  bool in_lots[kMost];       ///< both begin where lots may
  int count;

  unsigned blocks() const { return count == 0 ? 0 : end[count - 1]; }
};
static_assert(sizeof(RoundTable) <= 4096);  // the most that launch parameters may take on every GPU

constexpr int kRoundThreads = 256, kRoundLot = 4;
constexpr std::uint32_t kRoundChunk = 4096;  ///< numbers of a block

template <class T>
__global__ void __launch_bounds__(kRoundThreads) round_table(const __grid_constant__ RoundTable table) {
  detail::cuda::wait_for_stream();
  using From = detail::cuda::Lot<float, kRoundLot>;
  using To = detail::cuda::Lot<T, kRoundLot>;
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (blockIdx.x < table.end[middle])
      high = middle;
    else
      low = middle + 1;
  }
  const std::uint32_t begin = (blockIdx.x - (low > 0 ? table.end[low - 1] : 0)) * kRoundChunk;
  const std::uint32_t count = min(kRoundChunk, table.size[low] - begin);
  const float* const from = table.from[low] + begin;
  T* const to = static_cast<T*>(table.to[low]) + begin;
  const std::uint32_t lots = table.in_lots[low] ? count / kRoundLot : 0;
#pragma unroll 4
  for (std::uint32_t i = threadIdx.x; i < lots; i += kRoundThreads) {
    const From lot = reinterpret_cast<const From*>(from)[i];
    To rounded;
#pragma unroll
    for (int k = 0; k < kRoundLot; ++k) rounded.at[k] = detail::cuda::from_compute<T>(lot.at[k]);
    reinterpret_cast<To*>(to)[i] = rounded;
  }
  for (std::uint32_t i = lots * kRoundLot + threadIdx.x; i < count; i += kRoundThreads)
    to[i] = detail::cuda::from_compute<T>(from[i]);
}

}  // namespace

void round_all(const std::vector<Rounding>& all) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 31;
  RoundTable table{};
  const auto run = [&](const TensorView& like) {
    const auto kernel = like.dtype == DType::BFloat16 ? round_table<BFloat16> : round_table<Float16>;
    detail::cuda::launch_early("round_all", like.device, table.blocks(), kRoundThreads, 0, kernel, table);
    table.count = 0;
  };
  for (const Rounding& each : all) {
    const auto plan = detail::plan_strided<2>(each.to.shape, {each.to.strides, each.from.strides});
    if (plan.total == 0) continue;
    const bool flat = plan.axes == 1 && plan.stride[0][0] == 1 && plan.stride[1][0] == 1;
    if ((!flat && plan.total > 1) || plan.total >= kLargest) {
      copy(each.from, each.to, GradientWrite::Overwrite);
      continue;
    }
    if (table.count == RoundTable::kMost) run(each.to);
    table.from[table.count] = each.from.as<float>();
    table.to[table.count] = each.to.data;
    table.size[table.count] = static_cast<std::uint32_t>(plan.total);
    table.end[table.count] =
        table.blocks() + static_cast<std::uint32_t>((plan.total + kRoundChunk - 1) / kRoundChunk);
    table.in_lots[table.count] =
        detail::cuda::is_aligned(each.from.data) && detail::cuda::is_aligned(each.to.data);
    ++table.count;
  }
  if (table.count > 0) run(all.front().to);
}

void copy(const ConstTensorView& source, const TensorView& target, GradientWrite write) {
  if (target.numel() == 0) return;
  if (write == GradientWrite::Accumulate) {
    LAMELLA_CHECK(DTypeError, source.dtype == target.dtype, "accumulate: ", name(source.dtype), " onto ",
                  name(target.dtype));
  } else if (!detail::cuda::is_recording() &&
             same_bytes(source, target)) {  // replays copy faster by a kernel
    detail::cuda::check(cudaMemcpyAsync(target.data, source.data,
                                        static_cast<std::size_t>(target.numel()) * size_of(target.dtype),
                                        cudaMemcpyDeviceToDevice, detail::cuda::stream_of(target.device)),
                        "copy");
    return;
  }
  dispatch_compute(source.dtype, [&](auto tag) {
    map_each<typename decltype(tag)::type>(target, write, Identity(), source);
  });
}

void fill(const TensorView& target, double value) {
  const bool as_double = target.dtype == DType::Float64 || !is_floating(target.dtype);
  dispatch_compute_floating(as_double ? DType::Float64 : DType::Float32, [&](auto tag) {
    map_each<typename decltype(tag)::type>(target, GradientWrite::Overwrite, Identity(), MapOperand(value));
  });
}

void find_nan(const ConstTensorView& source, bool* found) {
  const auto plan = detail::plan_strided<1>(source.shape, {source.strides});
  const detail::Workspace flag(source.device, sizeof(int));
  detail::cuda::check(cudaMemsetAsync(flag.as<int>(), 0, sizeof(int), detail::cuda::stream_of(source.device)),
                      "find_nan");
  Strides8 strides{};
  for (int axis = 0; axis < plan.axes; ++axis)
    strides.at[axis] = plan.stride[0][static_cast<std::size_t>(axis)];
  for_each_slice(plan, [&](const Index& index, const std::array<std::int64_t, 1>& offset) {
    const void* data = static_cast<const std::byte*>(source.data) +
                       offset[0] * static_cast<std::int64_t>(size_of(source.dtype));
    detail::cuda::launch_early("find_nan", source.device, detail::cuda::blocks_for(index.total, kMapThreads),
                               kMapThreads, 0, note_nan, index, data, source.dtype, strides, flag.as<int>());
  });
  int any = 0;
  detail::cuda::copy_bytes(&any, Device::cpu(), flag.as<int>(), source.device, sizeof(int));
  *found = any != 0;
}

}  // namespace lamella::cuda
