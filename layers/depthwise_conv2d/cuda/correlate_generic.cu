#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/taps.cuh"

/// Any kernel, stride, dilation, multiplier, strides of views and type; positions in 64 bits where they need
/// them.
namespace lamella::cuda::depthwise {
namespace {

constexpr int kThreads = 256;
/// Target rows of a thread, which share the loads of taps.
constexpr int kRows = 4;

struct Axis {
  std::int64_t source, target, kernel, stride, padding, dilation;
};

struct GenericWork {
  const void* source;
  void* target;
  TapView taps;
  Axis h, w;
  std::int64_t channels, groups_of_rows, repeat, reduce, total;
  std::int64_t source_stride[4], target_stride[4];
  bool channels_inside, scatters, accumulate;
};

/// The source position that tap k brings to target position t, or -1.
template <class I>
__device__ I source_position(const Axis& axis, bool scatters, I t, I k) {
  const I distance = static_cast<I>(k * static_cast<I>(axis.dilation));
  I at;
  if (scatters) {
    at = t + static_cast<I>(axis.padding) - distance;
    const I stride = static_cast<I>(axis.stride);
    if (at < 0 || (stride > 1 && at % stride != 0)) return -1;
    at /= stride;
  } else {
    at = t * static_cast<I>(axis.stride) - static_cast<I>(axis.padding) + distance;
  }
  return at >= 0 && at < static_cast<I>(axis.source) ? at : -1;
}

/// Splits the inner position off i.
template <class I>
__device__ I take(I& i, std::int64_t size) {
  const I outer = i / static_cast<I>(size), inner = i - outer * static_cast<I>(size);
  i = outer;
  return inner;
}

template <class T, class I>
__global__ void correlate_anything(const GenericWork work) {
  detail::cuda::wait_for_stream();
  using C = detail::ComputeType<T>;
  const I step = static_cast<I>(gridDim.x) * kThreads;
  for (I i = static_cast<I>(blockIdx.x) * kThreads + static_cast<I>(threadIdx.x);
       i < static_cast<I>(work.total); i += step) {
    I rest = i, c = 0;
    if (work.channels_inside) c = take(rest, work.channels);
    const I w = take(rest, work.w.target), first = take(rest, work.groups_of_rows) * kRows;
    if (!work.channels_inside) c = take(rest, work.channels);
    const I n = rest;
    const I rows = min(static_cast<I>(work.h.target) - first, static_cast<I>(kRows));

    C sums[kRows];
    const C bias = load_bias<T>(work.taps, c);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = bias;
    const I channels = static_cast<I>(work.reduce);
    for (I j = 0; j < channels; ++j) {
      const I tap_channel = c * channels + j;
      const T* plane = static_cast<const T*>(work.source) + n * work.source_stride[0] +
                       tap_channel / static_cast<I>(work.repeat) * work.source_stride[1];
      for (I kw = 0; kw < static_cast<I>(work.w.kernel); ++kw) {
        const I column = source_position<I>(work.w, work.scatters, w, kw);
        if (column < 0) continue;
        for (I kh = 0; kh < static_cast<I>(work.h.kernel); ++kh) {
          const C tap =
              load_parameter<T>(work.taps.taps, work.taps.taps_type,
                                tap_channel * work.taps.channel + kh * work.taps.row + kw * work.taps.column);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const I row =
                r < rows ? source_position<I>(work.h, work.scatters, first + static_cast<I>(r), kh) : -1;
            if (row < 0) continue;
            sums[r] += tap * detail::cuda::to_compute(
                                 plane[row * work.source_stride[2] + column * work.source_stride[3]]);
          }
        }
      }
    }
    T* to = static_cast<T*>(work.target) + n * work.target_stride[0] + c * work.target_stride[1] +
            w * work.target_stride[3];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
      T& at = to[(first + r) * work.target_stride[2]];
      if (work.accumulate) sums[r] += detail::cuda::to_compute(at);
      at = detail::cuda::from_compute<T>(sums[r]);
    }
  }
}

}  // namespace

void correlate_generic(const Correlation& p) {
  GenericWork work{};
  work.source = p.source.data;
  work.target = p.target.data;
  work.taps = p.taps;
  work.h = {p.source.shape[2], p.target.shape[2], p.kernel.h, p.stride.h, p.padding.h, p.dilation.h};
  work.w = {p.source.shape[3], p.target.shape[3], p.kernel.w, p.stride.w, p.padding.w, p.dilation.w};
  work.channels = p.target.shape[1];
  work.groups_of_rows = (p.target.shape[2] + kRows - 1) / kRows;
  work.repeat = p.repeat;
  work.reduce = p.reduce;
  work.total = p.target.shape[0] * work.channels * work.groups_of_rows * p.target.shape[3];
  for (int axis = 0; axis < 4; ++axis) {
    work.source_stride[axis] = p.source.strides[axis];
    work.target_stride[axis] = p.target.strides[axis];
  }
  work.channels_inside = work.channels > 1 && p.target.strides[1] < p.target.strides[3];
  work.scatters = p.scatters;
  work.accumulate = p.accumulate;

  // Every position that the kernel computes, also of taps beside the source, and what its loop adds.
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  bool narrow = work.total < kMost && p.source.shape[1] < kMost && work.channels * work.reduce < kMost;
  for (const Axis& axis : {work.h, work.w})
    narrow = narrow && axis.source < kMost && axis.kernel < kMost / axis.dilation &&
             std::abs(axis.padding) < kMost && axis.target < kMost / axis.stride;
  detail::dispatch_floating(p.target.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    detail::cuda::launch_early(
        "depthwise_conv2d", p.target.device, detail::cuda::blocks_for(work.total, kThreads), kThreads, 0,
        narrow ? correlate_anything<T, std::int32_t> : correlate_anything<T, std::int64_t>, work);
  });
}

}  // namespace lamella::cuda::depthwise
