#pragma once

#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/channels_last.cuh"
#include "layers/depthwise_conv2d/cuda/parts.cuh"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

struct PixelWeighing {
  Pixels input, gradient;
  ChannelCut cut;
  detail::cuda::Divisor parts;
  unsigned length;  ///< items of a part
  int padding_h, padding_w, dilation_h, dilation_w;
  float* sums;
};

/// Taps that go through shared memory at once.
template <int kTaps>
inline constexpr int kTapsAtOnce = kTaps < 10 ? kTaps + 1 : 10;

/// Adds the workers' numbers in their order and writes the block's sums as part `part`.
template <int kTaps, int kLanes>
__device__ inline void write_part(const PixelWeighing& work, int first, unsigned part, float* shared,
                                  const float (&sums)[kTaps][kLanes], const float (&total)[kLanes]) {
  constexpr int kAtOnce = kTapsAtOnce<kTaps>;
  const int width = work.cut.abreast * kLanes, all = static_cast<int>(blockDim.x) * kLanes;
  const int channels = min(width, work.cut.vectors * kLanes - first);
#pragma unroll
  for (int begin = 0; begin <= kTaps; begin += kAtOnce) {
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int k = begin + j;
      if (k > kTaps) break;
#pragma unroll
      for (int l = 0; l < kLanes; ++l)
        shared[j * all + static_cast<int>(threadIdx.x) * kLanes + l] =
            k < kTaps ? sums[k < kTaps ? k : 0][l] : total[l];
    }
    __syncthreads();
    const int count = min(kAtOnce, kTaps + 1 - begin);
    for (int i = static_cast<int>(threadIdx.x); i < count * channels; i += static_cast<int>(blockDim.x)) {
      const int j = i / channels, c = i - j * channels;
      float sum = 0;
      for (int worker = 0; worker < work.cut.workers; ++worker) sum += shared[j * all + worker * width + c];
      work.sums[(static_cast<std::int64_t>(first + c) * (kTaps + 1) + begin + j) * work.parts.value + part] =
          sum;
    }
    __syncthreads();
  }
}

/// A block adds up one part of its channels.
template <class T, class K, int kLanes, int kColumns, int kRows>
__global__ void __launch_bounds__(kChannelThreads, ChannelTile<T, K>::kWeighBlocks)
    weigh_pixels(const PixelWeighing work) {
  extern __shared__ float4 dynamic_shared[];
  const unsigned part = work.cut.groups.divide(blockIdx.x);
  const int first = static_cast<int>(blockIdx.x - part * work.cut.groups.value) * work.cut.abreast * kLanes;
  const unsigned worker = threadIdx.x / static_cast<unsigned>(work.cut.abreast);
  const int channel =
      first + static_cast<int>(threadIdx.x - worker * static_cast<unsigned>(work.cut.abreast)) * kLanes;
  float sums[K::kTaps][kLanes] = {}, total[kLanes] = {};

  const bool idle = channel >= work.cut.vectors * kLanes;
  const unsigned end = idle ? 0 : min((part + 1) * work.length, work.cut.items);
#pragma unroll 1
  for (unsigned item = part * work.length + worker; item < end;
       item += static_cast<unsigned>(work.cut.workers)) {
    const ChannelItem at = channel_item(work.cut, item);
    PixelRows<T, kLanes, kColumns> g;
    g.pitch = work.gradient.pitch;
    g.pixel = work.gradient.pixel * work.dilation_w;
    g.first = at.residue_h + at.strip * work.cut.rows * work.dilation_h;
    g.step = work.dilation_h;
    const int left = (work.gradient.height - g.first + work.dilation_h - 1) / work.dilation_h;
    const int rows = min(work.cut.rows, left);
    if (rows <= 0) continue;
    const int column = at.residue_w + at.tile * kColumns * work.dilation_w;
    g.corner = static_cast<const T*>(work.gradient.data) + at.image * work.gradient.image +
               std::int64_t{column} * work.gradient.pixel + channel;
    g.limit(g.first, g.first + (rows - 1) * work.dilation_h + 1, work.gradient.height);
    g.place(column, work.dilation_w, work.gradient.width);

    PixelRows<T, kLanes, kGatherWindow<K, kColumns>> x;
    const int input_column = column * K::kStride - work.padding_w;
    x.corner = static_cast<const T*>(work.input.data) + at.image * work.input.image +
               std::int64_t{input_column} * work.input.pixel + channel;
    x.pitch = work.input.pitch;
    x.pixel = work.input.pixel * work.dilation_w;
    x.first = g.first * K::kStride - work.padding_h;
    x.step = work.dilation_h;
    x.limit(x.first, x.first + ((rows - 1) * K::kStride + K::kH - 1) * work.dilation_h + 1,
            work.input.height);
    x.place(input_column, work.dilation_w, work.input.width);
    weigh<K, kRows, kColumns, kLanes>(x, g, rows, sums, total);
  }
  write_part<K::kTaps, kLanes>(work, first, part, reinterpret_cast<float*>(dynamic_shared), sums, total);
}

