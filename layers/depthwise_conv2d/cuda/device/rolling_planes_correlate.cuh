#pragma once

#include "rolling_correlate.cuh"
#include "rolling_planes.cuh"

/// The output, or the input's gradient, of dense planes whose rows roll through registers
/// (rolling_planes.cuh).
namespace lamella::depthwise {

/// Lists the groups of taps of all residues and classes of rows, then those of columns.
template <int kThreads>
__device__ __forceinline__ void list_rolling_groups(const PhaseWork& work, PhaseAxis::Group* of_rows,
                                                    PhaseAxis::Group* of_columns) {
  const PhaseAxis &h = work.h, &w = work.w;
  const int groups_h = h.groups(), groups_w = w.groups(), of_residue = h.classes() * groups_h;
  for (int i = static_cast<int>(threadIdx.x); i < work.residues * of_residue; i += kThreads) {
    PhaseAxis rows = h;
    rows.padding = work.rows[i / of_residue].padding;
    of_rows[i] = rows.group(i % of_residue / groups_h, i % groups_h);
  }
  for (int i = static_cast<int>(threadIdx.x); i < w.classes() * groups_w; i += kThreads)
    of_columns[i] = w.group(i / groups_w, i % groups_w);
}

/// kRepeat: output channels of one of x. kScatters: the input's gradient. kWord: bytes of sources that
/// are copied at once; kForm: how they lie. kStore: targets that are stored together.
/// kApart: numbers of a source from one column of a window to the next, or 0, if they are not known. Channels
/// of the work are those of targets.
template <class T, class Tile, int kRepeat, bool kScatters, int kWord, int kForm, int kStore, int kApart,
          int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) correlate_rolling_planes(const PhaseWork work) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  constexpr int kSources = phase_channels(kScatters, kRepeat), kTargets = phase_channels(!kScatters, kRepeat);
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int classes_h = h.classes(), classes_w = w.classes(), groups_h = h.groups(), groups_w = w.groups();
  PhaseAxis::Group* const groups_of_rows = reinterpret_cast<PhaseAxis::Group*>(shared);
  PhaseAxis::Group* const groups_of_columns = groups_of_rows + work.residues * classes_h * groups_h;
  const int quads = w.sets() * Tile::kQuads * cut.channels;  // of a row of taps
  uint4* const taps = shared + work.residues * classes_h * groups_h + classes_w * groups_w;
  uint4* const source_list = taps + kSources * h.kernel * quads;
  uint4* const target_list = source_list + cut.source_list;
  unsigned char* const zeros = reinterpret_cast<unsigned char*>(target_list + cut.target_list);
  unsigned char* const raw = zeros + cut.rolling.zero_bytes;
  T* const targets = reinterpret_cast<T*>(raw + cut.rolling.buffers * cut.source_bytes);
  const int thread = static_cast<int>(threadIdx.x);
  // Numbers of the tensor between targets stay zero.
  if (kScatters && h.target_every * w.target_every > 1)
    for (int i = thread; i < cut.images * cut.channels * cut.rolling.result_plane; i += kThreads)
      targets[i] = narrow<T>(0.0f);
  if (kForm == kPadded)
    clear_shared<kThreads>(zeros, cut.rolling.zero_bytes + cut.rolling.buffers * cut.source_bytes);
  list_rolling_groups<kThreads>(work, groups_of_rows, groups_of_columns);
  RollingPlanes<T, kWord, kForm, kThreads> sources{work.source,
                                                   cut.source_raw,
                                                   w.source_first,
                                                   w.source_every,
                                                   share.first_channel * kSources / kTargets,
                                                   share.channels * kSources / kTargets,
                                                   cut.channels * kSources / kTargets,
                                                   cut.rolling.source_plane,
                                                   cut.rolling.source_row,
                                                   cut.rolling.source_front,
                                                   source_list,
                                                   zeros};
  const auto begin_copies = [&](int item, unsigned char* to) {
    if (item >= share.last) return;
    const PhaseItem at(work, item);
    sources.list_all(at, at.high - at.low, at.source_step);
    __syncthreads();
    sources.copy(at, at.source_row, has_last_plane(work, share, at), to);
    end_copies();
  };
  wait_for_stream();
  begin_copies(share.first, raw);
  make_rolling_taps<T, Tile, kSources, kThreads>(work, share, taps);

  const int units = rolling_units_of_item(work) * cut.channels;
  int buffer = 0;
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    const unsigned char* const planes = raw + buffer * cut.source_bytes;
    wait_for_copies<0>();
    __syncthreads();
    if (cut.rolling.buffers > 1) {
      buffer ^= 1;
      begin_copies(item + 1, raw + buffer * cut.source_bytes);
    }
    const auto place_of = [&](int row) {
      const int every = at.h.target_every,
                target = every == 1 ? row : min(row / every, at.end - at.begin - 1);
      return row + target * (at.target_step - every);
    };
    const int target_rows =
        list_rows<T, false, kThreads>(work.target, place_of, at.images, cut.channels, share.channels,
                                      at.target_rows, cut.rolling.result_plane, work.target_w, target_list);
