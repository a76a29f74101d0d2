#pragma once

#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/channels_last.cuh"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

struct PixelWork {
  Pixels source, target;
  TapView taps;
  ChannelCut cut;
  int rounds;  ///< items of a worker
  int padding_h, padding_w, dilation_h, dilation_w;
  int row_begin, row_end, column_begin;  ///< source rows and columns, where the source scatters
  bool accumulate;
};

/// The taps of a block's channels go through shared memory, because neighbours there are far apart in a
/// lane's order. Returns the thread's first channel, or -1 for a thread without.
template <class T, class K, int kLanes>
__device__ inline int load_channel_taps(const PixelWork& work, int group, float* shared,
                                        float (&taps)[K::kTaps][kLanes], float (&bias)[kLanes]) {
  const int width = work.cut.abreast * kLanes, first = group * width;
  const int channels = min(width, work.cut.vectors * kLanes - first);
  for (int i = static_cast<int>(threadIdx.x); i < channels * K::kTaps; i += static_cast<int>(blockDim.x)) {
    const int c = i / K::kTaps, k = i - c * K::kTaps;
    shared[k * width + c] = load_tap<T, K>(work.taps, first + c, k);
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % work.cut.abreast * kLanes;
  if (lane >= channels) return -1;
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k)
#pragma unroll
    for (int l = 0; l < kLanes; ++l) taps[k][l] = shared[k * width + lane + l];
#pragma unroll
  for (int l = 0; l < kLanes; ++l) bias[l] = load_bias<T>(work.taps, first + lane + l);
  return first + lane;
}

/// Calls body(where) for each of the worker's items.
template <class Body>
__device__ inline void each_item(const PixelWork& work, unsigned block, const Body& body) {
  const unsigned worker = threadIdx.x / static_cast<unsigned>(work.cut.abreast);
#pragma unroll 1
  for (int round = 0; round < work.rounds; ++round) {
    const unsigned item = (block * static_cast<unsigned>(work.rounds) + static_cast<unsigned>(round)) *
                              static_cast<unsigned>(work.cut.workers) +
                          worker;
    if (item >= work.cut.items) return;
    body(channel_item(work.cut, item));
  }
}

template <class T, class K, int kLanes, int kColumns, int kRows>
__global__ void __launch_bounds__(kChannelThreads, ChannelTile<T, K>::kBlocks)
    gather_pixels(const PixelWork work) {
  extern __shared__ float4 dynamic_shared[];
  const unsigned block = work.cut.groups.divide(blockIdx.x);
  float taps[K::kTaps][kLanes], bias[kLanes];
  const int channel =
      load_channel_taps<T, K, kLanes>(work, static_cast<int>(blockIdx.x - block * work.cut.groups.value),
                                      reinterpret_cast<float*>(dynamic_shared), taps, bias);
  if (channel < 0) return;
  each_item(work, block, [&](const ChannelItem& at) {
    PixelTarget<T, kLanes, kColumns> target;
    target.pitch = work.target.pitch;
    target.pixel = work.target.pixel * work.dilation_w;
    target.first = at.residue_h + at.strip * work.cut.rows * work.dilation_h;
    target.step = work.dilation_h;
    target.height = work.target.height;
    target.accumulate = work.accumulate;
    const int column = at.residue_w + at.tile * kColumns * work.dilation_w;
    target.corner = static_cast<T*>(work.target.data) + at.image * work.target.image +
                    std::int64_t{column} * work.target.pixel + channel;
    target.place(column, work.dilation_w, work.target.width);
    // Rows of this residue that are left.
    const int left = (work.target.height - target.first + work.dilation_h - 1) / work.dilation_h;
    const int rows = min(work.cut.rows, left);
    if (rows <= 0) return;

    PixelRows<T, kLanes, kGatherWindow<K, kColumns>> source;
    const int source_column = column * K::kStride - work.padding_w;
    source.corner = static_cast<const T*>(work.source.data) + at.image * work.source.image +
                    std::int64_t{source_column} * work.source.pixel + channel;
    source.pitch = work.source.pitch;
    source.pixel = work.source.pixel * work.dilation_w;
    source.first = target.first * K::kStride - work.padding_h;
    source.step = work.dilation_h;
    source.limit(source.first, source.first + ((rows - 1) * K::kStride + K::kH - 1) * work.dilation_h + 1,
                 work.source.height);
    source.place(source_column, work.dilation_w, work.source.width);
    gather<K, kRows, kColumns, kLanes>(source, target, rows, taps, bias);
  });
}

