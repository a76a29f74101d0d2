#pragma once

#include "core/cuda/launch.cuh"
#include "layers/depthwise_conv2d/cuda/planar.cuh"
#include "layers/depthwise_conv2d/cuda/taps.cuh"
#include "layers/depthwise_conv2d/cuda/walk.cuh"

namespace lamella::cuda::depthwise {

inline constexpr int kPlanarThreads = 128;

struct PlanarWork {
  Planes source, target;
  TapView taps;
  detail::cuda::Divisor vectors, strips, channels, repeat;
  unsigned threads;
  int rows;         ///< of a strip; source rows where the source scatters
  int strip_begin;  ///< the first strip's first source row, where the source scatters
  int strip_end;    ///< behind the last strip
  int padding_h, lead;
  bool accumulate;
};

struct PlanarPlace {
  int vector, strip, image, channel;
};
__device__ inline PlanarPlace planar_place(const PlanarWork& work, unsigned thread) {
  const unsigned row = work.vectors.divide(thread), plane = work.strips.divide(row),
                 image = work.channels.divide(plane);
  return {static_cast<int>(thread - row * work.vectors.value),
          static_cast<int>(row - plane * work.strips.value), static_cast<int>(image),
          static_cast<int>(plane - image * work.channels.value)};
}

template <class T>
__device__ inline const T* source_plane(const PlanarWork& work, const PlanarPlace& at) {
  return static_cast<const T*>(work.source.data) + at.image * work.source.image +
         static_cast<int>(work.repeat.divide(static_cast<unsigned>(at.channel))) * work.source.channel;
}
template <class T, int kWidth>
__device__ inline PlanarTarget<T, kWidth> target_tile(const PlanarWork& work, const PlanarPlace& at) {
  PlanarTarget<T, kWidth> target;
  target.column = static_cast<T*>(work.target.data) + at.image * work.target.image +
                  at.channel * work.target.channel + at.vector * kWidth;
  target.pitch = work.target.pitch;
  target.height = work.target.height;
  target.count = work.target.width - at.vector * kWidth;
  target.piece = work.target.piece;
  target.accumulate = work.accumulate;
  return target;
}
template <class T, class K>
__device__ inline void load_taps(const TapView& view, int channel, float (&taps)[K::kTaps][1]) {
#pragma unroll
  for (int k = 0; k < K::kTaps; ++k) taps[k][0] = load_tap<T, K>(view, channel, k);
}

template <class T, class K, int kRows>
__global__ void __launch_bounds__(kPlanarThreads) gather_planar(const PlanarWork work) {
  constexpr int kMain = 16 / sizeof(T), kColumns = kMain / K::kStride;
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= work.threads) return;
  const PlanarPlace at = planar_place(work, thread);
  float taps[K::kTaps][1];
  load_taps<T, K>(work.taps, at.channel, taps);
  const float bias[1] = {load_bias<T>(work.taps, at.channel)};

  PlanarTarget<T, kColumns> target = target_tile<T, kColumns>(work, at);
  target.first = at.strip * work.rows;
  const int rows = min(work.rows, work.target.height - target.first);
  PlanarRows<T, kMain, K::kW - K::kStride> source;
  source.column = source_plane<T>(work, at) + at.vector * kMain;
  source.pitch = work.source.pitch;
  source.first = target.first * K::kStride - work.padding_h;
  source.limit(source.first, source.first + (rows - 1) * K::kStride + K::kH, work.source.height);
  source.lead = work.lead;
  source.halves = work.source.piece != kMain;
  source.place(at.vector * kMain, work.source.width);
  gather<K, kRows, kColumns, 1>(source, target, rows, taps, bias);
}

template <class T, class K, int kPhase, int kRows>
__global__ void __launch_bounds__(kPlanarThreads) scatter_planar(const PlanarWork work) {
  constexpr int kWidth = 16 / sizeof(T), kMain = kWidth / K::kStride;
  constexpr int kHalo = ScatterWindow<K, kWidth, kPhase>::kSize - kMain;
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= work.threads) return;
  const PlanarPlace at = planar_place(work, thread);
  float taps[K::kTaps][1];
  load_taps<T, K>(work.taps, at.channel, taps);

  PlanarRows<T, kMain, kHalo> source;
  source.column = source_plane<T>(work, at) + at.vector * kMain;
  source.pitch = work.source.pitch;
  source.first = work.strip_begin + at.strip * work.rows;
  const int rows = min(work.rows, work.strip_end - source.first);
  source.limit(source.first - Scattering<K, kRows>::kLead, source.first + rows, work.source.height);
  source.lead = work.lead;
  source.halves = work.source.piece != kMain;
  source.place(at.vector * kMain, work.source.width);
  PlanarTarget<T, kWidth> target = target_tile<T, kWidth>(work, at);
  target.first = source.first * K::kStride - work.padding_h;
  scatter<K, kRows, kWidth, 1, kPhase>(source, target, rows, taps);
}

