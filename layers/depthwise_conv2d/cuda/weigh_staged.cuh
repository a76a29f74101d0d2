#pragma once

#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/parts.cuh"
#include "layers/depthwise_conv2d/cuda/staged.cuh"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

struct StagedWeighing {
  const void* input;
  const void* gradient;
  StagedCut cut;
  Reach reach;
  detail::cuda::Divisor parts;
  int channels;
  unsigned chunks;  ///< images x bands
  unsigned length;  ///< chunks of a part
  int input_h, input_w, gradient_h, gradient_w;
  int padding_w, dilation_h, dilation_w;
  float* sums;
};

/// A block adds up one part of a group of channels; each thread has the same tile in every image or band.
template <class T, class K>
__global__ void __launch_bounds__(kStagedThreads, kStagedWeighBlocks<K>)
    weigh_staged_planes(const StagedWeighing work) {
  constexpr int kColumns = 7;
  extern __shared__ uint4 staged_shared[];
  T* const staged_x = reinterpret_cast<T*>(staged_shared);
  T* const staged_g = reinterpret_cast<T*>(staged_shared + work.cut.source_bytes / 16);
  const unsigned group = work.parts.divide(blockIdx.x), part = blockIdx.x - group * work.parts.value;
  const int first_channel = static_cast<int>(group) * work.cut.planes;
  const int planes = min(work.cut.planes, work.channels - first_channel);
  const int input_plane = work.input_h * work.input_w, gradient_plane = work.gradient_h * work.gradient_w;
  const bool whole = work.cut.bands.value == 1;
  const StagedItem at = staged_item(work.cut, threadIdx.x);

  float sums[K::kTaps][1] = {}, total[1] = {};
  const unsigned last = min((part + 1) * work.length, work.chunks);
#pragma unroll 1
  for (unsigned chunk = part * work.length; chunk < last; ++chunk) {
    const unsigned image = work.cut.bands.divide(chunk);
    const int begin = static_cast<int>(chunk - image * work.cut.bands.value) * work.cut.band_rows;
    const int end = min(begin + work.cut.band_rows, work.gradient_h);
    const int input_begin = whole ? 0 : work.reach.begin(begin, work.input_h);
    const int input_end = whole ? work.input_h : max(work.reach.end(end, work.input_h), input_begin);
    const std::int64_t plane = std::int64_t{image} * work.channels + first_channel;
    const T* const input =
        static_cast<const T*>(work.input) + plane * input_plane + input_begin * work.input_w;
    const T* const gradient =
        static_cast<const T*>(work.gradient) + plane * gradient_plane + begin * work.gradient_w;
    __syncthreads();
    stage_in(input, (planes - 1) * input_plane + (input_end - input_begin) * work.input_w, staged_x);
    stage_in(gradient, (planes - 1) * gradient_plane + (end - begin) * work.gradient_w, staged_g);
    wait_for_copies();
    __syncthreads();
    if (at.plane >= planes) continue;

    SharedRows<T, kColumns> g;
    const int column = at.residue_w + at.tile * kColumns * work.dilation_w;
    g.width = work.gradient_w;
    g.corner = staged_g + skew_of(gradient) + at.plane * gradient_plane - begin * work.gradient_w + column;
    g.first = begin + at.residue_h + at.strip * work.cut.strip_rows * work.dilation_h;
    // No dilation beside a stride, as the compiler may know.
    g.step = K::kStride == 1 ? work.dilation_h : 1;
    g.column_step = K::kStride == 1 ? work.dilation_w : 1;
    const int rows = min(work.cut.strip_rows, (end - g.first + work.dilation_h - 1) / work.dilation_h);
    if (rows <= 0) continue;
    g.limit(g.first, g.first + (rows - 1) * g.step + 1, work.gradient_h);
    g.place(column);

    SharedRows<T, kGatherWindow<K, kColumns>> x;
    const int input_column = column * K::kStride - work.padding_w;
    x.width = work.input_w;
    x.corner = staged_x + skew_of(input) + at.plane * input_plane - input_begin * work.input_w + input_column;
    x.first = g.first * K::kStride - work.reach.padding;
    x.step = g.step;
    x.column_step = g.column_step;
    x.limit(x.first, x.first + ((rows - 1) * K::kStride + K::kH - 1) * g.step + 1, work.input_h);
    x.place(input_column);
    weigh<K, 1, kColumns, 1>(x, g, rows, sums, total);
  }

  // The threads of a channel are neighbours.
  float* const shared = reinterpret_cast<float*>(staged_shared);
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) shared[k * kStagedThreads + static_cast<int>(threadIdx.x)] = sums[k][0];
  shared[K::kTaps * kStagedThreads + static_cast<int>(threadIdx.x)] = total[0];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < planes * (K::kTaps + 1); i += kStagedThreads) {
    const int c = i / (K::kTaps + 1), k = i - c * (K::kTaps + 1);
    const float* from = shared + k * kStagedThreads + c * work.cut.threads_a_plane;
    float sum = 0;
    for (int thread = 0; thread < work.cut.threads_a_plane; ++thread) sum += from[thread];
    work.sums[((static_cast<std::int64_t>(first_channel) + c) * (K::kTaps + 1) + k) * work.parts.value +
              part] = sum;
  }
}

