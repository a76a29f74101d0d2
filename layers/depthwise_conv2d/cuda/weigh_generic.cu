#include <utility>

#include "core/cuda/launch.cuh"
#include "core/workspace.h"
#include "layers/depthwise_conv2d/cuda/taps.cuh"

/// Weight gradients of any kernel, stride, dilation, multiplier, strides of views and type: a pass over both
/// tensors for every few taps.
namespace lamella::cuda::depthwise {
namespace {

constexpr int kThreads = 256;
/// Taps that are added up in one pass.
constexpr int kTaps = 9;
/// Products that a thread adds up at most.
constexpr std::int64_t kRounds = 512;

struct Axis {
  std::int64_t in, out, kernel, stride, padding, dilation;
};

struct GenericWeighing {
  const void* input;
  const void* gradient;
  Axis h, w;
  std::int64_t channels, repeat, taps, tap_groups, channel_groups, parts, length, pixels;
  std::int64_t input_stride[4], gradient_stride[4];
  lamella::depthwise::Transform transform;
  void* sums;
};

/// Threads of a block: x over neighbouring channels, y over pixels.
template <class T>
__global__ void __launch_bounds__(kThreads) weigh_anything(const GenericWeighing work) {
  detail::cuda::wait_for_stream();
  using C = detail::ComputeType<T>;
  __shared__ C shared[kThreads];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  const std::int64_t items = work.parts * work.tap_groups * work.channel_groups;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t channel_group = item % work.channel_groups, rest = item / work.channel_groups;
    const std::int64_t first_tap = rest % work.tap_groups * kTaps, part = rest / work.tap_groups;
    const std::int64_t channel = channel_group * blockDim.x + threadIdx.x;
    const int taps = static_cast<int>(min(work.taps - first_tap, static_cast<std::int64_t>(kTaps)));
    C sums[kTaps] = {}, total = 0;
    if (channel < work.channels) {
      const T* input = static_cast<const T*>(work.input) + channel / work.repeat * work.input_stride[1];
      const T* gradient = static_cast<const T*>(work.gradient) + channel * work.gradient_stride[1];
      const std::int64_t end = min((part + 1) * work.length, work.pixels);
      for (std::int64_t pixel = part * work.length + threadIdx.y; pixel < end; pixel += blockDim.y) {
        const std::int64_t row = pixel / work.w.out, n = row / work.h.out;
        const std::int64_t ow = pixel - row * work.w.out, oh = row - n * work.h.out;
        const C g =
            detail::cuda::to_compute(gradient[n * work.gradient_stride[0] + oh * work.gradient_stride[2] +
                                              ow * work.gradient_stride[3]]);
        total += g;
        const std::int64_t ih = oh * work.h.stride - work.h.padding, iw = ow * work.w.stride - work.w.padding;
        std::int64_t kh = first_tap / work.w.kernel, kw = first_tap - kh * work.w.kernel;
#pragma unroll
        for (int k = 0; k < kTaps; ++k) {
          if (k >= taps) break;
          const std::int64_t h = ih + kh * work.h.dilation, w = iw + kw * work.w.dilation;
          if (h >= 0 && h < work.h.in && w >= 0 && w < work.w.in)
            sums[k] +=
                g * transformed(
                        work.transform, channel / work.repeat,
                        detail::cuda::to_compute(input[n * work.input_stride[0] + h * work.input_stride[2] +
                                                       w * work.input_stride[3]]));
          if (++kw == work.w.kernel) {
            kw = 0;
            ++kh;
          }
        }
      }
    }
    // The bias comes with the first taps.
    const int count = taps + (first_tap == 0 ? 1 : 0);
    for (int k = 0; k < count; ++k) {
      C mine = total;
#pragma unroll
      for (int other = 0; other < kTaps; ++other)
        if (other == k && k < taps) mine = sums[other];
      shared[thread] = mine;
      for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) shared[thread] += shared[thread + half * blockDim.x];
      }
      if (threadIdx.y == 0 && channel < work.channels) {
        const std::int64_t tap = k < taps ? first_tap + k : work.taps;
        static_cast<C*>(work.sums)[(channel * (work.taps + 1) + tap) * work.parts + part] = shared[thread];
      }
      __syncthreads();
    }
  }
}

/// All but the place of the sums, and how many channels a block takes side by side.
std::pair<GenericWeighing, unsigned> cut(const Weighing& p) {
  const Conv2dGeometry& g = p.geometry;
  GenericWeighing work{};
  work.input = p.input.data;
  work.gradient = p.gradient.data;
  work.h = {g.in.h, g.out.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h};
  work.w = {g.in.w, g.out.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w};
  work.transform = p.transform;
  work.channels = g.out_channels;
  work.repeat = g.multiplier();
  work.taps = g.kernel.h * g.kernel.w;
  work.tap_groups = (work.taps + kTaps - 1) / kTaps;
  for (int axis = 0; axis < 4; ++axis) {
    work.input_stride[axis] = p.input.strides[axis];
    work.gradient_stride[axis] = p.gradient.strides[axis];
  }
  const unsigned across = work.channels > 1 && p.gradient.strides[1] < p.gradient.strides[3] ? 32 : 1;
  const unsigned down = kThreads / across;
  work.channel_groups = (work.channels + across - 1) / across;
  work.pixels = g.batch * g.out.h * g.out.w;
  // Parts for enough blocks, of no more products to a thread than are safe to add one by one.
  constexpr std::int64_t kWantedBlocks = 2048;
  const std::int64_t wanted = (kWantedBlocks + work.channel_groups - 1) / work.channel_groups;
  const std::int64_t rounds = std::clamp<std::int64_t>(work.pixels / (wanted * down), 4, kRounds);
  work.length = rounds * down;
  work.parts = (work.pixels + work.length - 1) / work.length;
  return {work, across};
}

std::int64_t bytes_of_sums(const GenericWeighing& work, DType dtype) {
  const std::size_t number = dtype == DType::Float64 ? sizeof(double) : sizeof(float);
  return work.channels * (work.taps + 1) * work.parts * static_cast<std::int64_t>(number);
}

}  // namespace

std::int64_t weigh_generic_workspace(const Weighing& problem) {
  return bytes_of_sums(cut(problem).first, problem.input.dtype);
}

void weigh_generic(const Weighing& p, const Parts& to) {
  auto [work, across] = cut(p);
  const unsigned down = kThreads / across;
  const detail::Workspace sums(p.input.device, bytes_of_sums(work, p.input.dtype));
  work.sums = sums.as<void>();
  const std::int64_t items = work.parts * work.tap_groups * work.channel_groups;
  detail::dispatch_floating(p.input.dtype, [&, &work = work, &across = across](auto tag) {
    using T = typename decltype(tag)::type;
    detail::cuda::launch_early("depthwise_conv2d_backward_weight", p.input.device,
                               detail::cuda::blocks_for(items, 1), dim3(across, down), 0, weigh_anything<T>,
                               work);
  });
  finish_parts(work.sums, work.parts, p.input.dtype, to);
}

}  // namespace lamella::cuda::depthwise
