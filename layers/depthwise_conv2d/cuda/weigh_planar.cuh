#pragma once

#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/parts.cuh"
#include "layers/depthwise_conv2d/cuda/planar.cuh"
#include "layers/depthwise_conv2d/cuda/taps.cuh"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

inline constexpr int kWeighThreads = 128;

struct PlanarWeighing {
  Planes input, gradient;
  detail::cuda::Divisor vectors, strips, parts;
  int repeat;
  int rows;         ///< of a strip of the gradient
  unsigned items;   ///< of a channel: images x strips x vectors
  unsigned length;  ///< of a part
  int padding_h, lead;
  float* sums;
};

/// Adds each of kCount numbers over the block; the k-th sum is returned to thread k.
template <int kCount>
__device__ inline float add_over_block(const float (&numbers)[kCount]) {
  constexpr int kWarps = kWeighThreads / 32;
  static_assert(kCount <= kWeighThreads);
  __shared__ float shared[kWarps][kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    float sum = numbers[k];
#pragma unroll
    for (int half = 16; half > 0; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32][k] = sum;
  }
  __syncthreads();
  float sum = 0;
  if (threadIdx.x < kCount) {
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp][threadIdx.x];
  }
  return sum;
}

/// A block adds up one part of one channel.
template <class T, class K, int kRows>
__global__ void __launch_bounds__(kWeighThreads) weigh_planes(const PlanarWeighing work) {
  constexpr int kMain = 16 / sizeof(T), kColumns = kMain / K::kStride;
  const unsigned channel = work.parts.divide(blockIdx.x), part = blockIdx.x - channel * work.parts.value;
  float sums[K::kTaps][1] = {}, total[1] = {};
  const T* input =
      static_cast<const T*>(work.input.data) + static_cast<int>(channel) / work.repeat * work.input.channel;
  const T* gradient =
      static_cast<const T*>(work.gradient.data) + static_cast<int>(channel) * work.gradient.channel;

  PlanarRows<T, kMain, K::kW - K::kStride> x;
  x.pitch = work.input.pitch;
  x.lead = work.lead;
  x.halves = work.input.piece != kMain;
  PlanarRows<T, kColumns, 0> g;
  g.pitch = work.gradient.pitch;
  g.lead = 0;
  g.halves = work.gradient.piece != kColumns;

  const unsigned end = min((part + 1) * work.length, work.items);
  for (unsigned item = part * work.length + threadIdx.x; item < end; item += kWeighThreads) {
    const unsigned row = work.vectors.divide(item), image = work.strips.divide(row);
    const int vector = static_cast<int>(item - row * work.vectors.value);
    g.first = static_cast<int>(row - image * work.strips.value) * work.rows;
    const int rows = min(work.rows, work.gradient.height - g.first);
    g.column = gradient + static_cast<int>(image) * work.gradient.image + vector * kColumns;
    g.limit(g.first, g.first + rows, work.gradient.height);
    g.place(vector * kColumns, work.gradient.width);
    x.first = g.first * K::kStride - work.padding_h;
    x.column = input + static_cast<int>(image) * work.input.image + vector * kMain;
    x.limit(x.first, x.first + (rows - 1) * K::kStride + K::kH, work.input.height);
    x.place(vector * kMain, work.input.width);
    weigh<K, kRows, kColumns, 1>(x, g, rows, sums, total);
  }

  float numbers[K::kTaps + 1];
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) numbers[k] = sums[k][0];
  numbers[K::kTaps] = total[0];
  const float sum = add_over_block(numbers);
  if (threadIdx.x <= K::kTaps)
    work.sums[(std::int64_t{channel} * (K::kTaps + 1) + threadIdx.x) * work.parts.value + part] = sum;
}

template <class T, class K>
bool weigh_planar_as(const Weighing& p, const Parts& to) {
  constexpr int kMain = 16 / sizeof(T), kColumns = kMain / K::kStride, kRows = K::kTaps > 25 ? 1 : 2;
  constexpr std::int64_t kStrip = 32, kLeast = 4, kLeastHalves = 8;
  const Conv2dGeometry& g = p.geometry;
  if (!PlanarRows<T, kMain, K::kW - K::kStride>::has_lead(g.padding.w)) return false;
  if (!is_planar(p.input) || !is_planar(p.gradient)) return false;
  const int input_piece = aligned_columns(p.input, kMain, true);
  const int gradient_piece = aligned_columns(p.gradient, kColumns, true);
  const bool whole = input_piece == kMain && gradient_piece == kColumns;
  const std::int64_t vectors = (g.out.w + kColumns - 1) / kColumns;
  if (input_piece == 1 || (gradient_piece == 1 && kColumns > 2)) return false;
  if (vectors < (whole ? kLeast : kLeastHalves)) return false;

  PlanarWeighing work{};
  work.input = planes_of(p.input, input_piece);
  work.gradient = planes_of(p.gradient, gradient_piece);
  work.rows = strip_rows(g.out.h, kStrip, vectors * g.batch * g.out_channels);
  const std::int64_t strips = (g.out.h + work.rows - 1) / work.rows;
  const std::int64_t items = g.batch * strips * vectors;
  const PartCut cut = cut_parts(items, g.out_channels, kWeighThreads, work.rows, kColumns);
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  if (cut.parts * cut.length > kMost || cut.parts * g.out_channels > kMost) return false;
  const detail::Workspace sums(p.input.device, part_bytes(g.out_channels, K::kTaps, cut.parts));
  work.vectors = detail::cuda::Divisor(static_cast<std::uint32_t>(vectors));
  work.strips = detail::cuda::Divisor(static_cast<std::uint32_t>(strips));
  work.parts = detail::cuda::Divisor(static_cast<std::uint32_t>(cut.parts));
  work.repeat = static_cast<int>(g.multiplier());
  work.items = static_cast<unsigned>(items);
  work.length = static_cast<unsigned>(cut.length);
  work.padding_h = static_cast<int>(g.padding.h);
  work.lead = static_cast<int>(g.padding.w);
  work.sums = sums.template as<float>();
  detail::cuda::launch("depthwise_conv2d_backward_weight", p.input.device,
                       static_cast<unsigned>(cut.parts * g.out_channels), kWeighThreads, 0,
                       weigh_planes<T, K, kRows>, work);
  finish_parts(work.sums, cut.parts, p.input.dtype, to);
  return true;
}

template <class T>
bool weigh_planar(const Weighing& p, const Parts& to) {
  const Conv2dGeometry& g = p.geometry;
  if (g.stride.h != g.stride.w || g.stride.h > 2 || g.dilation != Size2(1)) return false;
  const auto run = [&](auto kernel) { return weigh_planar_as<T, decltype(kernel)>(p, to); };
  return g.stride.h == 1 ? with_kernel<1>(g.kernel, run) : with_kernel<2>(g.kernel, run);
}

}  // namespace lamella::cuda::depthwise