template <class T, class K>
bool weigh_channels_last_as(const Weighing& p, const Parts& to) {
  using Tile = ChannelTile<T, K>;
  constexpr int kLanes = Tile::kLanes, kColumns = Tile::kWeighColumns, kRows = Tile::kRows;
  constexpr std::int64_t kStrip = 28, kMostApart = std::int64_t{1} << 24;
  const Conv2dGeometry& g = p.geometry;
  if (!has_channel_vectors(p.input, kLanes, g.dilation.w) ||
      !has_channel_vectors(p.gradient, kLanes, g.dilation.w) || g.dilation.h >= kMostApart)
    return false;
  PixelWeighing work{};
  if (!cut_channels(work.cut, g.out_channels, kLanes, g.batch, (g.out.h + g.dilation.h - 1) / g.dilation.h,
                    (g.out.w + g.dilation.w - 1) / g.dilation.w, kColumns, kStrip, g.dilation))
    return false;
  const std::int64_t groups = work.cut.groups.value;
  const PartCut cut = cut_parts(work.cut.items, groups, work.cut.workers, work.cut.rows, kColumns);
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  if (cut.parts * cut.length > kMost || cut.parts * groups > kMost) return false;
  const detail::Workspace sums(p.input.device, part_bytes(g.out_channels, K::kTaps, cut.parts));
  work.input = pixels_of(p.input);
  work.gradient = pixels_of(p.gradient);
  work.parts = detail::cuda::Divisor(static_cast<std::uint32_t>(cut.parts));
  work.length = static_cast<unsigned>(cut.length);
  work.padding_h = static_cast<int>(g.padding.h);
  work.padding_w = static_cast<int>(g.padding.w);
  work.dilation_h = static_cast<int>(g.dilation.h);
  work.dilation_w = static_cast<int>(g.dilation.w);
  work.sums = sums.template as<float>();
  const int threads = work.cut.abreast * work.cut.workers;
  detail::cuda::launch("depthwise_conv2d_backward_weight", p.input.device,
                       static_cast<unsigned>(cut.parts * groups), static_cast<unsigned>(threads),
                       static_cast<std::size_t>(threads * kLanes * kTapsAtOnce<K::kTaps>) * sizeof(float),
                       weigh_pixels<T, K, kLanes, kColumns, kRows>, work);
  finish_parts(work.sums, cut.parts, p.input.dtype, to);
  return true;
}

template <class T>
bool weigh_channels_last(const Weighing& p, const Parts& to) {
  const Conv2dGeometry& g = p.geometry;
  if (g.stride.h != g.stride.w || g.stride.h > 2 || g.multiplier() != 1) return false;
  if (g.stride.h == 2 && g.dilation != Size2(1)) return false;
  const auto run = [&](auto kernel) { return weigh_channels_last_as<T, decltype(kernel)>(p, to); };
  return g.stride.h == 1 ? with_kernel<1>(g.kernel, run) : with_kernel<2>(g.kernel, run);
}

}  // namespace lamella::cuda::depthwise
