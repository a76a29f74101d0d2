#include <algorithm>

#include "core/cuda/launch.cuh"
#include "core/workspace.h"
#include "layers/depthwise_conv2d/cuda/cut_hooks.h"
#include "layers/depthwise_conv2d/cuda/taps.cuh"

/// Transforms and store hooks with any kernel, stride, dilation, multiplier, strides of views and type: every
/// result by the definition, from global memory.
namespace lamella::cuda::depthwise {
namespace {

using lamella::depthwise::kMomentFloats;
using lamella::depthwise::kNormSumFloats;
using lamella::depthwise::Transform;

constexpr int kThreads = 256;

struct Axis {
  std::int64_t source, target, kernel, stride, padding, dilation;
};

struct FusedWork {
  const void *source, *input;
  void* target;
  TapView taps;
  Axis h, w;
  std::int64_t channels, repeat, pixels, of_part, parts;  ///< channels and pixels of the target
  std::int64_t source_stride[4], target_stride[4], input_stride[4];
  Transform transform;
  const float* center;
  float* sums;  ///< [part][channel]; null: no hook
  bool accumulate;
};

/// Result (n, c, row, column) of the forward.
template <class T>
__device__ detail::ComputeType<T> forward_at(const FusedWork& work, std::int64_t n, std::int64_t c,
                                             std::int64_t row, std::int64_t column) {
  const std::int64_t channel = c / work.repeat;
  const T* const plane =
      static_cast<const T*>(work.source) + n * work.source_stride[0] + channel * work.source_stride[1];
  detail::ComputeType<T> sum = load_bias<T>(work.taps, c);
  for (std::int64_t kh = 0; kh < work.h.kernel; ++kh) {
    const std::int64_t y = row * work.h.stride - work.h.padding + kh * work.h.dilation;
    if (y < 0 || y >= work.h.source) continue;
    for (std::int64_t kw = 0; kw < work.w.kernel; ++kw) {
      const std::int64_t x = column * work.w.stride - work.w.padding + kw * work.w.dilation;
      if (x < 0 || x >= work.w.source) continue;
      sum +=
          load_parameter<T>(work.taps.taps, work.taps.taps_type,
                            c * work.taps.channel + kh * work.taps.row + kw * work.taps.column) *
          transformed(work.transform, channel,
                      detail::cuda::to_compute(plane[y * work.source_stride[2] + x * work.source_stride[3]]));
    }
  }
  return sum;
}

/// The same of the input's gradient, not masked.
template <class T>
__device__ detail::ComputeType<T> gradient_at(const FusedWork& work, std::int64_t n, std::int64_t c,
                                              std::int64_t row, std::int64_t column) {
  detail::ComputeType<T> sum = 0;
  for (std::int64_t j = c * work.repeat; j < (c + 1) * work.repeat; ++j) {
    const T* const plane =
        static_cast<const T*>(work.source) + n * work.source_stride[0] + j * work.source_stride[1];
    for (std::int64_t kh = 0; kh < work.h.kernel; ++kh) {
      const std::int64_t down = row + work.h.padding - kh * work.h.dilation, y = down / work.h.stride;
      if (down < 0 || down % work.h.stride != 0 || y >= work.h.source) continue;
      for (std::int64_t kw = 0; kw < work.w.kernel; ++kw) {
        const std::int64_t across = column + work.w.padding - kw * work.w.dilation,
                           x = across / work.w.stride;
        if (across < 0 || across % work.w.stride != 0 || x >= work.w.source) continue;
        sum += load_parameter<T>(work.taps.taps, work.taps.taps_type,
                                 j * work.taps.channel + kh * work.taps.row + kw * work.taps.column) *
               detail::cuda::to_compute(plane[y * work.source_stride[2] + x * work.source_stride[3]]);
      }
    }
  }
  return sum;
}

/// A block has a part of the pixels of a channel. Its threads' sums are added up in pairs, in double: of the
/// forward the number of results, their mean and squared differences from it, else the sum and that of
/// products.
template <class T, bool kBackward>
__global__ void __launch_bounds__(kThreads) compute_fused(const FusedWork work) {
  detail::cuda::wait_for_stream();
  using C = detail::ComputeType<T>;
  __shared__ double counts[kThreads], sums[kThreads], squares[kThreads];
  const unsigned thread = threadIdx.x;
  for (std::int64_t item = blockIdx.x; item < work.parts * work.channels; item += gridDim.x) {
    const std::int64_t c = item % work.channels, part = item / work.channels;
    const std::int64_t end = min(work.pixels, (part + 1) * work.of_part);
    double count = 0, pivot = 0, sum = 0, square = 0;
    for (std::int64_t i = part * work.of_part + thread; i < end; i += kThreads) {
      const std::int64_t column = i % work.w.target, rest = i / work.w.target;
      const std::int64_t row = rest % work.h.target, n = rest / work.h.target;
      T& to = static_cast<T*>(work.target)[n * work.target_stride[0] + c * work.target_stride[1] +
                                           row * work.target_stride[2] + column * work.target_stride[3]];
      C result;
      if constexpr (kBackward) {
        result = gradient_at<T>(work, n, c, row, column);
        const C z = detail::cuda::to_compute(
            static_cast<const T*>(work.input)[n * work.input_stride[0] + c * work.input_stride[1] +
                                              row * work.input_stride[2] + column * work.input_stride[3]]);
        const C y = fma(static_cast<C>(work.transform.scale[c]), z, static_cast<C>(work.transform.shift[c]));
        if (y > static_cast<C>(work.transform.low) && y < static_cast<C>(work.transform.high)) {
          sum += static_cast<double>(result);
          square +=
              static_cast<double>(result) * (static_cast<double>(z) - static_cast<double>(work.center[c]));
        } else {
          result = 0;
        }
        if (work.accumulate) result += detail::cuda::to_compute(to);
      } else {
        result = forward_at<T>(work, n, c, row, column);
        if (count == 0) pivot = static_cast<double>(result);
        const double apart = static_cast<double>(result) - pivot;
        count += 1, sum += apart, square += apart * apart;
      }
      to = detail::cuda::from_compute<T>(result);
    }
    if (work.sums == nullptr) continue;
    if (!kBackward && count > 0) {
      const double apart = sum / count;
      square -= sum * apart;
      sum = pivot + apart;  // the mean
    }
    counts[thread] = count, sums[thread] = sum, squares[thread] = square;
    for (unsigned half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread >= half) continue;
      const unsigned other = thread + half;
      if constexpr (kBackward) {
        sums[thread] += sums[other], squares[thread] += squares[other];
      } else if (counts[other] > 0) {
        const double both = counts[thread] + counts[other], share = counts[other] / both;
        const double apart = sums[other] - sums[thread];
        sums[thread] += apart * share;
        squares[thread] += squares[other] + apart * apart * counts[thread] * share;
        counts[thread] = both;
      }
    }
    if (thread == 0) {
      float* const to = work.sums + (part * work.channels + c) * (kBackward ? kNormSumFloats : kMomentFloats);
      if constexpr (!kBackward) to[0] = static_cast<float>(counts[0]);
      to[kBackward ? 0 : 1] = static_cast<float>(sums[0]);
      to[kBackward ? 1 : 2] = static_cast<float>(squares[0]);
    }
    __syncthreads();
  }
}

/// Pixels of a part. No more than 64 parts to a channel: their number is not to depend on the GPU.
std::int64_t part_of(std::int64_t pixels) {
  constexpr std::int64_t kLeast = 4096, kMostParts = 64;
  return std::max(kLeast, (pixels + kMostParts - 1) / kMostParts);
}
std::int64_t parts_of(std::int64_t pixels) { return (pixels + part_of(pixels) - 1) / part_of(pixels); }

}  // namespace

