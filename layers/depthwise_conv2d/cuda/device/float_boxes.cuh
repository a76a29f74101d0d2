#pragma once

#include "boxes.cuh"

/// Channels side by side (NHWC), float32, from boxes that the copy engine moves: for GPUs of compute
/// capability 9 and on. Pages, items and barriers are those of boxes.cuh; but threads multiply, as of
/// pixels.cuh, so that nothing is rounded to fewer digits. A thread has its channels, and its place in a
/// step, of all items of the block; so its sums stay in registers.
namespace lamella::depthwise {

/// What a kernel is made of. A thread has kColumns_ columns of kRows_ rows, of kLanes_ channels; a step is
/// kRowGroups_ by kColumnGroups_ of that. kPages_, kWhole_ and kImages_ are as of BoxTile; images are shared
/// out among kImageGroups_ of threads.
///
/// Boxes lie in shared memory as they are: eight lanes that read four channels each, sixteen of two, or all
/// of one, read 128 neighbouring bytes, of 32 channels or more. Of 16 channels they are two places' halves,
/// which lie in different banks where the places are an odd number of pixels apart.
template <int kColumns_, int kColumnGroups_, int kRows_, int kRowGroups_, int kLanes_, int kChannels_,
          int kPages_, bool kWhole_, int kImages_ = 1, int kImageGroups_ = 1>
struct FloatTile : Tile<kRows_, kColumns_, kLanes_> {
  static constexpr int kColumnGroups = kColumnGroups_, kRowGroups = kRowGroups_;
  static constexpr int kChannels = kChannels_, kPages = kPages_;
  static constexpr bool kWhole = kWhole_;
  static constexpr int kImages = kImages_, kImageGroups = kImageGroups_;
  static constexpr int kStepRows = kRows_ * kRowGroups;
  static constexpr int kUnits = kColumns_ * kColumnGroups;  ///< columns of a block
  static constexpr int kVectors = kChannels / kLanes_;
  static constexpr int kPlaces = kColumnGroups * kRowGroups * kImageGroups;
  static constexpr int kConsumers = (kVectors * kPlaces + 31) / 32;  ///< warps
  static constexpr int kThreads = 32 * (kConsumers + 1);
  static_assert(kChannels % 16 == 0 && kChannels % kLanes_ == 0);
  static_assert(kImages % kImageGroups == 0 && (kImages == 1 || kWhole));

  __host__ __device__ static constexpr int box_bytes(int pixels) {
    return (pixels * kChannels * 4 + 1023) / 1024 * 1024;
  }
};

}  // namespace lamella::depthwise
