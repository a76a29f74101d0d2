#pragma once

#include "work.cuh"

/// Which chunks of eight neighbouring numbers of one tensor meet which of another, in runs of whole planes:
/// what the kernels of positions*.cuh know when they are compiled, and what their planner counts.
namespace lamella::depthwise {

/// Sizes along an axis.
struct Along {
  int input = 0, output = 0, kernel = 0, stride = 1, dilation = 1, padding = 0;
};
/// First and last of some neighbours; none: the last comes before the first.
struct Reach {
  int first = 0, last = -1;
};

/// A problem, and how many neighbouring planes a block has. The sources of a result are inputs of an output;
/// `transposed`: outputs, of an input, which is a result then.
struct PositionSizes {
  Along h, w;
  int planes = 1;
  bool transposed = false;
  /// Warps have units of some rows of a plane alone, and go through others as far apart. Above and below a
  /// plane are zeros then, whose products count for nothing, and of results none is left out.
  bool periodic = false;

  LAMELLA_ANYWHERE constexpr int inputs() const { return h.input * w.input; }
  LAMELLA_ANYWHERE constexpr int outputs() const { return h.output * w.output; }
  LAMELLA_ANYWHERE constexpr int sources() const { return transposed ? outputs() : inputs(); }
  LAMELLA_ANYWHERE constexpr int results() const { return transposed ? inputs() : outputs(); }
  /// Columns of a row of sources, and of results.
  LAMELLA_ANYWHERE constexpr int source_columns() const { return transposed ? w.output : w.input; }
  LAMELLA_ANYWHERE constexpr int result_columns() const { return transposed ? w.input : w.output; }
  /// See PositionCode.
  LAMELLA_ANYWHERE constexpr int tap_places() const {
    const int reach = (w.kernel - 1) * w.dilation;
    return (h.kernel - 1) * h.dilation * (w.input + (w.output - 1) * w.stride + reach + w.padding + 1) +
           reach + 1;
  }
  /// Blocks begin so many numbers behind eight, by turns: as many of them differ.
  LAMELLA_ANYWHERE constexpr int phases() const {
    int count = 1;
    while (count * planes * inputs() % 8 != 0 || count * planes * outputs() % 8 != 0) count *= 2;
    return count;
  }
  /// Rows of results of a period, and chunks of zeros above the sources.
  LAMELLA_ANYWHERE constexpr int period_rows(int unit_numbers) const {
    int rows = 1;
    while (rows * result_columns() % unit_numbers != 0 || rows * h.stride * source_columns() % 8 != 0) ++rows;
    return rows;
  }
  LAMELLA_ANYWHERE constexpr int lead() const {
    // Up to seven results come before the plane's first.
    const int before = outputs() % 8 != 0 ? (6 / result_columns() + 1) * h.stride : 0;
    return periodic ? ((h.padding + before) * source_columns() + 7) / 8 : 0;
  }
};

/// Of one axis, the sources that a result may meet.
LAMELLA_ANYWHERE constexpr Reach reach_of(const Along& a, bool transposed, int result) {
  const int reach = (a.kernel - 1) * a.dilation;
  if (transposed) {
    const int low = result + a.padding - reach, high = (result + a.padding) / a.stride;
    return {low > 0 ? (low + a.stride - 1) / a.stride : 0, high < a.output ? high : a.output - 1};
  }
  const int low = result * a.stride - a.padding, beyond = low + reach - a.input + 1;
  return {low < 0 ? low + (a.dilation - 1 - low) / a.dilation * a.dilation : low,
          beyond > 0 ? low + reach - (a.dilation - 1 + beyond) / a.dilation * a.dilation : low + reach};
}

/// A unit is 8 or 16 neighbouring results; this is what the warps that have so many of them read. Of each
/// warp's first, second, ... unit the chunks are the same, counted from its base on, so that warps share
/// their code: from begin to end, in steps of one or two chunks.
struct PositionLayout {
  static constexpr int kMostWarps = 32, kMostOfWarp = 16;
  int units = 0;  ///< of a block
  int warps = 0;  ///< more than kMostWarps: too many
  int steps = 0;  ///< that a warp loads
  int products = 0;
  int periods = 1, source_step = 0, result_step = 0;  ///< chunks from one to the next
  int source_pitch = 0, result_pitch = 0;  ///< chunks from one image's run to the next: odd, so that eight
                                           ///< images' chunks have all banks
  /// Whether one copy moves the runs of so many chunks of all images of a page, as rows of a box. Copies of
  /// a run each wait for each other in the warp that asks for them, some 45 ns.
  LAMELLA_ANYWHERE static constexpr bool moves_at_once(bool periodic, int pitch) {
    return !periodic && 16 * pitch <= kMostPieceBytes;
  }
  int base[kMostWarps] = {};
  int begin[kMostOfWarp] = {}, end[kMostOfWarp] = {}, start[kMostOfWarp] = {};  ///< start: products before
};

LAMELLA_ANYWHERE constexpr Reach chunks_of(const PositionSizes& s, int unit, int unit_numbers) {
  Reach chunks{1 << 20, -1};
  for (int block = 0; block < s.phases(); ++block)
    for (int i = 0; i < unit_numbers; ++i) {
      const int result = unit * unit_numbers + i - block * s.planes * s.results() % 8;
      if (!s.periodic && (result < 0 || result >= s.planes * s.results())) continue;
      const int plane = s.periodic ? 0 : result / s.results(), place = result - plane * s.results();
      // Periods: of a plane without end.
      const int row = (place + 8 * s.result_columns()) / s.result_columns() - 8,
                top = row * s.h.stride - s.h.padding;
      const Reach rows = s.periodic ? Reach{top, top + (s.h.kernel - 1) * s.h.dilation}
                                    : reach_of(s.h, s.transposed, row),
                  columns = reach_of(s.w, s.transposed, place - row * s.result_columns());
      if (rows.last < rows.first || columns.last < columns.first) continue;
      const int before = s.lead() * 8 + plane * s.sources() + block * s.planes * s.sources() % 8;
      const int first = (before + rows.first * s.source_columns() + columns.first) / 8,
                last = (before + rows.last * s.source_columns() + columns.last) / 8;
      if (first < chunks.first) chunks.first = first;
      if (last > chunks.last) chunks.last = last;
    }
  return chunks;
}

/// `step`: chunks that are read at once.
LAMELLA_ANYWHERE constexpr PositionLayout layout_of(const PositionSizes& s, int unit_numbers, int of_warp,
                                                    int step) {
  PositionLayout layout;
  int source_chunks = 0, result_chunks = 0;
  for (int block = 0; block < s.phases(); ++block) {
    const int sources = (block * s.planes * s.sources() % 8 + s.planes * s.sources() + 7) / 8,
              results = (block * s.planes * s.results() % 8 + s.planes * s.results() + 7) / 8;
    source_chunks = sources > source_chunks ? sources : source_chunks;
    result_chunks = results > result_chunks ? results : result_chunks;
  }
  layout.units = (result_chunks * 8 + unit_numbers - 1) / unit_numbers;
  if (s.periodic) {
    const int rows = s.period_rows(unit_numbers), all = layout.units;
    layout.units = rows * s.result_columns() / unit_numbers;
    layout.periods = (all + layout.units - 1) / layout.units;
    layout.source_step = rows * s.h.stride * s.source_columns() / 8;
    layout.result_step = rows * s.result_columns() / 8;
    source_chunks += s.lead();
  }
  layout.warps = (layout.units + of_warp - 1) / of_warp;
  if (layout.warps > PositionLayout::kMostWarps || of_warp > PositionLayout::kMostOfWarp) return layout;
  for (int j = 0; j < of_warp; ++j) layout.begin[j] = 1 << 20;
  for (int w = 0; w < layout.warps; ++w) {
    Reach of_unit[PositionLayout::kMostOfWarp];
    int base = 1 << 20;
    for (int j = 0; j < of_warp && w * of_warp + j < layout.units; ++j) {
      of_unit[j] = chunks_of(s, w * of_warp + j, unit_numbers);
      if (of_unit[j].first < base) base = of_unit[j].first;
    }
    if (base == 1 << 20) base = 0;  // nothing meets these results
    layout.base[w] = base;
    for (int j = 0; j < of_warp; ++j) {
      if (of_unit[j].last < of_unit[j].first) continue;
      const int begin = (of_unit[j].first - base) / step, end = (of_unit[j].last - base) / step + 1;
      if (begin < layout.begin[j]) layout.begin[j] = begin;
      if (end > layout.end[j]) layout.end[j] = end;
    }
  }
  for (int j = 0; j < of_warp; ++j) {
    if (layout.begin[j] > layout.end[j]) layout.begin[j] = layout.end[j];
    layout.start[j] = layout.products;
    layout.products += layout.end[j] - layout.begin[j];
    if (layout.end[j] > layout.steps) layout.steps = layout.end[j];
  }
  for (int w = 0; w < layout.warps; ++w) {
    const int end = layout.base[w] + layout.steps * step + (layout.periods - 1) * layout.source_step;
    if (end > source_chunks) source_chunks = end;
  }
  const int written = layout.warps * of_warp * unit_numbers / 8 + (layout.periods - 1) * layout.result_step;
  layout.source_pitch = source_chunks / 2 * 2 + 1;
  layout.result_pitch = (written > result_chunks ? written : result_chunks) / 2 * 2 + 1;
  return layout;
}

}  // namespace lamella::depthwise
