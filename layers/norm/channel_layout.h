#pragma once

#include "tensor/view.h"

namespace lamella::detail {

/// A dense [N,C,…] tensor as normalisation sees it: `segments` groups of `images` consecutive images share
/// statistics, one set per channel. Batch norm has one segment, group norm one per image.
struct ChannelLayout {
  std::int64_t segments = 1;
  std::int64_t images = 0;
  std::int64_t channels = 0;
  std::int64_t inner = 1;      ///< elements of one channel of one image
  bool channels_last = false;  ///< rows of `channels` numbers; else planes of `inner`

  /// Values per statistic.
  std::int64_t count() const { return images * inner; }
  /// Statistics: per segment and channel.
  std::int64_t statistics() const { return segments * channels; }
};

/// `x` must be dense in `format`.
inline ChannelLayout channel_layout(const Shape& x, MemoryFormat format, bool per_image) {
  ChannelLayout layout;
  layout.segments = per_image ? x[0] : 1;
  layout.images = per_image ? 1 : x[0];
  layout.channels = x[1];
  for (int axis = 2; axis < x.size(); ++axis) layout.inner *= x[axis];
  layout.channels_last = format == MemoryFormat::ChannelsLast || layout.inner == 1;
  return layout;
}

}  // namespace lamella::detail
