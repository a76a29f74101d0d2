#pragma once

#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/staged.cuh"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

struct StagedWork {
  const void* source;
  void* target;
  TapView taps;
  StagedCut cut;
  Reach reach;
  detail::cuda::Divisor channels;
  unsigned planes;
  int source_h, source_w, target_h, target_w;
  int padding_w, dilation_h, dilation_w;
  bool accumulate;
};

template <class T, class K>
__device__ inline void staged_tile(const StagedWork& work, const StagedItem& at, unsigned channel,
                                   const T* source_rows, T* target_rows, const T* before, int begin,
                                   int end) {
  constexpr int kColumns = 7;
  float taps[K::kTaps][1];
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) taps[k][0] = load_tap<T, K>(work.taps, channel, k);
  const float bias[1] = {load_bias<T>(work.taps, channel)};
  const int column = at.residue_w + at.tile * kColumns * work.dilation_w;
  SharedTarget<T, kColumns> target;
  target.width = work.target_w;
  target.first = begin + at.residue_h + at.strip * work.cut.strip_rows * work.dilation_h;
  // No dilation beside a stride, as the compiler may know.
  target.step = K::kStride == 1 ? work.dilation_h : 1;
  target.column_step = K::kStride == 1 ? work.dilation_w : 1;
  target.begin = begin;
  target.end = end;
  target.place(column);
  target.corner = target_rows + column;
  target.before = before == nullptr ? nullptr : before + column;
  const int rows = min(work.cut.strip_rows, (end - target.first + work.dilation_h - 1) / work.dilation_h);
  if (rows <= 0) return;

  SharedRows<T, kGatherWindow<K, kColumns>> source;
  const int source_column = column * K::kStride - work.padding_w;
  source.width = work.source_w;
  source.corner = source_rows + source_column;
  source.first = target.first * K::kStride - work.reach.padding;
  source.step = target.step;
  source.column_step = target.column_step;
  source.limit(source.first, source.first + ((rows - 1) * K::kStride + K::kH - 1) * source.step + 1,
               work.source_h);
  source.place(source_column);
  gather<K, 1, kColumns, 1>(source, target, rows, taps, bias);
}

template <class T, class K>
__device__ inline void staged_scatter_tile(const StagedWork& work, const StagedItem& at, unsigned channel,
                                           const T* source_rows, T* target_rows, const T* before, int begin,
                                           int end) {
  constexpr int kColumns = 4, kWidth = kColumns * K::kStride;
  using Window = ScatterWindow<K, kWidth, 0>;
  float taps[K::kTaps][1];
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) taps[k][0] = load_tap<T, K>(work.taps, channel, k);
  SharedRows<T, Window::kSize> source;
  const int column = work.padding_w / K::kStride + at.tile * kColumns;
  const int row_end = (end + work.reach.padding + K::kStride - 1) / K::kStride;
  source.width = work.source_w;
  source.corner = source_rows + column + Window::kLow;
  source.first = (begin + work.reach.padding) / K::kStride + at.strip * work.cut.strip_rows;
  source.step = source.column_step = 1;
  const int rows = min(work.cut.strip_rows, row_end - source.first);
  if (rows <= 0) return;
  source.limit(source.first - Scattering<K, 1>::kLead, source.first + rows, work.source_h);
  source.place(column + Window::kLow);

  SharedTarget<T, kWidth> target;
  const int target_column = column * K::kStride - work.padding_w;
  target.width = work.target_w;
  target.first = source.first * K::kStride - work.reach.padding;
  target.step = target.column_step = 1;
  target.begin = begin;
  target.end = end;
  target.place(target_column);
  target.corner = target_rows + target_column;
  target.before = before == nullptr ? nullptr : before + target_column;
  scatter<K, 1, kWidth, 1, 0>(source, target, rows, taps);
}

template <class T, class K, bool kScatters>
__global__ void __launch_bounds__(kStagedThreads, kStagedBlocks<K>)
    correlate_staged_planes(const StagedWork work) {
  extern __shared__ uint4 staged_shared[];
  T* const staged = reinterpret_cast<T*>(staged_shared);
  T* const results = reinterpret_cast<T*>(staged_shared + work.cut.source_bytes / 16);
  const unsigned group = work.cut.bands.divide(blockIdx.x);
  const int band = static_cast<int>(blockIdx.x - group * work.cut.bands.value);
  const unsigned first_plane = group * static_cast<unsigned>(work.cut.planes);
  const int planes = static_cast<int>(min(static_cast<unsigned>(work.cut.planes), work.planes - first_plane));
  const int begin = band * work.cut.band_rows, end = min(begin + work.cut.band_rows, work.target_h);
  const bool whole = work.cut.bands.value == 1;
  const int source_begin = whole ? 0 : work.reach.begin(begin, work.source_h);
  const int source_end = whole ? work.source_h : max(work.reach.end(end, work.source_h), source_begin);
  const int source_plane = work.source_h * work.source_w, target_plane = work.target_h * work.target_w;

  const T* const source = static_cast<const T*>(work.source) + std::int64_t{first_plane} * source_plane +
                          source_begin * work.source_w;
  T* const target =
      static_cast<T*>(work.target) + std::int64_t{first_plane} * target_plane + begin * work.target_w;
  stage_in(source, (planes - 1) * source_plane + (source_end - source_begin) * work.source_w, staged);
  wait_for_copies();
  __syncthreads();

  for (int item = static_cast<int>(threadIdx.x); item < planes * work.cut.threads_a_plane;
       item += kStagedThreads) {
    const StagedItem at = staged_item(work.cut, static_cast<unsigned>(item));
    const unsigned plane = first_plane + static_cast<unsigned>(at.plane);
    const unsigned channel = plane - work.channels.divide(plane) * work.channels.value;
    // Row 0 of the plane, wherever that would be.
    const T* source_rows = staged + skew_of(source) + at.plane * source_plane - source_begin * work.source_w;
    T* target_rows = results + skew_of(target) + at.plane * target_plane - begin * work.target_w;
    const T* before =
        !work.accumulate ? nullptr : static_cast<const T*>(work.target) + std::int64_t{plane} * target_plane;
    if constexpr (kScatters)
      staged_scatter_tile<T, K>(work, at, channel, source_rows, target_rows, before, begin, end);
    else
      staged_tile<T, K>(work, at, channel, source_rows, target_rows, before, begin, end);
  }
  __syncthreads();
  stage_out(results, (planes - 1) * target_plane + (end - begin) * work.target_w, target);
}

