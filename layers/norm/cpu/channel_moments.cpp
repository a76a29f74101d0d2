#include <vector>

#include "core/parallel.h"
#include "layers/norm/cpu/channel_cut.h"
#include "layers/norm/cpu/channel_sums.h"
#include "layers/norm/cpu/moments.h"

namespace lamella::cpu {

using detail::ChannelLayout;
using detail::ComputeType;

namespace {

/// Moments of a dense [rows, channels] matrix.
template <class T>
void matrix_moments(const T* x, std::int64_t rows, std::int64_t channels, double* mean, double* m2) {
  std::fill(mean, mean + channels, 0.0);
  std::fill(m2, m2 + channels, 0.0);
  const std::int64_t side = pixels_side_by_side(channels), lanes = side * channels;
  const std::int64_t wide = rows / side;
  std::vector<double> lane_moments(side > 1 ? static_cast<std::size_t>(2 * lanes) : 0);
  double* const lane_mean = side > 1 ? lane_moments.data() : mean;
  double* const lane_m2 = side > 1 ? lane_moments.data() + lanes : m2;
  for (std::int64_t r = 0; r < wide; r += kBlockRows)
    merge_block(x + r * lanes, lanes, std::min(kBlockRows, wide - r), lanes, static_cast<double>(r),
                lane_mean, lane_m2);
  if (side == 1) return;
  for (std::int64_t c = 0; wide > 0 && c < channels; ++c) {  // lane l is channel l % channels
    const Moments all = merge_equal(lane_mean + c, lane_m2 + c, side, channels, static_cast<double>(wide));
    mean[c] = all.mean;
    m2[c] = all.m2;
  }
  if (const std::int64_t rest = rows - wide * side; rest > 0)
    merge_block(x + wide * lanes, channels, rest, channels, static_cast<double>(wide * side), mean, m2);
}

template <class T>
void moments_of_rows(const T* x, const ChannelLayout& layout, double* mean, double* m2) {
  const RowCut cut(layout);
  const std::int64_t channels = layout.channels;
  std::vector<double> partial(
      cut.chunks > 1 ? static_cast<std::size_t>(2 * layout.segments * cut.chunks * channels) : 0);
  detail::parallel_for(layout.segments * cut.chunks, cut.grain(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const auto [segment, first, rows] = cut.item(item);
      double* const into = cut.chunks > 1 ? partial.data() + 2 * item * channels : mean + segment * channels;
      double* const into_m2 = cut.chunks > 1 ? into + channels : m2 + segment * channels;
      matrix_moments(x + first * channels, rows, channels, into, into_m2);
    }
  });
  if (cut.chunks == 1) return;
  for (std::int64_t segment = 0; segment < layout.segments; ++segment)
    for (std::int64_t c = 0; c < channels; ++c) {
      Moments all;
      for (std::int64_t k = segment * cut.chunks; k < (segment + 1) * cut.chunks; ++k)
        all.merge({static_cast<double>(std::get<2>(cut.item(k))),
                   partial[static_cast<std::size_t>(2 * k * channels + c)],
                   partial[static_cast<std::size_t>((2 * k + 1) * channels + c)]});
      mean[segment * channels + c] = all.mean;
      m2[segment * channels + c] = all.m2;
    }
}

/// Planes too small to be rows: the planes of several channels side by side are lanes, images are rows.
template <class T>
void moments_of_small_planes(const T* x, const ChannelLayout& layout, double* mean, double* m2) {
  const std::int64_t together = channels_together(layout), inner = layout.inner;
  detail::parallel_for(layout.channels, together, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t lanes = (end - begin) * inner, step = layout.channels * inner;
    std::vector<double> lane_moments(static_cast<std::size_t>(2 * lanes));
    double* const lane_mean = lane_moments.data();
    double* const lane_m2 = lane_mean + lanes;
    for (std::int64_t i = 0; i < layout.images; i += kBlockRows)
      merge_block(x + i * step + begin * inner, step, std::min(kBlockRows, layout.images - i), lanes,
                  static_cast<double>(i), lane_mean, lane_m2);
    for (std::int64_t c = begin; c < end; ++c) {
      const std::int64_t first = (c - begin) * inner;
      const Moments all =
          merge_equal(lane_mean + first, lane_m2 + first, inner, 1, static_cast<double>(layout.images));
      mean[c] = all.mean;
      m2[c] = all.m2;
    }
  });
}

template <class T>
void moments_of_planes(const T* x, const ChannelLayout& layout, double* mean, double* m2) {
  const std::int64_t planes = layout.images * layout.statistics();
  std::vector<double> partial(static_cast<std::size_t>(2 * planes));
  double* const plane_mean = partial.data();
  double* const plane_m2 = plane_mean + planes;
  detail::parallel_for(planes, plane_grain(layout), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t plane = begin; plane < end; ++plane) {
      const Moments moments = moments_of_run(x + plane * layout.inner, layout.inner);
      plane_mean[plane] = moments.mean;
      plane_m2[plane] = moments.m2;
    }
  });
  detail::parallel_for(layout.statistics(), std::max<std::int64_t>(1, 4096 / layout.images),
                       [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t s = begin; s < end; ++s) {
                           const std::int64_t first = first_plane(layout, s);
                           const Moments all =
                               merge_equal(plane_mean + first, plane_m2 + first, layout.images,
                                           layout.channels, static_cast<double>(layout.inner));
                           mean[s] = all.mean;
                           m2[s] = all.m2;
                         }
                       });
}

template <class T>
void moments(const T* x, const ChannelLayout& layout, double* mean, double* m2) {
  if (layout.channels_last)
    moments_of_rows(x, layout, mean, m2);
  else if (planes_are_lanes(layout))
    moments_of_small_planes(x, layout, mean, m2);
  else
    moments_of_planes(x, layout, mean, m2);
}

}  // namespace

void channel_moments(const detail::ConstTensorView& x, const ChannelLayout& layout, double* mean,
                     double* m2) {
  if (layout.count() == 0 || layout.statistics() == 0) {
    std::fill(mean, mean + layout.statistics(), 0.0);
    std::fill(m2, m2 + layout.statistics(), 0.0);
    return;
  }
  detail::dispatch_floating(x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    moments(x.as<T>(), layout, mean, m2);
  });
}

}  // namespace lamella::cpu