/// Rows that a thread works through at least, where the plane has them.
inline constexpr int kPlanarStrip = 32;
/// The narrowest rows, and the narrowest that are loaded as halves: below, few of a warp's lanes share lines.
inline constexpr int kLeastVectors = 4, kLeastHalfVectors = 8;

template <class T>
bool begin_planar(const Correlation& p, int source_columns, int target_columns, PlanarWork& work) {
  if (p.dilation != Size2(1) || !is_planar(p.source) || !is_planar(p.target)) return false;
  const int source_piece = aligned_columns(p.source, source_columns, true);
  const int target_piece = aligned_columns(p.target, target_columns, false);
  const std::int64_t vectors = (p.target.shape[3] + target_columns - 1) / target_columns;
  const bool whole = source_piece == source_columns && target_piece == target_columns;
  if (source_piece == 1 && source_columns > 2) return false;
  if (target_piece == 1 && target_columns > 2) return false;
  if (vectors < (whole ? kLeastVectors : kLeastHalfVectors)) return false;
  work.source = planes_of(p.source, source_piece);
  work.target = planes_of(p.target, target_piece);
  work.taps = p.taps;
  work.vectors = detail::cuda::Divisor(static_cast<std::uint32_t>(vectors));
  work.channels = detail::cuda::Divisor(static_cast<std::uint32_t>(p.target.shape[1]));
  work.repeat = detail::cuda::Divisor(static_cast<std::uint32_t>(p.repeat));
  work.padding_h = static_cast<int>(p.padding.h);
  work.accumulate = p.accumulate;
  return true;
}

/// Strips of `rows` rows; false where there are too many threads to count.
inline bool cut_strips(PlanarWork& work, const Correlation& p, std::int64_t rows) {
  const std::int64_t a_row = std::int64_t{work.vectors.value} * p.target.shape[0] * p.target.shape[1];
  work.rows = strip_rows(rows, kPlanarStrip, a_row);
  const std::int64_t strips = (rows + work.rows - 1) / work.rows;
  work.strips = detail::cuda::Divisor(static_cast<std::uint32_t>(strips));
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - kPlanarThreads;
  if (a_row * strips > kMost) return false;
  work.threads = static_cast<unsigned>(a_row * strips);
  return true;
}

template <class T>
bool gather_planar_rows(const Correlation& p) {
  constexpr int kMain = 16 / sizeof(T);
  const auto run = [&](auto kernel) {
    using K = decltype(kernel);
    PlanarWork work{};
    if (!PlanarRows<T, kMain, K::kW - K::kStride>::has_lead(p.padding.w)) return false;
    work.lead = static_cast<int>(p.padding.w);
    if (!begin_planar<T>(p, kMain, kMain / K::kStride, work)) return false;
    if (!cut_strips(work, p, p.target.shape[2])) return false;
    constexpr int kRows = K::kTaps > 25 ? 1 : 2;
    detail::cuda::launch("depthwise_conv2d", p.target.device,
                         (work.threads + kPlanarThreads - 1) / kPlanarThreads, kPlanarThreads, 0,
                         gather_planar<T, K, kRows>, work);
    return true;
  };
  return p.stride.w == 1 ? with_kernel<1>(p.kernel, run) : with_kernel<2>(p.kernel, run);
}

template <class T, class K, int kPhase>
bool scatter_planar_rows(const Correlation& p) {
  constexpr int kWidth = 16 / sizeof(T), kMain = kWidth / K::kStride, kRows = K::kTaps > 9 ? 1 : 2;
  using Window = ScatterWindow<K, kWidth, kPhase>;
  PlanarWork work{};
  const std::int64_t lead = -(p.padding.w / K::kStride + Window::kLow);
  if (!PlanarRows<T, kMain, Window::kSize - kMain>::has_lead(lead)) return false;
  work.lead = static_cast<int>(lead);
  if (!begin_planar<T>(p, kMain, kWidth, work)) return false;
  work.strip_begin = static_cast<int>(p.padding.h / K::kStride);
  work.strip_end = static_cast<int>((p.target.shape[2] + p.padding.h + K::kStride - 1) / K::kStride);
  if (!cut_strips(work, p, work.strip_end - work.strip_begin)) return false;
  detail::cuda::launch("depthwise_conv2d", p.target.device,
                       (work.threads + kPlanarThreads - 1) / kPlanarThreads, kPlanarThreads, 0,
                       scatter_planar<T, K, kPhase, kRows>, work);
  return true;
}

template <class T>
bool correlate_planar(const Correlation& p) {
  if (p.stride.h != p.stride.w || p.stride.h > 2 || p.reduce != 1) return false;
  if (!p.scatters) return gather_planar_rows<T>(p);
  if (p.stride.h != 2) return false;
  return with_kernel<2>(p.kernel, [&](auto kernel) {
    using K = decltype(kernel);
    return p.padding.w % 2 == 0 ? scatter_planar_rows<T, K, 0>(p) : scatter_planar_rows<T, K, 1>(p);
  });
}

}  // namespace lamella::cuda::depthwise
