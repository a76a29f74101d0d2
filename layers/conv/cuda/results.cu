#include <algorithm>

#include "core/cuda/divisor.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/number.cuh"
#include "core/cuda/packet.cuh"
#include "core/workspace.h"
#include "layers/conv/cuda/results.h"
#include "layers/conv/cuda/windows.h"
#include "tensor/cuda/index.cuh"
#include "tensor/cuda/map.cuh"
#include "tensor/functions.h"
#include "tensor/strided.h"

namespace lamella::cuda {

using detail::ComputeType;
using detail::ConstTensorView;
using detail::GradientWrite;
using detail::TensorView;
using detail::cuda::Divisor;
using detail::cuda::is_aligned;

namespace {

constexpr int kThreads = 256;

/// Sums and target as one row: `run` neighbours are of one channel.
template <class T>
struct StoreArguments {
  using C = ComputeType<T>;
  const C* sums;  // may be `out`
  const void* bias;
  DType bias_dtype;
  std::int64_t bias_stride;
  T* out;
  std::uint32_t total;
  Divisor run, channels;
  bool accumulate;

  __device__ T result(C sum, T before, std::uint32_t channel) const {
    if (bias != nullptr) sum += detail::cuda::load_number<C>(bias_dtype, bias, channel * bias_stride);
    if (accumulate) sum += detail::cuda::to_compute(before);
    return detail::cuda::from_compute<T>(sum);
  }
};

template <class T>
__global__ void store_row(const StoreArguments<T> args) {
  detail::cuda::wait_for_stream();
  using C = ComputeType<T>;
  constexpr std::uint32_t kSize = Packet<T>::kSize;
  struct alignas(16) Sums {
    C at[kSize];
  };
  const std::uint32_t packets = (args.total + kSize - 1) / kSize, step = gridDim.x * blockDim.x;
  for (std::uint32_t packet = blockIdx.x * blockDim.x + threadIdx.x; packet < packets; packet += step) {
    const std::uint32_t first = packet * kSize;
    const std::uint32_t row = args.run.divide(first);
    std::uint32_t in_run = first - row * args.run.value;
    std::uint32_t channel = row - args.channels.divide(row) * args.channels.value;
    const bool whole = first + kSize <= args.total;
    Sums sums{};
    Packet<T> out{};
    if (whole) {
      sums = reinterpret_cast<const Sums*>(args.sums)[packet];
      if (args.accumulate) out = reinterpret_cast<const Packet<T>*>(args.out)[packet];
    } else {
      for (std::uint32_t k = 0; k < kSize && first + k < args.total; ++k) {
        sums.at[k] = args.sums[first + k];
        if (args.accumulate) out.at[k] = args.out[first + k];
      }
    }
#pragma unroll
    for (std::uint32_t k = 0; k < kSize; ++k) {
      out.at[k] = args.result(sums.at[k], out.at[k], channel);
      if (++in_run == args.run.value) {
        in_run = 0;
        if (++channel == args.channels.value) channel = 0;
      }
    }
    if (whole) {
      reinterpret_cast<Packet<T>*>(args.out)[packet] = out;
    } else {
      for (std::uint32_t k = 0; k < kSize && first + k < args.total; ++k) args.out[first + k] = out.at[k];
    }
  }
}

/// Whether both are one row of numbers, in the same order.
bool is_one_row(const ConstTensorView& sums, const TensorView& target) {
  constexpr std::int64_t kLargest = (std::int64_t{1} << 31) - 16;
  const auto plan = detail::plan_strided<2>(target.shape, {target.strides, sums.strides});
  return plan.axes == 1 && plan.stride[0][0] == 1 && plan.stride[1][0] == 1 && plan.total <= kLargest &&
         is_aligned(sums.data) && is_aligned(target.data);
}

struct ElementStrides {
  std::int64_t at[kMaxAxes];
};

/// Threads of a block: x over neighbouring elements, y over parts.
constexpr int kAcross = 32, kDown = 16;

template <class P>
__global__ void add_parts(const P* parts, std::int64_t count, std::int64_t size,
                          const __grid_constant__ Index index,
                          const __grid_constant__ ElementStrides part_strides,
                          const __grid_constant__ ElementStrides to_strides, void* to, DType dtype,
                          bool accumulate) {
  detail::cuda::wait_for_stream();
  __shared__ double shared[kDown][kAcross];
  for (std::uint32_t first = blockIdx.x * kAcross; first < index.total; first += gridDim.x * kAcross) {
    const std::uint32_t element = first + threadIdx.x;
    std::int64_t from = 0, target = 0;
    double total = 0;
    if (element < index.total) {
      index.visit(element, [&](int axis, std::uint32_t at) {
        from += at * part_strides.at[axis];
        target += at * to_strides.at[axis];
      });
#pragma unroll 4
      for (std::int64_t part = threadIdx.y; part < count; part += kDown)
        total += static_cast<double>(parts[part * size + from]);
    }
    shared[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && element < index.total) {
      for (int y = 1; y < kDown; ++y) total += shared[y][threadIdx.x];
      if (accumulate) total += detail::cuda::load_number<double>(dtype, to, target);
      detail::cuda::store_number(dtype, total, to, target);
    }
    __syncthreads();
  }
}

/// Pixels of all images, by channel. Without images in between (`pixels` has them all), or with.
template <class T>
struct ChannelSums {
  const T* from;
  std::int64_t channels, pixels, total;  ///< total: pixels of all images
  std::int64_t image, channel, pixel;    ///< strides
  std::int64_t length;                   ///< pixels of a part
  std::int64_t blocks;                   ///< of a part
  double* parts;
};

/// Threads of a block: x over neighbouring channels, y over the pixels of a part.
template <class T>
__global__ void sum_pixels(const ChannelSums<T> args) {
  detail::cuda::wait_for_stream();
  __shared__ double shared[kThreads];
  const std::int64_t part = blockIdx.x / args.blocks;
  const std::int64_t channel = blockIdx.x % args.blocks * blockDim.x + threadIdx.x;
  const std::int64_t end = min(args.total, (part + 1) * args.length);
  double total = 0;
  if (channel < args.channels) {
    std::int64_t at = part * args.length + threadIdx.y;
    std::int64_t image = at / args.pixels, pixel = at % args.pixels;
    const std::int64_t images = blockDim.y / args.pixels, pixels = blockDim.y % args.pixels;
    const T* const from = args.from + channel * args.channel;
#pragma unroll 4
    for (; at < end; at += blockDim.y) {
      total += static_cast<double>(detail::cuda::to_compute(from[image * args.image + pixel * args.pixel]));
      image += images;
      pixel += pixels;
      if (pixel >= args.pixels) {
        pixel -= args.pixels;
        ++image;
      }
    }
  }
  const unsigned at = threadIdx.y * blockDim.x + threadIdx.x;
  shared[at] = total;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) shared[at] += shared[at + half * blockDim.x];
  }
  if (threadIdx.y == 0 && channel < args.channels) args.parts[part * args.channels + channel] = shared[at];
}

}  // namespace

