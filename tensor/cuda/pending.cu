#include <numeric>

#include "core/cuda/divisor.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "tensor/cuda/map.cuh"
#include "tensor/fused_activations.h"
#include "tensor/kernels/pending.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::PendingActivation;
using detail::PendingView;
using detail::TensorView;

namespace {

template <PendingActivation A, class T, class C>
__device__ C activate(C z) {
  if constexpr (A == PendingActivation::Relu) return detail::relu_value(z);
  if constexpr (A == PendingActivation::Relu6) return detail::relu6_value(z);
  // For sixteen bits with a bound that costs nothing: the quotient would take longer than memory.
  if constexpr (A == PendingActivation::Hardswish && sizeof(T) == 2)
    return z * __saturatef(fmaf(z, 1.0f / 6.0f, 0.5f));
  if constexpr (A == PendingActivation::Hardswish) return detail::hardswish_value(z);
  if constexpr (A == PendingActivation::Silu) return detail::silu_value(z);
  return z;
}

/// A dense tensor as rows of `run` numbers of one channel each: of one number where channels come last, else
/// of a plane.
template <class T>
struct Debt {
  const T* stored;
  const ComputeType<T>* scale;  ///< null: 1
  const ComputeType<T>* shift;  ///< null: 0
  T* out;
  std::uint32_t total;
  detail::cuda::Divisor run;
  detail::cuda::Divisor channels;
};

template <PendingActivation A, class T>
__global__ void apply(const Debt<T> debt) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  constexpr std::uint32_t kSize = Packet<T>::kSize;
  const std::uint32_t step = gridDim.x * blockDim.x;
  for (std::uint32_t packet = blockIdx.x * blockDim.x + threadIdx.x; packet * kSize < debt.total;
       packet += step) {
    const std::uint32_t first = packet * kSize;
    const std::uint32_t row = debt.run.divide(first);
    std::uint32_t in_row = first - row * debt.run.value;
    std::uint32_t channel = row - debt.channels.divide(row) * debt.channels.value;
    const bool whole = first + kSize <= debt.total;
    Packet<T> numbers;
    if (whole) {
      numbers = reinterpret_cast<const Packet<T>*>(debt.stored)[packet];
    } else {
      for (std::uint32_t k = 0; first + k < debt.total; ++k) numbers.at[k] = debt.stored[first + k];
    }
#pragma unroll
    for (std::uint32_t k = 0; k < kSize; ++k) {
      const C scale = debt.scale != nullptr ? debt.scale[channel] : C(1);
      const C shift = debt.shift != nullptr ? debt.shift[channel] : C(0);
      const C z = detail::cuda::to_compute(numbers.at[k]) * scale + shift;
      numbers.at[k] = detail::cuda::from_compute<T>(activate<A, T>(z));
      if (++in_row == debt.run.value) {
        in_row = 0;
        if (++channel == debt.channels.value) channel = 0;
      }
    }
    if (whole) {
      reinterpret_cast<Packet<T>*>(debt.out)[packet] = numbers;
    } else {
      for (std::uint32_t k = 0; first + k < debt.total; ++k) debt.out[first + k] = numbers.at[k];
    }
  }
}

/// Rows of whole packets of channels: a thread has the same channels in all of its rows.
template <class T>
struct Rows {
  const Packet<T>* stored;
  const float* scale;  ///< null: 1
  const float* shift;  ///< null: 0
  Packet<T>* out;
  unsigned packets;  ///< of a row
  unsigned across, tiles;
  unsigned rows, of_block;
};

/// Rows of a thread whose loads are begun before the first is used.
constexpr unsigned kAtOnce = 4;

template <int kSize>
__device__ void load_factors(const float* from, unsigned packet, float otherwise, float (&to)[kSize]) {
#pragma unroll
  for (int k = 0; k < kSize; k += 4) {
    float4 four = make_float4(otherwise, otherwise, otherwise, otherwise);
    if (from != nullptr) four = reinterpret_cast<const float4*>(from)[(packet * kSize + k) / 4];
    to[k] = four.x, to[k + 1] = four.y, to[k + 2] = four.z, to[k + 3] = four.w;
  }
}

template <PendingActivation A, class T>
__global__ void __launch_bounds__(kMapThreads, 4) apply_rows(const Rows<T> job) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Packet<T>::kSize;
  const unsigned part = blockIdx.x / job.tiles, tile = blockIdx.x - part * job.tiles;
  const unsigned down = blockDim.x / job.across;
  const unsigned y = threadIdx.x / job.across, x = threadIdx.x - y * job.across;
  const unsigned packet = tile * job.across + x;
  if (y >= down || packet >= job.packets) return;
  float scale[kSize], shift[kSize];
  load_factors(job.scale, packet, 1.0f, scale);
  load_factors(job.shift, packet, 0.0f, shift);
  const unsigned begin = part * job.of_block, end = min(job.rows, begin + job.of_block);
  for (unsigned row = begin + y; row < end; row += kAtOnce * down) {
    Packet<T> numbers[kAtOnce];
#pragma unroll
    for (unsigned i = 0; i < kAtOnce; ++i)
      if (row + i * down < end) numbers[i] = job.stored[std::size_t{row + i * down} * job.packets + packet];
#pragma unroll
    for (unsigned i = 0; i < kAtOnce; ++i) {
      if (row + i * down >= end) continue;
#pragma unroll
      for (int k = 0; k < kSize; ++k)
        numbers[i].at[k] = detail::cuda::from_compute<T>(
            activate<A, T>(detail::cuda::to_compute(numbers[i].at[k]) * scale[k] + shift[k]));
      job.out[std::size_t{row + i * down} * job.packets + packet] = numbers[i];
    }
  }
}

