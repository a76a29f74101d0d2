#pragma once

#include "phases.cuh"

/// The output, or the input's gradient, of sixteen-bit numbers, from planes sorted by residue (phases.cuh) by
/// the matrix units. For one channel, one group and one row of taps,
///   y [16 places][8 columns] += x [16 places][window of 8 columns] · Toeplitz matrix of the taps,
/// as in toeplitz_boxes.cuh; here the windows of any stride and dilation are neighbours in shared memory, and
/// those of neighbouring tiles overlap. A place is a tile of eight neighbouring columns of a class and some
/// rows, one below the other: a row of x that is loaded serves all of them. Places of a class are tiles, then
/// blocks of rows, then images.
///
/// Numbers that are not finite spread to results of their channel within a window's columns and a place's
/// rows, as 0 · infinity is no number.
namespace lamella::depthwise {

/// kTaps_: of a group, in a row, at most. A warp has 16 places of kRows_ rows at a time.
template <int kTaps_, int kRows_>
struct PhaseMatrixTile {
  static constexpr int kTaps = kTaps_, kRows = kRows_;
  static constexpr int kEights = (kTaps + 7 + 7) / 8;  ///< of a window
  /// Pairs of taps that differ between lanes, of a row of taps.
  static constexpr int kEntries = 8 * kEights + 8;
};

/// Makes the tables of a block's taps, [output channel][row of taps][set of columns][entry]: entry e is the
/// pair of taps e - 7 and e - 6, in the order in which their sources lie.
template <class T, class Tile, int kThreads>
__device__ __forceinline__ void make_phase_tables(const PhaseWork& work, const PhaseShare& share, int repeat,
                                                  unsigned* tables) {
  const PhaseAxis &h = work.h, &w = work.w;
  const int sets = w.sets(), of_row = sets * Tile::kEntries, of_channel = h.kernel * of_row;
  for (int i = static_cast<int>(threadIdx.x); i < share.channels * repeat * of_channel; i += kThreads) {
    const int channel = i / of_channel, row = i / of_row % h.kernel, set = i / Tile::kEntries % sets,
              entry = i % Tile::kEntries;
    float tap[2];
#pragma unroll
    for (int n = 0; n < 2; ++n)
      tap[n] = load_phase_tap<T>(work, share.first_channel * repeat + channel, row, set, entry - 7 + n);
    tables[channel * work.cut.taps + i % of_channel] = narrow_pair(tap[0], tap[1], T{});
  }
}

/// What the lanes of a warp have of a row of x for a group of taps; the first is that of the first target's
/// first tap.
struct PhaseWindows {
  unsigned window, none;    ///< where the lane's columns begin in that row, and in the row of zeros
  unsigned pitch;           ///< bytes from one row to the next
  int row, step, high;      ///< the row exists if 0 <= row < high; `step` to the next
  int least_row, most_row;  ///< `row` of all lanes
};

/// The results of 16 places.
template <class T, class Tile>
struct PhasePlaces {
  static constexpr int kRows = Tile::kRows, kEights = Tile::kEights;
  float sums[kRows][4];

  __device__ __forceinline__ void fill(float with) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[r][i] = with;
  }
  /// Adds a group's products; the lane's pairs of row j of the taps are at `table` + j · tap_pitch. Rows that
  /// are loaded are multiplied for all rows of a place, by zeros in front of the first and behind the last
  /// row of taps: to ask which of them there are takes longer.
  __device__ __forceinline__ void add(PhaseWindows at, const unsigned* table, int tap_pitch, int taps) {
    unsigned pairs[kRows][kEights];  // of row j in place j % kRows
#pragma unroll
    for (int u = 0; u < kRows; ++u)
#pragma unroll
      for (int e = 0; e < kEights; ++e) pairs[u][e] = 0;
    const int rows = taps + kRows - 1;
#pragma unroll 1
    for (int first = 0; first < rows; first += kRows) {
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        const bool has_taps = first + u < taps;
#pragma unroll
        for (int e = 0; e < kEights; ++e) pairs[u][e] = has_taps ? table[8 * e] : 0;
        if (first + u < rows && at.most_row >= 0 && at.least_row < at.high) {
          const bool exists = static_cast<unsigned>(at.row) < static_cast<unsigned>(at.high);
          const unsigned from = exists ? at.window : at.none;
          unsigned x[4], rest[2];
          if constexpr (kEights > 1) load_matrices(x, from);
          if constexpr (kEights % 2 == 1) load_matrices(rest, from + (kEights - 1) * 16);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const unsigned(&with)[kEights] = pairs[(u - r + kRows) % kRows];
            if constexpr (kEights > 1) multiply_add(sums[r], x[0], x[1], x[2], x[3], with[0], with[1], T{});
            if constexpr (kEights % 2 == 1) multiply_add(sums[r], rest[0], rest[1], with[kEights - 1], T{});
          }
        }
        table += tap_pitch, at.window += at.pitch;
        at.row += at.step, at.least_row += at.step, at.most_row += at.step;
      }
    }
  }
};