void store_sums(const ConstTensorView& sums, const ConstTensorView& bias, const TensorView& target,
                GradientWrite write) {
  if (target.numel() == 0) return;
  if (is_one_row(sums, target)) {
    const std::int64_t channels = target.shape[1];
    // Sums have no gaps, so these tell pixel by pixel from planes.
    const std::int64_t run = sums.strides[1] == 1 ? 1 : target.shape[2] * target.shape[3];
    detail::dispatch_floating(target.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      StoreArguments<T> args{};
      args.sums = sums.as<ComputeType<T>>();
      args.bias = bias.data;
      args.bias_dtype = bias.dtype;
      args.bias_stride = bias.data != nullptr ? bias.strides[0] : 0;
      args.out = target.as<T>();
      args.total = static_cast<std::uint32_t>(target.numel());
      args.run = Divisor(static_cast<std::uint32_t>(run));
      args.channels = Divisor(static_cast<std::uint32_t>(channels));
      args.accumulate = write == GradientWrite::Accumulate;
      const std::int64_t packets = divide_up(target.numel(), Packet<T>::kSize);
      detail::cuda::launch_early("conv2d", target.device, detail::cuda::blocks_for(packets, kThreads),
                                 kThreads, 0, store_row<T>, args);
    });
    return;
  }
  const ConstTensorView each = {bias.data,
                                target.shape,
                                {0, bias.data != nullptr ? bias.strides[0] : 0, 0, 0},
                                bias.dtype,
                                target.device};
  dispatch_compute_floating(target.dtype, [&](auto tag) {
    using C = typename decltype(tag)::type;
    if (bias.data != nullptr)
      map_each<C>(target, write, detail::Add(), sums, each);
    else
      map_each<C>(target, write, detail::Add(), sums, MapOperand(0.0));
  });
}

