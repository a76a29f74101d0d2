#pragma once

#include "boxes.cuh"

/// What the walk over x goes by that gives the gradients from boxes: units of the stride, and pages of them.
namespace lamella::depthwise {

/// One axis of the walk over x, in units of `stride` inputs: unit u has inputs stride · u + kPhase and on.
/// The copy engine stores no box that begins before its tensor, so the phase is that of the first input.
///
/// Input stride · u + kPhase + a meets tap k = s % stride + stride · i, s = kPhase + a, in output u + s /
/// stride - i.
template <int kKernel, int kStride, int kPhase>
struct UnitWindow {
  static constexpr int kLow1 = -((kKernel - 1 - kPhase) / kStride), kLow2 = 1 - (kKernel - 1) / kStride;
  /// Outputs that a unit's inputs meet: from u + kLow on, kSpan of them.
  static constexpr int kLow = kKernel - 1 < kPhase ? kLow2 : kPhase > 0 && kLow2 < kLow1 ? kLow2 : kLow1;
  static constexpr int kSpan = (kPhase > 0 ? 1 : 0) - kLow + 1;
  /// The tap by which input a of a unit meets output q of its window; it may not exist.
  __device__ static constexpr int tap(int a, int q) {
    return (kPhase + a) % kStride + kStride * ((kPhase + a) / kStride - kLow - q);
  }
};
/// units_of() of work.cuh for units that begin with input `phase`.
LAMELLA_ANYWHERE inline Units units_of(const Axis& axis, int residue, int stride, int phase, bool owns,
                                       int owner) {
  Units units{Axis::floor(axis.input_begin(residue) - phase, stride),
              Axis::ceiling(axis.input_end(residue) - phase, stride)};
  if (owns) {
    units.begin = units.begin < owner ? units.begin : owner;
    const int end = axis.outputs(residue) + owner;
    units.end = units.end > end ? units.end : end;
  }
  return units;
}

/// An item as the walk has it, with its first units.
struct UnitItem {
  int image, class_h, class_w, row, column, steps;
};
template <class K, class Tile, int kPhaseH, int kPhaseW, bool kBias>
__device__ __forceinline__ UnitItem unit_item(const PixelWork& work, int number) {
  const PixelItem at = box_item<Tile>(work, number);
  const Units rows = units_of(work.h, at.class_h, K::kStrideH, kPhaseH, kBias, work.owner_h);
  const Units columns = units_of(work.w, at.class_w, K::kStrideW, kPhaseW, kBias, work.owner_w);
  const int row = rows.begin + at.strip * work.cut.strip_rows,
            column = columns.begin + at.tile * Tile::kUnits;
  const int count = column < columns.end ? max(min(work.cut.strip_rows, rows.end - row), 0) : 0;
  const int steps = (count + Tile::kStepRows - 1) / Tile::kStepRows;
  return {at.image, at.class_h, at.class_w, row, column, steps};
}

/// Sizes of pages, boxes and shared memory of backward_boxes.
template <class K, class Tile, bool kInput, bool kWeight, int kPhaseH, int kPhaseW>
struct BackwardBoxes {
  using WindowH = UnitWindow<K::kH, K::kStrideH, kPhaseH>;
  using WindowW = UnitWindow<K::kW, K::kStrideW, kPhaseW>;
  static constexpr int kGChannels = Tile::kChannels * K::kRepeat;
  using Gradients = SwizzledPixels<kGChannels, Tile::kByRows>;
  static constexpr int kGRows = Tile::kStepRows + WindowH::kSpan - 1;
  static constexpr int kPageRows = Tile::kWhole ? kGRows : Tile::kStepRows;  ///< of g
  static constexpr int kReach = (kGRows + kPageRows - 1) / kPageRows;
  static constexpr int kXRows = Tile::kStepRows * K::kStrideH;
  static constexpr int kGColumns = Tile::box_columns(WindowW::kSpan - 1);
  static constexpr int kXColumns = Tile::kUnits;  ///< all: those behind x are zeros
  using LoadG = BoxMove<Gradients, kGColumns, kPageRows, Tile::kImages>;
  using LoadX = BoxMove<Tile, kXColumns, kXRows, Tile::kImages>;
  static constexpr int kGRowBytes = kGColumns * Gradients::kPixelBytes,
                       kXRowBytes = kXColumns * Tile::kPixelBytes;
  // From one image of a page, and of the results, to the next.
  static constexpr int kGImageBytes = kPageRows * kGRowBytes, kXImageBytes = kXRows * kXRowBytes;
  static constexpr int kGBytes = Gradients::box_bytes(Tile::kImages * kPageRows * kGColumns);
  static constexpr int kPlaneBytes = Tile::box_bytes(Tile::kImages * kXRows * kXColumns);
  static constexpr int kPageBytes = kGBytes + (kWeight ? K::kStrideW * kPlaneBytes : 0);
  static constexpr int kResultColumns = Tile::kColumns * K::kStrideW;
  using Store = BoxMove<Tile, kResultColumns, kXRows, Tile::kBlockImages>;
  static constexpr int kResultImageBytes = kXRows * kResultColumns * Tile::kPixelBytes;
  static constexpr int kResultBytes =
      kInput ? Tile::box_bytes(Tile::kBlockImages * kXRows * kResultColumns) : 0;
  static constexpr int kBarriers = Tile::kPages * kPageBytes + 2 * Tile::kBlocks * kResultBytes;
  static constexpr int kTapGroups = kWeight ? (K::kH + Tile::kTapRows - 1) / Tile::kTapRows : 1;
  static constexpr int kTapSums = kBarriers + 16 * Tile::kPages;
  static constexpr int kSharedBytes =
      1024 + kTapSums + (kWeight ? Tile::kBlocks * (K::kTaps + 1) * kGChannels * 4 : 0);
  static constexpr int kConsumers = Tile::kBlocks * Tile::kWarpGroups * kTapGroups;
  static constexpr int kThreads = 32 * (kConsumers + 1);
  static_assert(Tile::kPages >= kReach && !(Tile::kByRows && K::kStrideW * K::kRepeat > 1) &&
                K::kRepeat <= 2);
  static_assert(Tile::kTapRows == K::kH || (!kInput && Tile::kTapRows % K::kStrideH == 0));
  /// A row that is read behind the last one of g (backward_boxes) is of no use, but must be there.
  static_assert(!kWeight || kSharedBytes - 1024 - (Tile::kPages - 1) * kPageBytes >=
                                Tile::kImages * kGImageBytes + kGRowBytes);
};

}  // namespace lamella::depthwise
