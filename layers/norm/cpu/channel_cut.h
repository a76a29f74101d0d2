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

/// Planes for one thread at a time.
inline std::int64_t plane_grain(const detail::ChannelLayout& layout) {
  return std::max<std::int64_t>(1, kItemElements / (2 * layout.inner));
}

/// True where planes are so small that several channels' planes make a row.
inline constexpr std::int64_t kSmallPlane = 256;
inline bool planes_are_lanes(const detail::ChannelLayout& layout) {
  return layout.inner <= kSmallPlane && layout.segments == 1 && layout.images >= 8;
}
inline std::int64_t channels_together(const detail::ChannelLayout& layout) {
  return std::max<std::int64_t>(1, kTileLanes / layout.inner);
}

/// The statistic that a plane belongs to, and the first plane of a statistic (the next ones are `channels`
/// apart).
inline std::int64_t statistic_of(const detail::ChannelLayout& layout, std::int64_t plane) {
  return plane / (layout.images * layout.channels) * layout.channels + plane % layout.channels;
}
inline std::int64_t first_plane(const detail::ChannelLayout& layout, std::int64_t statistic) {
  return statistic / layout.channels * layout.images * layout.channels + statistic % layout.channels;
}

}  // namespace lamella::cpu
