#pragma once

#include "rolling_planes.cuh"
#include "rolling_weigh.cuh"

/// The weight's gradient of dense planes whose rows roll through registers (rolling_planes.cuh): a thread has
/// some taps of an output channel as long as its block lives (rolling_weigh.cuh), and neighbours have the
/// next channel's, then the next strip.
namespace lamella::depthwise {

/// Parts of dw, of some channels of y and items. work.source: x, work.target: g. kRepeat: output channels of
/// one of x. kWord, kForm: as in correlate_rolling_planes, of either. kApartX, kApartG: numbers from one
/// column of a class to the next, or 0, if they are not known.
template <class T, class Tile, int kRepeat, bool kBias, int kWordX, int kFormX, int kWordG, int kFormG,
          int kApartX, int kApartG, int kThreads, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) weigh_rolling_planes(const PhaseWork work) {
  constexpr int kTapRows = Tile::kTapRows, kTaps = Tile::kTaps;
  extern __shared__ uint4 shared[];
  const PhaseAxis &h = work.h, &w = work.w;
  const PhaseCut& cut = work.cut;
  const PhaseShare share(work);
  const int thread = static_cast<int>(threadIdx.x);
  uint4 *const x_list = shared, *const g_list = x_list + cut.source_list;
  unsigned char* const zeros = reinterpret_cast<unsigned char*>(g_list + cut.target_list);
  unsigned char* const raw = zeros + cut.rolling.zero_bytes;
  RollingPlanes<T, kWordX, kFormX, kThreads> x{work.source,
                                               cut.source_raw,
                                               w.source_first,
                                               w.source_every,
                                               share.first_channel / kRepeat,
                                               share.channels / kRepeat,
                                               cut.channels / kRepeat,
                                               cut.rolling.source_plane,
                                               cut.rolling.source_row,
                                               cut.rolling.source_front,
                                               x_list,
                                               zeros};
  RollingPlanes<T, kWordG, kFormG, kThreads> g{work.target,
                                               cut.target_raw,
                                               0,
                                               1,
                                               share.first_channel,
                                               share.channels,
                                               cut.channels,
                                               cut.rolling.target_plane,
                                               cut.rolling.target_row,
                                               0,
                                               g_list,
                                               zeros};
  const int raw_bytes = cut.source_bytes + cut.target_bytes;  // of an item
  const auto begin_copies = [&](int item, unsigned char* to) {
    if (item >= share.last) return;
    const PhaseItem at(work, item);
    x.list_all(at, at.high - at.low, at.source_step);
    g.list_all(at, at.end - at.begin, at.target_step);
    __syncthreads();
    const bool of_last = has_last_plane(work, share, at);
    x.copy(at, at.source_row, of_last, to);
    g.copy(at, at.target_row, of_last, to + cut.source_bytes);
    end_copies();
  };

  const RollingTapUnit unit(work, thread);
  const int tap_rows = min(kTapRows, h.group(0, unit.set_h).taps - unit.round * kTapRows);
  const bool works = unit.channel < share.channels && tap_rows > 0;
  const bool all_taps = w.group(0, unit.set_w).taps == kTaps;
  const int strips = works ? rolling_units_of_item(work) : 0;
  if (kFormX == kPadded || kFormG == kPadded)
    clear_shared<kThreads>(zeros, cut.rolling.zero_bytes + cut.rolling.buffers * raw_bytes);
  RollingTapSums<T, Tile, kBias> sums;
  sums.clear();
  wait_for_stream();
  begin_copies(share.first, raw);
  int buffer = 0;
#pragma unroll 1
  for (int item = share.first; item < share.last; ++item) {
    const PhaseItem at(work, item);
    const unsigned char* const planes = raw + buffer * raw_bytes;
    wait_for_copies<0>();
    __syncthreads();
    if (cut.rolling.buffers > 1) {
      buffer ^= 1;
      begin_copies(item + 1, raw + buffer * raw_bytes);
    }
    // The item's first row of targets, of each class.
    const int item_top = static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(at.begin)));
#pragma unroll 1
    for (int strip = unit.split; strip < strips; strip += cut.splits) {
      const RollingPlaneUnit of(work, strip);
      const int left = of.tile * Tile::kColumns, top = of.row_group * cut.strip_rows;
      const int of_class = at.end - at.begin - of.class_h + h.classes() - 1;
      const int rows = min(cut.strip_rows,
                           static_cast<int>(cut.by_classes_h.divide(static_cast<unsigned>(of_class))) - top);
      const int columns = w.targets_of(of.class_w) - left;
      if (of.image >= at.images || rows <= 0 || columns <= 0) continue;
      const int row = at.h.group(of.class_h, unit.set_h).first +
                      (item_top + top + unit.round * kTapRows) * h.step() - at.low;
      const int column = w.group(of.class_w, unit.set_w).first + left * w.step();
      const unsigned exists = existing_columns(column, w.step(), cut.by_step_w, w.sources, Tile::kWindow);
      const auto of_x =
          x.template source<kApartX>(at, at.source_row, planes, of.image, unit.channel / kRepeat, row, column,
                                     at.source_step, h.step(), w.step(), exists);
      const auto of_g = g.template source<kApartG>(
          at, at.target_row, planes + cut.source_bytes, of.image, unit.channel,
          of.class_h + top * h.classes(), of.class_w + left * w.classes(), at.target_step, h.classes(),
          w.classes(), bits_between(0, min(columns, Tile::kColumns)));
      const RollingRange x_rows(row, h.step(), cut.by_step_h, at.high - at.low);
      sums.add(of_g, of_x, rows, x_rows, tap_rows, all_taps, unit.number == 0);
    }
    __syncthreads();
    if (cut.rolling.buffers == 1) begin_copies(item + 1, raw);
  }
  store_tap_sums<Tile, kBias, kThreads>(work, share.first_channel, share.channels, work.channels,
                                        cut.channels, sums, reinterpret_cast<float*>(zeros));
}

}  // namespace lamella::depthwise