void add_partial_sums(const PartialSums& parts, const TensorView& target, GradientWrite write) {
  const auto plan = detail::plan_strided<2>(target.shape, {parts.strides, target.strides});
  ElementStrides from{}, to{};
  for (std::size_t axis = 0; axis < static_cast<std::size_t>(plan.axes); ++axis) {
    from.at[axis] = plan.stride[0][axis];
    to.at[axis] = plan.stride[1][axis];
  }
  detail::dispatch_compute_floating(parts.dtype, [&](auto tag) {
    using P = typename decltype(tag)::type;
    for_each_slice<2>(plan, [&](const Index& index, const std::array<std::int64_t, 2>& at) {
      detail::cuda::launch_early("conv2d_backward_weight", target.device,
                                 detail::cuda::blocks_for(index.total, kAcross), dim3(kAcross, kDown), 0,
                                 add_parts<P>, static_cast<const P*>(parts.data) + at[0], parts.count,
                                 parts.size, index, from, to,
                                 static_cast<void*>(static_cast<std::byte*>(target.data) +
                                                    at[1] * static_cast<std::int64_t>(size_of(target.dtype))),
                                 target.dtype, write == GradientWrite::Accumulate);
    });
  });
}

void sum_channels(const ConstTensorView& x, bool channels_last, const TensorView& target,
                  GradientWrite write) {
  constexpr std::int64_t kWantedBlocks = 1024, kLeastLength = 2048;
  const std::int64_t images = x.shape[0], channels = x.shape[1], pixels = x.shape[2] * x.shape[3];
  const std::int64_t across = channels_last && channels > 1 ? 32 : 1;
  const std::int64_t total = images * pixels, blocks = divide_up(channels, across);
  const std::int64_t most =
      std::clamp<std::int64_t>(kWantedBlocks / blocks, 1, divide_up(total, kLeastLength));
  const std::int64_t length = divide_up(total, most), count = divide_up(total, length);
  const detail::Workspace memory(x.device, count * channels * static_cast<std::int64_t>(sizeof(double)));
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ChannelSums<T> args{};
    args.from = x.as<T>();
    args.channels = channels;
    args.pixels = channels_last ? total : pixels;
    args.total = total;
    args.image = channels * pixels;
    args.channel = channels_last ? 1 : pixels;
    args.pixel = channels_last ? channels : 1;
    args.length = length;
    args.blocks = blocks;
    args.parts = memory.as<double>();
    detail::cuda::launch_early("conv2d_backward_weight", x.device,
                               dim3(static_cast<unsigned>(blocks * count)),
                               dim3(static_cast<unsigned>(across), static_cast<unsigned>(kThreads / across)),
                               0, sum_pixels<T>, args);
  });
  add_partial_sums({memory.as<void>(), DType::Float64, count, channels, {1}}, target, write);
}

}  // namespace lamella::cuda
