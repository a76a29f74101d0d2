#pragma once

#include "position_sizes.cuh"
#include "runs.cuh"

/// Dense small planes (NCHW) of sixteen-bit numbers, for the matrix units, sixteen images at once. A position
/// of a plane is a row or column of a product, and so rows of planes need no care: steps, padding, odd widths
/// and neighbouring planes are all in which position meets which by what tap.
///
/// Forward, and the input's gradient: images by source positions are multiplied by a matrix of source by
/// result positions, which has the taps and otherwise zeros, and stays in registers. The weight's gradient:
/// g's positions by images are multiplied by images by x's positions; of each product the results of pairs
/// that meet are added up for their tap in the end. A warp has some neighbouring results, or positions of g,
/// and what they may meet (position_sizes.cuh). The copy engine moves the planes that a block has of
/// each image into rows of shared memory, those of a page with one copy (ImageRows).
///
/// Numbers that are not finite spread to other results of their image, of neighbouring channels, too, and, of
/// the weight's gradient in periods, to other taps, as 0 · infinity is no number.
namespace lamella::depthwise {

/// Sizes of a problem, beside those of its Kernel.
template <int kInH_, int kInW_, int kOutH_, int kOutW_, int kPaddingH_, int kPaddingW_, int kSpreadH_,
          int kSpreadW_>
struct PositionMap {
  static constexpr int kInH = kInH_, kInW = kInW_, kOutH = kOutH_, kOutW = kOutW_, kPaddingH = kPaddingH_,
                       kPaddingW = kPaddingW_, kSpreadH = kSpreadH_, kSpreadW = kSpreadW_;
  static constexpr int kIn = kInH * kInW, kOut = kOutH * kOutW;
};

/// Planes of a block, units of a warp, steps of sixteen images that a page has, pages; whether warps go
/// through periods (PositionSizes), of the weight's gradient alone.
template <int kPlanes_, int kUnits_, int kImageSteps_, int kPages_, bool kPeriodic_ = false>
struct PositionTile {
  static constexpr bool kPeriodic = kPeriodic_;
  static constexpr int kPlanes = kPlanes_, kUnits = kUnits_, kImageSteps = kImageSteps_, kPages = kPages_;
  static constexpr int kImages = 16 * kImageSteps;
};

template <class K, class Map, class Tile, bool kTransposed, int kUnitNumbers, int kStep>
struct PositionPlan {
  static constexpr PositionSizes kSizes{
      {Map::kInH, Map::kOutH, K::kH, K::kStrideH, Map::kSpreadH, Map::kPaddingH},
      {Map::kInW, Map::kOutW, K::kW, K::kStrideW, Map::kSpreadW, Map::kPaddingW},
      Tile::kPlanes,
      kTransposed,
      Tile::kPeriodic};
  static constexpr PositionLayout kLayout = layout_of(kSizes, kUnitNumbers, Tile::kUnits, kStep);
  static constexpr int kUnits = kLayout.units, kWarps = kLayout.warps, kSteps = kLayout.steps,
                       kProducts = kLayout.products, kPeriods = kLayout.periods;
  static constexpr int kLead = 16 * kSizes.lead(), kSourceStep = 16 * kLayout.source_step,
                       kResultStep = 16 * kLayout.result_step;  // bytes
  static constexpr int kSourcePitch = 16 * kLayout.source_pitch,
                       kResultPitch = 16 * kLayout.result_pitch;  // bytes
  static_assert(kWarps <= PositionLayout::kMostWarps && kProducts < 256 && kSteps < 256);

  // Device code cannot read arrays of constants, but numbers.
  using Bytes = unsigned long long;
  LAMELLA_ANYWHERE static constexpr Bytes pack(const int (&of)[PositionLayout::kMostOfWarp], int first) {
    Bytes bytes = 0;
    for (int i = 0; i < 8; ++i) bytes |= static_cast<Bytes>(of[first + i]) << 8 * i;
    return bytes;
  }
  static constexpr Bytes kBegin0 = pack(kLayout.begin, 0), kBegin1 = pack(kLayout.begin, 8),
                         kEnd0 = pack(kLayout.end, 0), kEnd1 = pack(kLayout.end, 8),
                         kStart0 = pack(kLayout.start, 0), kStart1 = pack(kLayout.start, 8);
  LAMELLA_ANYWHERE static constexpr int unpack(Bytes low, Bytes high, int i) {
    return static_cast<int>((i < 8 ? low : high) >> i % 8 * 8 & 255);
  }
  /// Of a warp's units: steps of what it reads that it begins and ends with, and products of units before.
  LAMELLA_ANYWHERE static constexpr int begin(int unit) { return unpack(kBegin0, kBegin1, unit); }
  LAMELLA_ANYWHERE static constexpr int end(int unit) { return unpack(kEnd0, kEnd1, unit); }
  LAMELLA_ANYWHERE static constexpr int start(int unit) { return unpack(kStart0, kStart1, unit); }
  /// The chunk that a warp's steps begin with.
  template <int kWarp = 0>
  __device__ __forceinline__ static int base(int warp) {
    constexpr int kBase = kLayout.base[kWarp];
    if constexpr (kWarp + 1 < kWarps) return warp == kWarp ? kBase : base<kWarp + 1>(warp);
    return kBase;
  }
};

/// Where a position is, as one number for all of a block's planes: the difference of an input's and an
/// output's is the place of their tap, or beyond all of them where the two do not meet.
template <class K, class Map>
struct PositionCode {
  static constexpr int kReachH = (K::kH - 1) * Map::kSpreadH, kReachW = (K::kW - 1) * Map::kSpreadW;
  static constexpr int kRow = Map::kInW + (Map::kOutW - 1) * K::kStrideW + kReachW + Map::kPaddingW + 1;
  static constexpr int kPlane =
      kRow * (Map::kInH + (Map::kOutH - 1) * K::kStrideH + kReachH + Map::kPaddingH + 1);
  static constexpr int kPlaces = kReachH * kRow + kReachW + 1;  ///< of taps, and of zeros between them
  static constexpr int kNone = 1 << 28;