std::int64_t fused_generic_workspace(const Conv2dGeometry& g, bool backward) {
  const Size2 size = backward ? g.in : g.out;
  return parts_of(g.batch * size.h * size.w) *
         (backward ? g.in_channels * kNormSumFloats : g.out_channels * kMomentFloats) *
         static_cast<std::int64_t>(sizeof(float));
}

void fused_generic(const Fused& p) {
  const Conv2dGeometry& g = p.geometry;
  const bool hooks = p.results.mean != nullptr || p.results.sum != nullptr;
  const Device device = p.source.device;
  FusedWork work{};
  work.source = p.source.data, work.input = p.input.data, work.target = p.target.data;
  work.taps = p.taps;
  const Size2 from = p.backward ? g.out : g.in, to = p.backward ? g.in : g.out;
  work.h = {from.h, to.h, g.kernel.h, g.stride.h, g.padding.h, g.dilation.h};
  work.w = {from.w, to.w, g.kernel.w, g.stride.w, g.padding.w, g.dilation.w};
  work.channels = p.backward ? g.in_channels : g.out_channels;
  work.repeat = g.multiplier();
  work.pixels = g.batch * to.h * to.w;
  work.of_part = part_of(work.pixels);
  work.parts = parts_of(work.pixels);
  for (int axis = 0; axis < 4 && work.pixels > 0; ++axis) {
    work.source_stride[axis] = p.source.strides[axis];
    work.target_stride[axis] = p.target.strides[axis];
    if (p.input.data != nullptr) work.input_stride[axis] = p.input.strides[axis];
  }
  work.transform = p.transform;
  work.center = p.results.center;
  work.accumulate = p.accumulate;
  const detail::Workspace sums(device, hooks ? fused_generic_workspace(g, p.backward) : 0);
  if (hooks) work.sums = sums.as<float>();
  if (work.pixels > 0)
    detail::dispatch_floating(p.source.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      detail::cuda::launch_early("depthwise_conv2d", device,
                                 detail::cuda::blocks_for(work.parts * work.channels, 1), kThreads, 0,
                                 p.backward ? compute_fused<T, true> : compute_fused<T, false>, work);
    });
  if (p.results.mean != nullptr) finish_statistics(work.sums, work.parts, work.channels, device, p.results);
  if (p.results.sum != nullptr) finish_norm_sums(work.sums, work.parts, work.channels, device, p.results);
}

}  // namespace lamella::cuda::depthwise
