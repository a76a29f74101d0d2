#include <utility>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "layers/depthwise_conv2d/cuda/problem.h"

namespace lamella::cuda::depthwise {
namespace {

constexpr unsigned kThreads = 256, kWarp = 32;

struct Destination {
  void* data;
  DType dtype;
  bool add;
  std::int64_t channel, row, column;  ///< strides

  __device__ void write(std::int64_t at, double value) const {
    if (add) value += detail::cuda::load_number<double>(dtype, data, at);
    detail::cuda::store_number(dtype, value, data, at);
  }
};

/// A warp adds up the parts of one sum.
template <class C>
__global__ void add_parts(const C* sums, std::int64_t parts, std::int64_t channels, std::int64_t taps,
                          std::int64_t kernel_w, const Destination weight, const Destination bias) {
  const std::int64_t warps = std::int64_t{gridDim.x} * (kThreads / kWarp);
  for (std::int64_t i = std::int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
       i < channels * (taps + 1); i += warps) {
    double sum = 0;
#pragma unroll 8
    for (std::int64_t part = threadIdx.x % kWarp; part < parts; part += kWarp)
      sum += static_cast<double>(sums[i * parts + part]);
    for (unsigned half = kWarp / 2; half > 0; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half);
    if (threadIdx.x % kWarp != 0) continue;
    const std::int64_t channel = i / (taps + 1), tap = i % (taps + 1);
    if (tap == taps) {
      if (bias.data != nullptr) bias.write(channel * bias.channel, sum);
    } else if (weight.data != nullptr) {
      weight.write(channel * weight.channel + tap / kernel_w * weight.row + tap % kernel_w * weight.column,
                   sum);
    }
  }
}

constexpr int kLanes = 32, kSlices = 16;

/// The same for rows of sums, [part][channel][taps + 1]: neighbouring threads have neighbouring sums, and the
/// slices of a block every so many-th part.
__global__ void __launch_bounds__(kLanes* kSlices)
    add_rows(const float* sums, std::int64_t parts, std::int64_t count, std::int64_t taps,
             std::int64_t kernel_w, const Destination weight, const Destination bias) {
  __shared__ double slices[kSlices][kLanes];
  const std::int64_t i = std::int64_t{blockIdx.x} * kLanes + threadIdx.x;
  double sum = 0;
  if (i < count) {
#pragma unroll 8
    for (std::int64_t part = threadIdx.y; part < parts; part += kSlices)
      sum += static_cast<double>(sums[part * count + i]);
  }
  slices[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || i >= count) return;
#pragma unroll
  for (int slice = 1; slice < kSlices; ++slice) sum += slices[slice][threadIdx.x];
  const std::int64_t channel = i / (taps + 1), tap = i % (taps + 1);
  if (tap == taps) {
    if (bias.data != nullptr) bias.write(channel * bias.channel, sum);
  } else if (weight.data != nullptr) {
    weight.write(channel * weight.channel + tap / kernel_w * weight.row + tap % kernel_w * weight.column,
                 sum);
  }
}

std::pair<Destination, Destination> destinations(const Parts& to) {
  Destination weight{}, bias{};
  if (to.weight.data != nullptr)
    weight = {to.weight.data,       to.weight.dtype,      to.add_weight,
              to.weight.strides[0], to.weight.strides[2], to.weight.strides[3]};
  if (to.bias.data != nullptr) bias = {to.bias.data, to.bias.dtype, to.add_bias, to.bias.strides[0], 0, 0};
  return {weight, bias};
}

template <class C>
void launch_finish(const void* sums, std::int64_t parts, const Parts& to) {
  const auto [weight, bias] = destinations(to);
  const std::int64_t taps = to.kernel.h * to.kernel.w;
  detail::cuda::launch("depthwise_conv2d_backward_weight", to.device,
                       detail::cuda::blocks_for(to.channels * (taps + 1), kThreads / kWarp), kThreads, 0,
                       add_parts<C>, static_cast<const C*>(sums), parts, to.channels, taps, to.kernel.w,
                       weight, bias);
}

}  // namespace

void finish_parts(const void* sums, std::int64_t parts, DType dtype, const Parts& to) {
  if (to.weight.data == nullptr && to.bias.data == nullptr) return;
  if (dtype == DType::Float64)
    launch_finish<double>(sums, parts, to);
  else
    launch_finish<float>(sums, parts, to);
}

void finish_rows(const float* sums, std::int64_t parts, const Parts& to) {
  const auto [weight, bias] = destinations(to);
  const std::int64_t taps = to.kernel.h * to.kernel.w, count = to.channels * (taps + 1);
  detail::cuda::launch("depthwise_conv2d_backward_weight", to.device,
                       dim3(static_cast<unsigned>((count + kLanes - 1) / kLanes)), dim3(kLanes, kSlices), 0,
                       add_rows, sums, parts, count, taps, to.kernel.w, weight, bias);
}

}  // namespace lamella::cuda::depthwise
