#pragma once

#include "vector.cuh"

/// Planes of any stride, dilation and format, in shared memory as float32: columns sorted by residue, so that
/// those that neighbouring targets of a class take of a group of taps are neighbours, and what lies outside
/// is zero. There all these problems are one, a dense correlation of stride 1.
namespace lamella::depthwise {

/// A block's share: channels, and items, which are images and bands of rows.
struct PhaseShare {
  int first_channel, channels;  ///< of x
  int first, last;

  __device__ __forceinline__ explicit PhaseShare(const PhaseWork& work) {
    const int block = static_cast<int>(blockIdx.x), part = block / work.cut.channel_blocks;
    first_channel = (block - part * work.cut.channel_blocks) * work.cut.channels;
    channels = min(work.cut.channels, work.channels - first_channel);
    first = part * work.items_per_part;
    last = min(first + work.items_per_part, work.items);
  }
};

/// Images, targets and sources of an item.
struct PhaseItem {
  int image, images;
  int begin, end;  ///< targets
  int low, high;   ///< sources that they have

  __device__ __forceinline__ PhaseItem(const PhaseWork& work, int item) {
    const int group = static_cast<int>(work.cut.by_bands.divide(static_cast<unsigned>(item)));
    image = group * work.cut.images;
    images = min(work.cut.images, work.images - image);
    begin = (item - group * work.cut.bands) * work.cut.band;
    end = min(begin + work.cut.band, work.h.targets);
    low = work.h.source_begin(begin), high = max(work.h.source_end(end), low);
  }
};

/// Planes of a block, image by image.
struct PhasePlane {
  int image, channel;
  __device__ __forceinline__ PhasePlane(int plane, Divisor by_channels, int channels) {
    image = static_cast<int>(by_channels.divide(static_cast<unsigned>(plane)));
    channel = plane - image * channels;
  }
};

/// Where column `column` of sources lies in a row; negative: nowhere.
__device__ __forceinline__ int phase_place(const PhaseWork& work, int column, int step) {
  const int index = column / step, residue = column - index * step;
  const int place = index - work.cut.bases[residue];
  return place >= 0 && place < work.cut.phase ? residue * work.cut.phase + place : -1;
}

/// Loads an item's sources. kLast: channels are neighbours; else columns are. kVector of these are loaded at
/// once. `repeat`: channels of sources for one of x.
template <class T, bool kLast, int kVector, int kThreads>
__device__ __forceinline__ void load_phases(const PhaseWork& work, const PhaseShare& share,
                                            const PhaseItem& at, int repeat, float* planes) {
  constexpr int kTogether = 8;  // loads in flight
  const PhaseCut& cut = work.cut;
  const int all = cut.channels * repeat, channels = share.channels * repeat, step = work.w.step();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % cut.load_lanes,
            group = thread / cut.load_lanes, groups = kThreads / cut.load_lanes;
  const int run = kLast ? work.w.sources * channels : work.w.sources;
  const int rows = (kLast ? at.images : at.images * all) * cut.source_rows;
  const T* const from =
      static_cast<const T*>(work.source.data) + at.image * work.source.image +
      share.first_channel * repeat * work.source.channel +
      (work.h.source_first + static_cast<Int64>(at.low) * work.h.source_every) * work.source.row;
  for (int first = lane * kVector; first < run; first += cut.load_lanes * kVector) {
    const int column = kLast ? first / channels : first, channel = kLast ? first - column * channels : 0;
    int places[kVector];
    bool any = false;
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      places[v] = phase_place(work, kLast ? column : column + v, step);
      any = any || places[v] >= 0;
      if (kLast && places[v] >= 0) places[v] += (channel + v) * cut.plane;
    }
    if (!any) continue;
    const T* const of_column =
        from + channel * work.source.channel +
        (work.w.source_first + static_cast<Int64>(column) * work.w.source_every) * work.source.column;
#pragma unroll 1
    for (int row = group; row < rows; row += groups * kTogether) {
      float numbers[kTogether][kVector];
      int to[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int number = row + i * groups;
        const int plane = static_cast<int>(cut.by_source_rows.divide(static_cast<unsigned>(number)));
        const int of_plane = number - plane * cut.source_rows;
        const PhasePlane which(plane, cut.by_sources, all);
        const bool exists =
            number < rows && of_plane < at.high - at.low && (kLast || which.channel < channels);
        to[i] = exists ? (kLast ? plane * all : plane) * cut.plane + of_plane * cut.row : -1;
        if (!exists) continue;
        const Int64 of = kLast ? plane * work.source.image
                               : which.image * work.source.image + which.channel * work.source.channel;
        load<T>(of_column + of + static_cast<Int64>(of_plane) * work.h.source_every * work.source.row,
                numbers[i]);
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
#pragma unroll
        for (int v = 0; v < kVector; ++v)
          if (to[i] >= 0 && places[v] >= 0) planes[to[i] + places[v]] = numbers[i][v];
    }
  }
}

/// Stores an item's targets, which lie in shared memory in the order of the tensor: rows of columns of
/// channels (kLast), or planes of rows of columns. kVector numbers at once; what is added to one by one.
template <class T, bool kLast, int kVector, int kThreads>
__device__ __forceinline__ void store_targets(const PhaseWork& work, const PhaseShare& share,
                                              const PhaseItem& at, int repeat, const T* targets) {
  const PhaseCut& cut = work.cut;
  const int all = cut.channels * repeat, channels = share.channels * repeat;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % cut.store_lanes,
            group = thread / cut.store_lanes, groups = kThreads / cut.store_lanes;
  // Rows of the tensor: with those between targets, and behind the last.
  const int low = at.begin * work.h.target_every,
            high = at.end < work.h.targets ? at.end * work.h.target_every : work.target_h;
  const int run = kLast ? work.target_w * channels : work.target_w,
            pitch = kLast ? work.target_w * all : work.target_w;
  const int rows = (kLast ? at.images : at.images * all) * cut.target_rows;
  T* const to = static_cast<T*>(work.target.data) + at.image * work.target.image +
                share.first_channel * repeat * work.target.channel + low * work.target.row;
  for (int first = lane * kVector; first < run; first += cut.store_lanes * kVector) {
    const int column = kLast ? first / channels : first, channel = kLast ? first - column * channels : 0;
    T* const of_column = to + channel * work.target.channel + column * work.target.column;
    const T* const from = targets + (kLast ? column * all + channel : column);
#pragma unroll 4
    for (int row = group; row < rows; row += groups) {
      const int plane = static_cast<int>(cut.by_target_rows.divide(static_cast<unsigned>(row)));
      const int of_plane = row - plane * cut.target_rows;
      const PhasePlane which(plane, cut.by_channels, all);
      if (of_plane >= high - low || (!kLast && which.channel >= channels)) continue;
      const Int64 of = kLast ? plane * work.target.image
                             : which.image * work.target.image + which.channel * work.target.channel;
      T* const at_row = of_column + of + of_plane * work.target.row;
      if (work.accumulate) {
#pragma unroll
        for (int v = 0; v < kVector; ++v)
          at_row[v] = narrow<T>(widen(at_row[v]) + widen(from[row * pitch + v]));
      } else if constexpr (kVector * sizeof(T) < 4)
        *at_row = from[row * pitch];
      else
        store_words(at_row, load_words<kVector* static_cast<int>(sizeof(T))>(from + row * pitch));
    }
  }
}

}  // namespace lamella::depthwise