/// False, with nothing done: not such rows.
template <PendingActivation A, class T>
bool apply_by_rows(const PendingView& pending, const TensorView& output, std::int64_t channels) {
  constexpr std::int64_t kSize = Packet<T>::kSize, kMost = std::int64_t{1} << 31, kMostAcross = 32;
  const std::int64_t rows = output.numel() / channels;
  if (channels % kSize != 0 || rows >= kMost) return false;
  for (const void* const data :
       {pending.stored.data, pending.scale, pending.shift, static_cast<const void*>(output.data)})
    if (!detail::cuda::is_aligned(data)) return false;
  Rows<T> job{};
  job.stored = static_cast<const Packet<T>*>(pending.stored.data);
  job.scale = static_cast<const float*>(pending.scale);
  job.shift = static_cast<const float*>(pending.shift);
  job.out = static_cast<Packet<T>*>(output.data);
  job.packets = static_cast<unsigned>(channels / kSize);
  job.tiles = static_cast<unsigned>((job.packets + kMostAcross - 1) / kMostAcross);
  job.across = (job.packets + job.tiles - 1) / job.tiles;
  job.rows = static_cast<unsigned>(rows);
  job.of_block = 2 * kAtOnce * (kMapThreads / job.across);
  const unsigned parts = (job.rows - 1) / job.of_block + 1;
  if (std::int64_t{parts} * job.tiles >= kMost) return false;
  detail::cuda::launch_early("apply_pending", output.device, parts * job.tiles, kMapThreads, 0,
                             apply_rows<A, T>, job);
  return true;
}

template <PendingActivation A, class T>
void apply_dense(const PendingView& pending, const TensorView& output) {
  const bool per_channel = output.shape.size() >= 2;
  const std::int64_t channels = per_channel ? output.shape[1] : 1;
  const std::int64_t total = output.numel();
  if (total == 0) return;
  const bool channels_last = per_channel && channels > 1 && output.strides[1] == 1;
  if constexpr (!std::is_same_v<T, double>)
    if (channels_last && apply_by_rows<A, T>(pending, output, channels)) return;
  const std::int64_t run = channels_last ? 1 : total / (per_channel ? output.shape[0] * channels : 1);
  // Slices begin at a channel 0, and at sixteen bytes.
  constexpr std::int64_t kLargest = std::int64_t{1} << 30;
  const std::int64_t period = std::lcm<std::int64_t>(run * channels, Packet<T>::kSize);
  LAMELLA_CHECK(ShapeError, total <= kLargest || period <= kLargest, "apply_pending: images of ",
                run * channels, " elements are too large for a GPU");
  const std::int64_t slice = total <= kLargest ? total : kLargest / period * period;
  for (std::int64_t begin = 0; begin < total; begin += slice) {
    Debt<T> debt{};
    debt.stored = pending.stored.as<T>() + begin;
    debt.scale = static_cast<const ComputeType<T>*>(pending.scale);
    debt.shift = static_cast<const ComputeType<T>*>(pending.shift);
    debt.out = output.as<T>() + begin;
    debt.total = static_cast<std::uint32_t>(std::min(slice, total - begin));
    debt.run = detail::cuda::Divisor(static_cast<std::uint32_t>(run));
    debt.channels = detail::cuda::Divisor(static_cast<std::uint32_t>(channels));
    const std::int64_t packets = (debt.total + Packet<T>::kSize - 1) / Packet<T>::kSize;
    detail::cuda::launch_early("apply_pending", output.device, detail::cuda::blocks_for(packets, kMapThreads),
                               kMapThreads, 0, apply<A, T>, debt);
  }
}

}  // namespace

void apply_pending(const PendingView& pending, const TensorView& output) {
  detail::dispatch_floating(output.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (pending.activation) {
      case PendingActivation::None:
        return apply_dense<PendingActivation::None, T>(pending, output);
      case PendingActivation::Relu:
        return apply_dense<PendingActivation::Relu, T>(pending, output);
      case PendingActivation::Relu6:
        return apply_dense<PendingActivation::Relu6, T>(pending, output);
      case PendingActivation::Hardswish:
        return apply_dense<PendingActivation::Hardswish, T>(pending, output);
      case PendingActivation::Silu:
        return apply_dense<PendingActivation::Silu, T>(pending, output);
    }
  });
}

}  // namespace lamella::cuda