  /// Of those of `planes` planes one after the other.
  __device__ __forceinline__ static int input(int number, int planes) {
    const int plane = number / Map::kIn, place = number % Map::kIn;
    const int code = plane * kPlane + place / Map::kInW * kRow + place % Map::kInW;
    return number >= 0 && number < planes * Map::kIn ? code : -kNone;
  }
  __device__ __forceinline__ static int output(int number, int planes) {
    const int plane = number / Map::kOut, place = number % Map::kOut;
    const int code = plane * kPlane + (place / Map::kOutW * K::kStrideH - Map::kPaddingH) * kRow +
                     place % Map::kOutW * K::kStrideW - Map::kPaddingW;
    return number >= 0 && number < planes * Map::kOut ? code : kNone;
  }
  /// The tap that has a place; below zero: none has.
  __device__ __forceinline__ static int tap(int place) {
    const int down = place / kRow, right = place % kRow;
    const bool is_one = down % Map::kSpreadH == 0 && right % Map::kSpreadW == 0 && right <= kReachW;
    return is_one ? down / Map::kSpreadH * K::kW + right / Map::kSpreadW : -1;
  }
};

/// Which planes and images a block has.
template <class Tile>
struct PositionShare {
  int first_channel, planes, part, first_item, last_item;
  __device__ PositionShare(const PlaneWork& work, int number_of_block) {
    const int groups = (work.channels + Tile::kPlanes - 1) / Tile::kPlanes;
    first_channel = number_of_block % groups * Tile::kPlanes;
    planes = min(Tile::kPlanes, work.channels - first_channel);
    part = number_of_block / groups;
    first_item = part * work.items_per_part;
    last_item = min(work.items, first_item + work.items_per_part);
  }
};

/// A lane asks for an image's planes of a tensor, if it exists.
template <class T>
__device__ __forceinline__ void ask_for_planes(const void* tensor, Int64 first_plane, int planes, int numbers,
                                               bool exists, unsigned to, unsigned barrier) {
  if (!exists) return arrive(barrier);
  const T* const run = static_cast<const T*>(tensor) + first_plane * numbers;
  const RunBytes<T> of(run, planes * numbers);
  expect_bytes(barrier, of.loaded_bytes());
  of.load(to, run, barrier);
}

/// What is loaded of each image, from the sixteen bytes on that a block's first plane begins in, to rows of a
/// page that are kPitch bytes apart: with one copy (kAtOnce), zeros for images that do not exist and behind
/// the last channel, and numbers of the next channels behind the planes; or with a copy for each image.
template <class T, bool kAtOnce, int kImages, int kPitch, int kNumbers>
struct ImageRows {
  static constexpr int kArrivals = kAtOnce ? 1 : kImages;
  /// By all lanes of a warp.
  __device__ __forceinline__ static void load(const TensorMap& map, const void* tensor, const PlaneWork& work,
                                              int first_channel, int planes, int first_image, unsigned to,
                                              unsigned barrier) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kAtOnce) {
      constexpr int kOfChunk = 16 / kPieceUnit;
      if (lane > 0) return;
      expect_bytes(barrier, kImages * kPitch);
      load_box(to, map, first_channel * kNumbers / 8 * kOfChunk, 0, 0, first_image, barrier);
    } else {
      for (int row = lane; row < kImages; row += 32)
        ask_for_planes<T>(tensor, static_cast<Int64>(first_image + row) * work.channels + first_channel,
                          planes, kNumbers, first_image + row < work.cut.images,
                          to + static_cast<unsigned>(row * kPitch), barrier);
    }
  }
};

}  // namespace lamella::depthwise
