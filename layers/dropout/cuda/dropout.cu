#include <algorithm>
#include <cstdint>

#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/cuda/packet.cuh"
#include "layers/dropout/kernels.h"
#include "tensor/dispatch.h"

/// Element e of a tensor in logical order takes lane e % 4 of Philox block e / 4, on every device.
namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::DropoutMask;
using detail::GradientWrite;
using detail::PhiloxBlock;
using detail::TensorView;

namespace {

constexpr int kThreads = 256;

template <class T>
struct Masked {
  using C = ComputeType<T>;
  const T* x;
  T* y;
  detail::RandomKey key;
  std::uint32_t threshold;
  C scale;
  bool accumulate;

  __device__ PhiloxBlock draw(std::int64_t block) const {
    return detail::random_block(key, key.step(), static_cast<std::uint64_t>(block));
  }
  __device__ bool stays(const PhiloxBlock& block, int lane) const {
    return (block.lane[lane] >> 8) >= threshold;
  }
  /// What takes the place of `before` in y.
  __device__ T value(T from, T before, bool stays) const {
    using namespace detail::cuda;
    const C masked = stays ? to_compute(from) * scale : C(0);
    return from_compute<T>(accumulate ? masked + to_compute(before) : masked);
  }
  __device__ void put(std::int64_t at, bool stays) const {
    y[at] = value(x[at], accumulate ? y[at] : T(), stays);
  }
};

/// Numbers that a thread takes at once: whole Philox blocks and whole sixteen bytes.
template <class T>
using Group = detail::cuda::Lot<T, sizeof(T) == 2 ? 8 : 4>;

template <class T>
__global__ void __launch_bounds__(kThreads)
    mask_elements(const Masked<T> masked, std::int64_t total, bool aligned) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Group<T>::kSize;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t group = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; group * kSize < total;
       group += step) {
    PhiloxBlock blocks[kSize / 4];
#pragma unroll
    for (int b = 0; b < kSize / 4; ++b) blocks[b] = masked.draw(group * (kSize / 4) + b);
    const std::int64_t first = group * kSize;
    if (aligned && first + kSize <= total) {
      const Group<T> from = reinterpret_cast<const Group<T>*>(masked.x)[group];
      Group<T> to = from;
      if (masked.accumulate) to = reinterpret_cast<const Group<T>*>(masked.y)[group];
#pragma unroll
      for (int k = 0; k < kSize; ++k)
        to.at[k] = masked.value(from.at[k], to.at[k], masked.stays(blocks[k / 4], k % 4));
      reinterpret_cast<Group<T>*>(masked.y)[group] = to;
    } else {
#pragma unroll
      for (int k = 0; k < kSize; ++k)
        if (first + k < total) masked.put(first + k, masked.stays(blocks[k / 4], k % 4));
    }
  }
}

/// Philox blocks along the pixels that a thread draws, one after the other.
constexpr int kRun = 4;

/// Runs of blocks that a plane may touch, wherever in its first block it begins.
LAMELLA_HOST_DEVICE inline std::int64_t runs_of(std::int64_t inner) {
  return ((inner + 3) / 4 + kRun) / kRun;
}

/// NHWC: a thread takes the pixels of one channel that share a Philox block; its neighbours take the next
/// channels, so that memory is used in whole lines. A block across two channels is drawn for each.
template <class T>
__global__ void __launch_bounds__(kThreads)
    mask_pixels(const Masked<T> masked, std::int64_t batch, std::int64_t channels, std::int64_t inner) {
  detail::cuda::wait_for_stream();
  const std::int64_t runs = runs_of(inner), groups = (channels + blockDim.x - 1) / blockDim.x;
  for (std::int64_t item = blockIdx.x; item < batch * runs * groups; item += gridDim.x) {
    const std::int64_t row = item / groups, c = (item - row * groups) * blockDim.x + threadIdx.x;
    if (c >= channels) continue;
    const std::int64_t n = row / runs, plane = (n * channels + c) * inner;
    const std::int64_t first = plane / 4 + (row - n * runs) * kRun;
#pragma unroll
    for (int b = 0; b < kRun; ++b) {
      const std::int64_t pixel = 4 * (first + b) - plane;  // of lane 0
      if (pixel >= inner) break;
      const PhiloxBlock drawn = masked.draw(first + b);
#pragma unroll
      for (int lane = 0; lane < 4; ++lane)
        if (pixel + lane >= 0 && pixel + lane < inner)
          masked.put((n * inner + pixel + lane) * channels + c, masked.stays(drawn, lane));
    }
  }
}

