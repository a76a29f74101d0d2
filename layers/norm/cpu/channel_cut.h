#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "layers/norm/channel_layout.h"
#include "layers/norm/cpu/moments.h"

/// How the work over a ChannelLayout is cut: by shape alone.
namespace lamella::cpu {

/// Numbers in one item of work, about.
inline constexpr std::int64_t kItemElements = 65536;
/// Lanes into which a plane is cut.
inline constexpr std::int64_t kPlaneLanes = 64;

/// Rows of few channels are taken several at a time, so that the innermost loops stay long.
inline std::int64_t pixels_side_by_side(std::int64_t channels) {
  return channels >= 48 ? 1 : std::max<std::int64_t>(1, 96 / std::max<std::int64_t>(1, channels));
}

/// Rows of [rows, channels], in chunks.
struct RowCut {
  explicit RowCut(const detail::ChannelLayout& layout) : rows(layout.count()) {
    const std::int64_t blocks = (kItemElements / layout.channels + kBlockRows - 1) / kBlockRows;
    chunk = std::max({kBlockRows, blocks * kBlockRows, (rows + kMostChunks - 1) / kMostChunks});
    chunks = std::max<std::int64_t>(1, (rows + chunk - 1) / chunk);
    channels = layout.channels;
  }
  /// Segment, first row (over all segments) and number of rows of item k.
  std::tuple<std::int64_t, std::int64_t, std::int64_t> item(std::int64_t k) const {
    const std::int64_t segment = k / chunks, from = k % chunks * chunk;
    return {segment, segment * rows + from, std::min(chunk, rows - from)};
  }
  /// Items for one thread at a time.
  std::int64_t grain() const {
    return std::max<std::int64_t>(1, kItemElements / (2 * std::min(chunk, rows) * channels));
  }

  static constexpr std::int64_t kMostChunks = 256;
  std::int64_t rows, chunk = 0, chunks = 0, channels = 0;
};

/// Planes of [images, channels, inner]: an item is a statistic or, where there are few, some of its images.
struct PlaneCut {
  explicit PlaneCut(const detail::ChannelLayout& layout) : images(layout.images), inner(layout.inner) {
    if (layout.statistics() < 16 && layout.count() * layout.statistics() > kItemElements)
      splits = std::min<std::int64_t>(16, images);
    chunk = (images + splits - 1) / splits;
    splits = (images + chunk - 1) / chunk;
  }
  /// Statistic, first image and number of images of item k.
  std::tuple<std::int64_t, std::int64_t, std::int64_t> item(std::int64_t k) const {
    const std::int64_t from = k % splits * chunk;
    return {k / splits, from, std::min(chunk, images - from)};
  }
  std::int64_t grain() const { return std::max<std::int64_t>(1, kItemElements / (2 * chunk * inner)); }

  std::int64_t images, inner, splits = 1, chunk = 0;
};

/// True where planes are so small that several channels' planes make a row.
inline bool planes_are_lanes(const detail::ChannelLayout& layout) {
  return layout.inner < kPlaneLanes && layout.segments == 1 && layout.images >= 8;
}
inline std::int64_t channels_together(const detail::ChannelLayout& layout) {
  return std::max<std::int64_t>(1, kTileLanes / layout.inner);
}

inline std::int64_t plane_offset(const detail::ChannelLayout& layout, std::int64_t statistic,
                                 std::int64_t image) {
  const std::int64_t segment = statistic / layout.channels, channel = statistic % layout.channels;
  return ((segment * layout.images + image) * layout.channels + channel) * layout.inner;
}

}  // namespace lamella::cpu
