#include <vector>

#include "core/parallel.h"
#include "layers/norm/cpu/channel_cut.h"
#include "layers/norm/cpu/channel_sums.h"
#include "layers/norm/cpu/moments.h"

namespace lamella::cpu {

using detail::ChannelLayout;
using detail::ComputeType;

namespace {

/// Merges the moments of lane l into those of channel l % channels (lanes of several pixels side by side).
void fold_lanes(const double* lane_mean, const double* lane_m2, double lane_count, std::int64_t lanes,
                std::int64_t channels, double* mean, double* m2, double count) {
  for (std::int64_t c = 0; c < channels; ++c) {
    Moments all{count, mean[c], m2[c]};
    for (std::int64_t l = c; l < lanes; l += channels) all.merge({lane_count, lane_mean[l], lane_m2[l]});
    mean[c] = all.mean;
    m2[c] = all.m2;
  }
}

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
  fold_lanes(lane_mean, lane_m2, static_cast<double>(wide), lanes, channels, mean, m2, 0);
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

/// Moments of one channel over `images` planes, `step` apart.
template <class T>
Moments moments_of_planes(const T* x, std::int64_t step, std::int64_t images, std::int64_t inner) {
  using C = ComputeType<T>;
  C pivot[kPlaneLanes], sum[kPlaneLanes], square[kPlaneLanes];
  Moments all;
  std::int64_t used = 0, count = 0;  // rows and numbers in the block so far
  const auto flush = [&] {
    double s = 0, q = 0;
    for (std::int64_t l = 0; l < kPlaneLanes; ++l) s += sum[l], q += square[l];
    all.merge(Moments::of(static_cast<double>(count), pivot[0], s, q));
    used = count = 0;
  };
  for (std::int64_t i = 0; i < images; ++i) {
    const T* const plane = x + i * step;
    for (std::int64_t at = 0; at < inner;) {
      const std::int64_t rest = inner - at;
      if (used == 0) {
        // The mean of a few numbers: no single outlier can make the deviations of all others large.
        const std::int64_t n = std::min(rest, kPlaneLanes);
        C middle = 0;
        for (std::int64_t l = 0; l < n; ++l) middle += static_cast<C>(plane[at + l]);
        middle /= static_cast<C>(n);
        for (std::int64_t l = 0; l < kPlaneLanes; ++l) pivot[l] = middle, sum[l] = square[l] = C(0);
      }
      const std::int64_t rows = std::min(rest / kPlaneLanes, kBlockRows - used);
      const std::int64_t n = rows > 0 ? rows * kPlaneLanes : std::min(rest, kPlaneLanes);
      if (rows > 0)
        add_deviations<T, C>(plane + at, kPlaneLanes, rows, kPlaneLanes, pivot, sum, square);
      else
        add_deviations<T, C>(plane + at, 0, 1, n, pivot, sum, square);
      used += std::max<std::int64_t>(rows, 1);
      count += n;
      at += n;
      if (used >= kBlockRows) flush();
    }
  }
  if (count > 0) flush();
  return all;
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
      Moments all;
      for (std::int64_t l = (c - begin) * inner; l < (c - begin + 1) * inner; ++l)
        all.merge({static_cast<double>(layout.images), lane_mean[l], lane_m2[l]});
      mean[c] = all.mean;
      m2[c] = all.m2;
    }
  });
}

template <class T>
void moments(const T* x, const ChannelLayout& layout, double* mean, double* m2) {
  if (layout.channels_last) return moments_of_rows(x, layout, mean, m2);
  if (planes_are_lanes(layout)) return moments_of_small_planes(x, layout, mean, m2);
  const PlaneCut cut(layout);
  std::vector<Moments> partial(static_cast<std::size_t>(layout.statistics() * cut.splits));
  detail::parallel_for(layout.statistics() * cut.splits, cut.grain(),
                       [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t item = begin; item < end; ++item) {
                           const auto [statistic, first, images] = cut.item(item);
                           partial[static_cast<std::size_t>(item)] =
                               moments_of_planes(x + plane_offset(layout, statistic, first),
                                                 layout.channels * layout.inner, images, layout.inner);
                         }
                       });
  for (std::int64_t s = 0; s < layout.statistics(); ++s) {
    Moments all;
    for (std::int64_t k = 0; k < cut.splits; ++k)
      all.merge(partial[static_cast<std::size_t>(s * cut.splits + k)]);
    mean[s] = all.mean;
    m2[s] = all.m2;
  }
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