/// Groups that a block takes of one sample.
constexpr std::int64_t kGroupsPerBlock = kThreads * 8;

/// A whole sample has one fate, which is drawn once for many numbers of it.
template <class T>
__global__ void __launch_bounds__(kThreads)
    mask_samples(const Masked<T> masked, std::int64_t batch, std::int64_t size, bool aligned) {
  detail::cuda::wait_for_stream();
  constexpr int kSize = Group<T>::kSize;
  const std::int64_t groups = (size + kSize - 1) / kSize,
                     parts = (groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  for (std::int64_t item = blockIdx.x; item < batch * parts; item += gridDim.x) {
    const std::int64_t n = item / parts, begin = item % parts * kGroupsPerBlock;
    const PhiloxBlock drawn = masked.draw(n / 4);
    bool stays = false;
#pragma unroll
    for (int lane = 0; lane < 4; ++lane)  // no index that is known at run time only: registers have none
      if (lane == n % 4) stays = masked.stays(drawn, lane);
    const std::int64_t end = min(groups, begin + kGroupsPerBlock);
    if (aligned) {
      const Group<T>* const x = reinterpret_cast<const Group<T>*>(masked.x + n * size);
      Group<T>* const y = reinterpret_cast<Group<T>*>(masked.y + n * size);
      for (std::int64_t group = begin + threadIdx.x; group < end; group += kThreads) {
        const Group<T> from = x[group];
        Group<T> to = from;
        if (masked.accumulate) to = y[group];
#pragma unroll
        for (int k = 0; k < kSize; ++k) to.at[k] = masked.value(from.at[k], to.at[k], stays);
        y[group] = to;
      }
    } else {
      for (std::int64_t i = begin * kSize + threadIdx.x; i < min(size, end * kSize); i += kThreads)
        masked.put(n * size + i, stays);
    }
  }
}

template <class T>
void run(const ConstTensorView& x, const DropoutMask& mask, const TensorView& y, GradientWrite write) {
  using detail::cuda::blocks_for;
  using detail::cuda::is_aligned;
  using detail::cuda::launch_early;
  const Masked<T> masked{x.as<T>(),
                         y.as<T>(),
                         mask.key,
                         mask.threshold,
                         static_cast<ComputeType<T>>(mask.scale),
                         write == GradientWrite::Accumulate};
  constexpr std::int64_t kSize = Group<T>::kSize;
  const bool aligned = is_aligned(x.data) && is_aligned(y.data);
  const std::int64_t size = mask.channels * mask.inner, total = mask.batch * size;
  if (mask.per_sample) {
    const std::int64_t parts = (size + kSize * kGroupsPerBlock - 1) / (kSize * kGroupsPerBlock);
    launch_early("drop_path", y.device, blocks_for(mask.batch * parts, 1), kThreads, 0, mask_samples<T>,
                 masked, mask.batch, size, aligned && size % kSize == 0);
  } else if (mask.channels_last && mask.inner > 1) {
    const std::int64_t threads = std::min<std::int64_t>(kThreads, (mask.channels + 31) / 32 * 32);
    const std::int64_t groups = (mask.channels + threads - 1) / threads;
    launch_early("dropout", y.device, blocks_for(mask.batch * runs_of(mask.inner) * groups, 1),
                 static_cast<unsigned>(threads), 0, mask_pixels<T>, masked, mask.batch, mask.channels,
                 mask.inner);
  } else {
    launch_early("dropout", y.device, blocks_for((total + kSize - 1) / kSize, kThreads), kThreads, 0,
                 mask_elements<T>, masked, total, aligned);
  }
}

}  // namespace

void dropout(const ConstTensorView& x, const DropoutMask& mask, const TensorView& y, GradientWrite write) {
  if (y.numel() == 0) return;
  detail::dispatch_floating(x.dtype, [&](auto tag) { run<typename decltype(tag)::type>(x, mask, y, write); });
}

}  // namespace lamella::cuda