/// kRepeat: output channels of one of x. kScatters: the input's gradient. kLast: channels are neighbours.
/// kWord, kAligned: as copy_planes() has them. kStore: targets that are stored together.
template <class T, class Tile, int kRepeat, bool kScatters, bool kLast, int kWord, bool kAligned, int kStore,
          int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) multiply_phases(const PhaseWork work) {
  constexpr int kRows = Tile::kRows, kPlaces = 16;
  constexpr int kSources = phase_channels(kScatters, kRepeat), kTargets = phase_channels(!kScatters, kRepeat);
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int source_planes = cut.images * cut.channels * kSources,
            target_planes = cut.images * cut.channels * kTargets;
  const PhaseMemory<T, T, unsigned> memory(work, shared, source_planes, cut.channels * kRepeat);
  T *const zeros = memory.zeros, *const planes = memory.planes;
  unsigned* const tables = memory.taps;
  T* const targets = memory.targets;
  const int target_numbers = target_planes * cut.target_rows * work.target_w;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < cut.row + source_planes * cut.plane; i += kThreads) zeros[i] = T{};
  // Numbers of the tensor between targets stay zero.
  if (kScatters && h.target_every * w.target_every > 1)
    for (int i = thread; i < target_numbers; i += kThreads) targets[i] = T{};
  list_groups<kThreads>(work, Tile::kEntries, memory.groups_of_rows, memory.groups_of_columns);
  wait_for_stream();
  make_phase_tables<T, Tile, kThreads>(work, share, kRepeat, tables);

  const int classes_h = h.classes(), classes_w = w.classes(), step_h = h.step();
  const int groups_h = h.groups(), groups_w = w.groups();
  const int lane = thread % 32, place = lane % 16, eight = lane / 16;
  // Of the Toeplitz matrix a lane has rows lane % 4 · 2 and the next, of column lane / 4: taps row - column
  // and the next. Entry e begins with tap e - 7.
  const int entry = lane % 4 * 2 - lane / 4 + 7;
  const unsigned all_planes = shared_address(planes), all_zeros = shared_address(zeros);
  const int units = cut.channels * kTargets * classes_h * classes_w * cut.place_blocks;
  PhaseStream<T, true, kLast, kWord, kAligned, kThreads> sources{work, share, sources_of(work, kSources),
                                                                 memory.sources_list, memory.raw};
  const auto begin_copies = [&](int item) {
    if (item >= share.last) return;
    const PhaseItem at(work, item);
    sources.list(at);
    __syncthreads();
    sources.copy(at);
    end_copies();
  };
  begin_copies(share.first);
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    const int rows = at.high - at.low;
    wait_for_copies<0>();
    __syncthreads();
    sources.sort(at, planes);
    const int target_rows = list_targets<T, kLast, kThreads>(work, share, at, kTargets, memory.targets_list);
    __syncthreads();
    begin_copies(item + 1);
    const int begin = static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(at.begin)));
