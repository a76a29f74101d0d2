#pragma once

#include "layers/norm/channel_layout.h"
#include "layers/norm/cuda/row_cut.cuh"

namespace lamella::cuda {

/// The work over planes: `width` neighbouring threads take a part of the packets that belong to one
/// statistic, plane after plane.
struct PlaneCut {
  PlaneCut() = default;
  PlaneCut(const detail::ChannelLayout& layout, int packet_size)
      : images(layout.images),
        channels(layout.channels),
        inner(layout.inner),
        statistics(layout.statistics()),
        size(packet_size) {
    per_plane = (inner + size - 1) / size;
    total = images * per_plane;
    width = total >= 512 ? kNormThreads : 32;
    length =
        width == 32 ? std::max<std::int64_t>(1, total) : packets_of_thread(total, width, statistics) * width;
    parts = (total + length - 1) / length;
    step_packets = width % per_plane;
    step_offset = width / per_plane * channels * inner + step_packets * size;
    wrap = channels * inner - per_plane * size;
  }
  PartCounts counts() const { return {parts, length, total, inner, per_plane, size}; }
  dim3 block() const { return dim3(width, kNormThreads / width); }
  std::int64_t blocks() const {
    const std::int64_t side = kNormThreads / width;
    return (statistics * parts + side - 1) / side;
  }

  std::int64_t images = 0, channels = 0, inner = 1, statistics = 0;
  std::int64_t per_plane = 1;                                ///< packets of a plane
  std::int64_t total = 0;                                    ///< packets of a statistic
  std::int64_t length = 1, parts = 0;                        ///< packets of a part; parts of a statistic
  std::int64_t step_packets = 0, step_offset = 0, wrap = 0;  ///< from a thread's packet to its next
  int size = 1;                                              ///< numbers of a packet
  unsigned width = kNormThreads;
};

/// What a thread does of block number `block`, and the packet that it is at.
template <int kSize>
struct PlaneItem {
  __device__ PlaneItem(const PlaneCut& cut, std::int64_t block) : cut(cut) {
    const std::int64_t item = block * blockDim.y + threadIdx.y;
    exists = item < cut.statistics * cut.parts;
    part = exists ? item / cut.statistics : 0;
    statistic = exists ? item - part * cut.statistics : 0;
    const std::int64_t first = part * cut.length;
    const auto packets = static_cast<unsigned>(min(cut.length, cut.total - first));
    count = exists && threadIdx.x < packets ? (packets - threadIdx.x + cut.width - 1) / cut.width : 0;
    const std::int64_t segment = statistic / cut.channels;
    channel = statistic - segment * cut.channels;
    const std::int64_t image = (first + threadIdx.x) / cut.per_plane;
    packet = first + threadIdx.x - image * cut.per_plane;
    offset = ((segment * cut.images + image) * cut.channels + channel) * cut.inner + packet * kSize;
  }
  /// Numbers of the packet that exist.
  __device__ int valid() const {
    return static_cast<int>(min(std::int64_t{kSize}, cut.inner - packet * kSize));
  }
  __device__ void advance() {
    packet += cut.step_packets;
    offset += cut.step_offset;
    if (packet >= cut.per_plane) {
      packet -= cut.per_plane;
      offset += cut.wrap;
    }
  }

  const PlaneCut& cut;
  std::int64_t statistic, channel, part;
  std::int64_t packet, offset;
  unsigned count;  ///< packets of this thread
  bool exists;
};

}  // namespace lamella::cuda
