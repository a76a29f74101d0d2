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

/// Planes that load_phases() loads, and how they lie in shared memory: see PhaseCut.
template <bool kHasBases>
struct PhasePlanes {
  const PhaseTensor& tensor;
  int first_h, every_h, first_w, every_w;  ///< which of the tensor's rows and columns
  int columns, step;                       ///< residues modulo `step`
  const int* bases;                        ///< kHasBases; else all begin with their first
  int phase, row, plane, rows;
  Divisor by_rows, by_channels;
  int lanes;

  /// Where a column lies in a row; negative: nowhere.
  __device__ __forceinline__ int place(int column) const {
    const int index = column / step, residue = column - index * step;
    const int at = kHasBases ? index - bases[residue] : index;
    return at >= 0 && at < phase ? residue * phase + at : -1;
  }
};

/// Loads an item's planes, rows low ... high - 1. kLast: channels are neighbours; else columns are. kVector
/// of these are loaded at once, kTogether times before any is stored. `repeat`: channels of the planes for
/// one of x.
template <class T, bool kLast, int kVector, int kTogether, int kThreads, bool kHasBases>
__device__ __forceinline__ void load_planes(const PhaseWork& work, const PhasePlanes<kHasBases>& of,
                                            const PhaseShare& share, const PhaseItem& at, int low, int high,
                                            int repeat, float* planes) {
  const int all = work.cut.channels * repeat, channels = share.channels * repeat;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % of.lanes, group = thread / of.lanes,
            groups = kThreads / of.lanes;
  const int run = kLast ? of.columns * channels : of.columns;
  const int rows = (kLast ? at.images : at.images * all) * of.rows;
  const T* const from = static_cast<const T*>(of.tensor.data) + at.image * of.tensor.image +
                        share.first_channel * repeat * of.tensor.channel +
                        (of.first_h + static_cast<Int64>(low) * of.every_h) * of.tensor.row;
  for (int first = lane * kVector; first < run; first += of.lanes * kVector) {
    const int column = kLast ? first / channels : first, channel = kLast ? first - column * channels : 0;
    int places[kVector];
    bool any = false;
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      places[v] = of.place(kLast ? column : column + v);
      any = any || places[v] >= 0;
      if (kLast && places[v] >= 0) places[v] += (channel + v) * of.plane;
    }
    if (!any) continue;
    const T* const of_column = from + channel * of.tensor.channel +
                               (of.first_w + static_cast<Int64>(column) * of.every_w) * of.tensor.column;
#pragma unroll 1
    for (int row = group; row < rows; row += groups * kTogether) {
      float numbers[kTogether][kVector];
      int to[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int number = row + i * groups;
        const int plane = static_cast<int>(of.by_rows.divide(static_cast<unsigned>(number)));
        const int of_plane = number - plane * of.rows;
        const PhasePlane which(plane, of.by_channels, all);
        const bool exists = number < rows && of_plane < high - low && (kLast || which.channel < channels);
        to[i] = exists ? (kLast ? plane * all : plane) * of.plane + of_plane * of.row : -1;
        if (!exists) continue;
        const Int64 begin = kLast ? plane * of.tensor.image
                                  : which.image * of.tensor.image + which.channel * of.tensor.channel;
        load<T>(of_column + begin + static_cast<Int64>(of_plane) * of.every_h * of.tensor.row, numbers[i]);
      }
#pragma unroll
      for (int i = 0; i < kTogether; ++i)
#pragma unroll
        for (int v = 0; v < kVector; ++v)
          if (to[i] >= 0 && places[v] >= 0) planes[to[i] + places[v]] = numbers[i][v];
    }
  }
}

/// An item's sources, sorted as the groups of taps want them.
template <class T, bool kLast, int kVector, int kThreads, int kTogether = 8>
__device__ __forceinline__ void load_phases(const PhaseWork& work, const PhaseShare& share,
                                            const PhaseItem& at, int repeat, float* planes) {
  const PhaseCut& cut = work.cut;
  const PhasePlanes<true> of{
      work.source,    work.h.source_first, work.h.source_every, work.w.source_first, work.w.source_every,
      work.w.sources, work.w.step(),       cut.bases,           cut.phase,           cut.row,
      cut.plane,      cut.source_rows,     cut.by_source_rows,  cut.by_sources,      cut.load_lanes};
  load_planes<T, kLast, kVector, kTogether, kThreads>(work, of, share, at, at.low, at.high, repeat, planes);
}

/// An item's targets, for the weight's gradient, sorted by class.
template <class T, bool kLast, int kVector, int kThreads, int kTogether>
__device__ __forceinline__ void load_targets(const PhaseWork& work, const PhaseShare& share,
                                             const PhaseItem& at, int repeat, float* planes) {
  const PhaseCut& cut = work.cut;
  const PhasePlanes<false> of{
      work.target,         work.h.target_first, work.h.target_every, work.w.target_first,
      work.w.target_every, work.w.targets,      work.w.classes(),    nullptr,
      cut.target_phase,    cut.target_row,      cut.target_plane,    cut.target_rows,
      cut.by_target_rows,  cut.by_channels,     cut.store_lanes};
  load_planes<T, kLast, kVector, kTogether, kThreads>(work, of, share, at, at.begin, at.end, repeat, planes);
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