template <class T, class K, int kLanes, int kColumns, int kRows>
__global__ void __launch_bounds__(kChannelThreads, ChannelTile<T, K>::kBlocks)
    scatter_pixels(const PixelWork work) {
  constexpr int kWidth = kColumns * K::kStride;
  using Window = ScatterWindow<K, kWidth, 0>;
  extern __shared__ float4 dynamic_shared[];
  const unsigned block = work.cut.groups.divide(blockIdx.x);
  float taps[K::kTaps][kLanes], bias[kLanes];
  const int channel =
      load_channel_taps<T, K, kLanes>(work, static_cast<int>(blockIdx.x - block * work.cut.groups.value),
                                      reinterpret_cast<float*>(dynamic_shared), taps, bias);
  if (channel < 0) return;
  each_item(work, block, [&](const ChannelItem& at) {
    PixelRows<T, kLanes, Window::kSize> source;
    const int column = work.column_begin + at.tile * kColumns;
    source.corner = static_cast<const T*>(work.source.data) + at.image * work.source.image +
                    std::int64_t{column + Window::kLow} * work.source.pixel + channel;
    source.pitch = work.source.pitch;
    source.pixel = work.source.pixel;
    source.first = work.row_begin + at.strip * work.cut.rows;
    source.step = 1;
    const int rows = min(work.cut.rows, work.row_end - source.first);
    source.limit(source.first - Scattering<K, kRows>::kLead, source.first + rows, work.source.height);
    source.place(column + Window::kLow, 1, work.source.width);

    PixelTarget<T, kLanes, kWidth> target;
    const int target_column = column * K::kStride - work.padding_w;
    target.corner = static_cast<T*>(work.target.data) + at.image * work.target.image +
                    std::int64_t{target_column} * work.target.pixel + channel;
    target.pitch = work.target.pitch;
    target.pixel = work.target.pixel;
    target.first = source.first * K::kStride - work.padding_h;
    target.step = 1;
    target.height = work.target.height;
    target.accumulate = work.accumulate;
    target.place(target_column, 1, work.target.width);
    scatter<K, kRows, kWidth, kLanes, 0>(source, target, rows, taps);
  });
}

/// Launches a kernel whose cut is made. Workers go on to further items while there are blocks enough, so that
/// the taps are loaded less often.
template <class K, int kLanes>
void launch_pixels(const Correlation& p, PixelWork& work, void (*kernel)(PixelWork)) {
  constexpr std::int64_t kRowsOfWorker = 32, kBlocks = 4096;
  work.source = pixels_of(p.source);
  work.target = pixels_of(p.target);
  work.taps = p.taps;
  work.padding_h = static_cast<int>(p.padding.h);
  work.padding_w = static_cast<int>(p.padding.w);
  work.dilation_h = static_cast<int>(p.dilation.h);
  work.dilation_w = static_cast<int>(p.dilation.w);
  work.accumulate = p.accumulate;
  const ChannelCut& cut = work.cut;
  const std::int64_t groups = cut.groups.value;
  const std::int64_t sets = (std::int64_t{cut.items} + cut.workers - 1) / cut.workers;
  const std::int64_t most = std::max<std::int64_t>(1, kRowsOfWorker / cut.rows);
  work.rounds = static_cast<int>(std::clamp<std::int64_t>(sets * groups / kBlocks, 1, most));
  const std::int64_t blocks = (sets + work.rounds - 1) / work.rounds * groups;
  detail::cuda::launch("depthwise_conv2d", p.target.device, static_cast<unsigned>(blocks),
                       static_cast<unsigned>(cut.abreast * cut.workers),
                       static_cast<std::size_t>(cut.abreast * kLanes * K::kTaps) * sizeof(float), kernel,
                       work);
}

template <class T>
bool correlate_channels_last(const Correlation& p) {
  constexpr std::int64_t kStrip = 28, kMostApart = std::int64_t{1} << 24;
  if (p.stride.h != p.stride.w || p.stride.h > 2 || p.repeat != 1 || p.reduce != 1) return false;
  if (p.stride.h == 2 && p.dilation != Size2(1)) return false;
  const std::int64_t images = p.target.shape[0], channels = p.target.shape[1];
  const auto fits = [&](int lanes) {
    return has_channel_vectors(p.source, lanes, p.dilation.w) &&
           has_channel_vectors(p.target, lanes, p.dilation.w) && p.dilation.h < kMostApart;
  };
  const auto run_gather = [&](auto kernel) {
    using K = decltype(kernel);
    using Tile = ChannelTile<T, K>;
    constexpr int kLanes = Tile::kLanes, kColumns = Tile::kGatherColumns;
    PixelWork work{};
    const std::int64_t rows = (p.target.shape[2] + p.dilation.h - 1) / p.dilation.h,
                       columns = (p.target.shape[3] + p.dilation.w - 1) / p.dilation.w;
    if (!fits(kLanes) ||
        !cut_channels(work.cut, channels, kLanes, images, rows, columns, kColumns, kStrip, p.dilation))
      return false;
    launch_pixels<K, kLanes>(p, work, gather_pixels<T, K, kLanes, kColumns, Tile::kRows>);
    return true;
  };
  if (!p.scatters)
    return p.stride.h == 1 ? with_kernel<1>(p.kernel, run_gather) : with_kernel<2>(p.kernel, run_gather);
  if (p.stride.h != 2) return false;
  return with_kernel<2>(p.kernel, [&](auto kernel) {
    using K = decltype(kernel);
    using Tile = ChannelTile<T, K>;
    constexpr int kLanes = Tile::kLanes, kColumns = Tile::kScatterColumns;
    PixelWork work{};
    // Source rows and columns that begin targets, in pairs of those.
    work.row_begin = static_cast<int>(p.padding.h / 2);
    work.row_end = static_cast<int>((p.target.shape[2] + p.padding.h + 1) / 2);
    work.column_begin = static_cast<int>(p.padding.w / 2);
    const auto column_end = static_cast<int>((p.target.shape[3] + p.padding.w + 1) / 2);
    if (!fits(kLanes) || !cut_channels(work.cut, channels, kLanes, images, work.row_end - work.row_begin,
                                       column_end - work.column_begin, kColumns, kStrip, p.dilation))
      return false;
    launch_pixels<K, kLanes>(p, work, scatter_pixels<T, K, kLanes, kColumns, Tile::kRows>);
    return true;
  });
}

}  // namespace lamella::cuda::depthwise