template <class T, class K, bool kScatters>
bool correlate_staged_as(const Correlation& p) {
  constexpr std::int64_t kWantedBlocks = 1056, kMost = (std::int64_t{1} << 31) - 1;
  constexpr std::int64_t kMostPadding = std::int64_t{1} << 22;
  if (!is_dense(p.source) || !is_dense(p.target)) return false;
  if (std::abs(p.padding.h) > kMostPadding || std::abs(p.padding.w) > kMostPadding) return false;
  StagedTiles tiles{};
  tiles.source_h = static_cast<int>(p.source.shape[2]);
  tiles.source_w = static_cast<int>(p.source.shape[3]);
  tiles.target_h = static_cast<int>(p.target.shape[2]);
  tiles.target_w = static_cast<int>(p.target.shape[3]);
  tiles.element = sizeof(T);
  // A kernel that fits into the padded source has no taps farther apart than that.
  tiles.residues_h = static_cast<int>(p.dilation.h);
  tiles.residues_w = static_cast<int>(p.dilation.w);
  tiles.unit = kScatters ? K::kStride : 1;
  tiles.tile = kScatters ? 4 : 7;
  const int padding_w = static_cast<int>(p.padding.w);
  tiles.columns = static_cast<int>(kScatters ? (tiles.target_w + padding_w + 1) / 2 - padding_w / 2
                                             : ceiling(tiles.target_w, p.dilation.w));
  StagedWork work{};
  work.reach = {static_cast<int>(p.stride.h), static_cast<int>(p.padding.h),
                static_cast<int>(p.dilation.h) * (K::kH - 1) + 1, kScatters, Scattering<K, 1>::kLead};
  const std::int64_t planes = p.target.shape[0] * p.target.shape[1];
  if (!cut_planes(work.cut, tiles, work.reach, std::max<std::int64_t>(1, planes / kWantedBlocks), false))
    return false;
  const std::int64_t blocks = ceiling(planes, work.cut.planes) * work.cut.bands.value;
  if (planes > kMost - work.cut.planes || blocks > kMost) return false;
  work.source = p.source.data;
  work.target = p.target.data;
  work.taps = p.taps;
  work.channels = detail::cuda::Divisor(static_cast<std::uint32_t>(p.target.shape[1]));
  work.planes = static_cast<unsigned>(planes);
  work.source_h = tiles.source_h;
  work.source_w = tiles.source_w;
  work.target_h = tiles.target_h;
  work.target_w = tiles.target_w;
  work.padding_w = padding_w;
  work.dilation_h = tiles.residues_h;
  work.dilation_w = tiles.residues_w;
  work.accumulate = p.accumulate;
  detail::cuda::launch("depthwise_conv2d", p.target.device, static_cast<unsigned>(blocks), kStagedThreads,
                       static_cast<std::size_t>(work.cut.source_bytes + work.cut.target_bytes),
                       correlate_staged_planes<T, K, kScatters>, work);
  return true;
}

template <class T>
bool correlate_staged(const Correlation& p) {
  constexpr std::int64_t kMostDilation = 64;
  if (p.stride.h != p.stride.w || p.stride.h > 2 || p.repeat != 1 || p.reduce != 1) return false;
  if (p.dilation.h > kMostDilation || p.dilation.w > kMostDilation) return false;
  if (p.stride.h == 2 && p.dilation != Size2(1)) return false;
  if (p.scatters) {
    if (p.stride.h != 2) return false;
    return with_kernel<2>(p.kernel,
                          [&](auto kernel) { return correlate_staged_as<T, decltype(kernel), true>(p); });
  }
  const auto run = [&](auto kernel) { return correlate_staged_as<T, decltype(kernel), false>(p); };
  return p.stride.h == 1 ? with_kernel<1>(p.kernel, run) : with_kernel<2>(p.kernel, run);
}

}  // namespace lamella::cuda::depthwise