#pragma unroll 1
    for (int unit = thread / 32; unit < units; unit += kThreads / 32) {
      int channel = unit;
      const int first = take_digit(channel, cut.place_blocks, cut.by_place_blocks) * kPlaces;
      const int class_w = take_digit(channel, classes_w, cut.by_classes_w),
                class_h = take_digit(channel, classes_h, cut.by_classes_h);
      const int of_class = at.images * cut.row_groups * cut.tiles;
      if (channel >= share.channels * kTargets || first >= of_class) continue;
      const auto find = [&](int number, int& tile, int& row) {
        int image = number;
        tile = take_digit(image, cut.tiles, cut.by_tiles);
        row = take_digit(image, cut.row_groups, cut.by_row_groups) * kRows;
        return image;
      };
      const int number = min(first + place, of_class - 1);  // the last stands in for those behind it
      int tile, row;
      const int image = find(number, tile, row);
      // First rows of all places of the warp, so that it leaves out rows that none of them has. Within one
      // image they rise; of several images any may be among them.
      int least, most, some;
      if (find(first, some, least) != find(min(first + kPlaces, of_class) - 1, some, most))
        least = 0, most = (cut.row_groups - 1) * kRows;
      const int plane =
          image * cut.channels * kSources + (kScatters ? channel * kSources : channel / kTargets);
      PhasePlaces<T, Tile> result;
      result.fill(kScatters ? 0.0f : load_bias<T>(work.taps, share.first_channel * kTargets + channel));
      int lead = 0;
#pragma unroll 1
      for (int source = 0; source < kSources; ++source) {
        const unsigned* const of_channel =
            tables + (kScatters ? channel * kSources + source : channel) * cut.taps + entry;
#pragma unroll 1
        for (int group_w = 0; group_w < groups_w; ++group_w) {
          const PhaseGroupOfColumns by_w = memory.groups_of_columns[class_w * groups_w + group_w];
          if (by_w.taps == 0) continue;
          if (kScatters) lead = by_w.lead;
          const int column = by_w.first + (tile + eight) * 8;
#pragma unroll 1
          for (int group_h = 0; group_h < groups_h; ++group_h) {
            const PhaseGroupOfRows by_h =
                memory.groups_of_rows[(at.residue * classes_h + class_h) * groups_h + group_h];
            const int begin_row = by_h.first + begin * step_h - at.low;
            PhaseWindows windows;
            windows.row = begin_row + row * step_h, windows.step = step_h, windows.high = rows;
            windows.least_row = begin_row + least * step_h, windows.most_row = begin_row + most * step_h;
            windows.window =
                all_planes +
                static_cast<unsigned>((plane + source) * cut.plane + windows.row * cut.row + column) * 2;
            windows.none = all_zeros + static_cast<unsigned>(column) * 2;
            windows.pitch = static_cast<unsigned>(step_h * cut.row) * 2;
            result.add(windows, of_channel + by_h.tap + by_w.tap, by_h.tap_pitch, by_h.taps);
          }
        }
      }
      const int all = kLast ? cut.channels * kTargets : 1, next = classes_w * w.target_every * all,
                next_row = classes_h * h.target_every * work.target_w * all;
      const int columns = w.targets_of(class_w);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int place_of_result = first + half * 8 + lane / 4;
        const int image_of = find(min(place_of_result, of_class - 1), tile, row);
        const int column = tile * 8 + lane % 4 * 2 - lead;
        const int row_of = class_h + (begin + row) * classes_h - at.begin,  // of all classes
            rows_left = at.end - at.begin - row_of;
        const int of_plane = h.target_first + row_of * h.target_every;
        const int plane_of = kLast ? image_of : image_of * cut.channels * kTargets + channel;
        T* to = targets +
                ((plane_of * cut.target_rows + of_plane) * work.target_w + w.target_first +
                 (class_w + column * classes_w) * w.target_every) *
                    all +
                (kLast ? channel : 0);
        const bool exists = place_of_result < of_class, is_first = exists && column >= 0 && column < columns,
                   is_second = exists && column + 1 >= 0 && column + 1 < columns;
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r * classes_h < rows_left) {
            if (is_first) to[0] = narrow<T>(result.sums[r][half * 2]);
            if (is_second) to[next] = narrow<T>(result.sums[r][half * 2 + 1]);
          }
          to += next_row;
        }
      }
    }
    __syncthreads();
    store_targets<T, kLast, kStore, kThreads>(work, share, at, kTargets, memory.targets_list, target_rows,
                                              targets);
  }
}

}  // namespace lamella::depthwise