#pragma unroll 1
    for (int n = thread; n < units; n += kThreads) {
      int number = n;
      const int channel = take_digit(number, cut.channels, cut.by_channels);
      const RollingPlaneUnit of(work, number);
      // The first row of the unit, of its class.
      const int top =
          static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(at.begin))) + of.row_group * kRows;
      const int rows_left = at.end - of.class_h - top * classes_h;  // of all classes
      const int left = of.tile * kColumns, columns = w.targets_of(of.class_w) - left;
      if (channel >= share.channels || of.image >= at.images || rows_left <= 0 || columns <= 0) continue;

      RollingSums<T, Tile> result;
      result.fill(kScatters ? 0.0f : load_bias<T>(work.taps, share.first_channel + channel));
#pragma unroll 1
      for (int group_w = 0; group_w < groups_w; ++group_w) {
        const PhaseAxis::Group by_w = groups_of_columns[of.class_w * groups_w + group_w];
        if (by_w.taps == 0) continue;
        const int column = by_w.first + left * w.step();
        const unsigned exists = existing_columns(column, w.step(), cut.by_step_w, w.sources, Tile::kWindow);
        if (exists == 0) continue;
        const int set = w.scatters ? by_w.tap % w.stride : by_w.tap;
#pragma unroll 1
        for (int group_h = 0; group_h < groups_h; ++group_h) {
          const PhaseAxis::Group by_h =
              groups_of_rows[(at.residue * classes_h + of.class_h) * groups_h + group_h];
          const int row = by_h.first + top * h.step() - at.low;
          const RollingRange rows(row, h.step(), cut.by_step_h, at.high - at.low);
#pragma unroll 1
          for (int source = 0; source < kSources; ++source)
            result.add(
                sources.template source<kApart>(at, at.source_row, planes, of.image,
                                                channel * kSources / kTargets + source, row, column,
                                                at.source_step, h.step(), w.step(), exists),
                rows,
                taps + (source * h.kernel + by_h.tap) * quads + set * Tile::kQuads * cut.channels + channel,
                by_h.tap_step * quads, cut.channels, by_h.taps, by_w.taps == Tile::kTaps);
        }
      }
      const int row = h.target_first + (of.class_h + top * classes_h - at.begin) * h.target_every;
      const int column = w.target_first + (of.class_w + left * classes_w) * w.target_every;
      const int next_row = classes_h * h.target_every * work.target_w, next = classes_w * w.target_every;
      T* to = targets + (of.image * cut.channels + channel) * cut.rolling.result_plane + row * work.target_w +
              column;
#pragma unroll
      for (int r = 0; r < kRows; ++r, to += next_row) {
        if (r * classes_h >= rows_left) break;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          if (c >= columns) break;
          to[c * next] = narrow<T>(result.sums[r][c]);
        }
      }
    }
    __syncthreads();
    if (cut.rolling.buffers == 1) begin_copies(item + 1, raw);
    store_targets<T, false, kStore, kThreads>(work, share, at, 1, target_list, target_rows, targets);
  }
}

}  // namespace lamella::depthwise