template <class T, class K>
bool weigh_staged_as(const Weighing& p, const Parts& to) {
  constexpr int kColumns = 7;
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1, kMostPadding = std::int64_t{1} << 22;
  const Conv2dGeometry& g = p.geometry;
  if (!is_dense(p.input) || !is_dense(p.gradient)) return false;
  if (g.padding.h > kMostPadding || g.padding.w > kMostPadding) return false;
  StagedTiles tiles{};
  tiles.source_h = static_cast<int>(g.in.h);
  tiles.source_w = static_cast<int>(g.in.w);
  tiles.target_h = static_cast<int>(g.out.h);
  tiles.target_w = static_cast<int>(g.out.w);
  tiles.element = sizeof(T);
  tiles.residues_h = static_cast<int>(g.dilation.h);
  tiles.residues_w = static_cast<int>(g.dilation.w);
  tiles.unit = 1;
  tiles.tile = kColumns;
  tiles.columns = static_cast<int>(ceiling(g.out.w, g.dilation.w));
  StagedWeighing work{};
  work.reach = {static_cast<int>(g.stride.h), static_cast<int>(g.padding.h),
                static_cast<int>(g.dilation.h) * (K::kH - 1) + 1, false, 0};
  if (!cut_planes(work.cut, tiles, work.reach, g.out_channels, true)) return false;
  const std::int64_t groups = ceiling(g.out_channels, work.cut.planes);
  const std::int64_t chunks = g.batch * work.cut.bands.value;
  const PartCut cut = cut_parts(chunks, groups, 1, work.cut.strip_rows, kColumns);
  if (g.out_channels > kMost - work.cut.planes || cut.parts * cut.length > kMost ||
      cut.parts * groups > kMost)
    return false;
  const detail::Workspace sums(p.input.device, part_bytes(g.out_channels, K::kTaps, cut.parts));
  work.input = p.input.data;
  work.gradient = p.gradient.data;
  work.parts = detail::cuda::Divisor(static_cast<std::uint32_t>(cut.parts));
  work.channels = static_cast<int>(g.out_channels);
  work.chunks = static_cast<unsigned>(chunks);
  work.length = static_cast<unsigned>(cut.length);
  work.input_h = tiles.source_h;
  work.input_w = tiles.source_w;
  work.gradient_h = tiles.target_h;
  work.gradient_w = tiles.target_w;
  work.padding_w = static_cast<int>(g.padding.w);
  work.dilation_h = tiles.residues_h;
  work.dilation_w = tiles.residues_w;
  work.sums = sums.template as<float>();
  // The sums of all threads take the place of the planes.
  const int shared = std::max<int>(work.cut.source_bytes + work.cut.target_bytes,
                                   (K::kTaps + 1) * kStagedThreads * static_cast<int>(sizeof(float)));
  detail::cuda::launch("depthwise_conv2d_backward_weight", p.input.device,
                       static_cast<unsigned>(cut.parts * groups), kStagedThreads,
                       static_cast<std::size_t>(shared), weigh_staged_planes<T, K>, work);
  finish_parts(work.sums, cut.parts, p.input.dtype, to);
  return true;
}

template <class T>
bool weigh_staged(const Weighing& p, const Parts& to) {
  constexpr std::int64_t kMostDilation = 64;
  const Conv2dGeometry& g = p.geometry;
  if (g.stride.h != g.stride.w || g.stride.h > 2 || g.multiplier() != 1) return false;
  if (g.dilation.h > kMostDilation || g.dilation.w > kMostDilation) return false;
  if (g.stride.h == 2 && g.dilation != Size2(1)) return false;
  const auto run = [&](auto kernel) { return weigh_staged_as<T, decltype(kernel)>(p, to); };
  return g.stride.h == 1 ? with_kernel<1>(g.kernel, run) : with_kernel<2>(g.kernel, run);
}

}  // namespace lamella::cuda::depthwise
