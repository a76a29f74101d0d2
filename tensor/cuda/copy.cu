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
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < index.total; i += step) {
    std::int64_t offset = 0;
    index.visit(i, [&](int axis, std::uint32_t at) { offset += at * strides.at[axis]; });
    const double value = detail::cuda::load_number<double>(dtype, data, offset);
    if (value != value) *found = 1;  // every writer writes the same
  }
}

}  // namespace

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
    detail::cuda::launch("find_nan", source.device, detail::cuda::blocks_for(index.total, kMapThreads),
                         kMapThreads, 0, note_nan, index, data, source.dtype, strides, flag.as<int>());
  });
  int any = 0;
  detail::cuda::copy_bytes(&any, Device::cpu(), flag.as<int>(), source.device, sizeof(int));
  *found = any != 0;
}

}  // namespace lamella::cuda
