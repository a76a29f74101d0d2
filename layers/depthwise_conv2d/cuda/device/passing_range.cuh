#pragma once

#include "primitives.cuh"

/// Which sixteen-bit numbers an activation with bounds lets through, so that a gradient can be masked by
/// comparing what lies in memory.
namespace lamella::depthwise {

template <class T>
inline constexpr int kInfinity = 0x7f80;
template <>
inline constexpr int kInfinity<Float16> = 0x7c00;

template <class T>
struct Range {
  T least, most;
};

/// The sixteen-bit numbers z for which low < scale · z + shift < high, as transforms round the sum: those of
/// [least, most], which is empty if there are none. Sums of rising numbers rise or fall, so that a search
/// finds both ends.
template <class T>
__device__ __forceinline__ Range<T> find_range(float scale, float shift, float low, float high) {
  // Numbers in their order: place 0x8000 is zero.
  const auto number = [](int place) {
    return T{static_cast<unsigned short>(place >= 0x8000 ? place ^ 0x8000 : ~place)};
  };
  const int infinity = kInfinity<T> | 0x8000;
  const bool rises = scale >= 0;
  int begin[2] = {0x10000 - infinity, 0x10000 - infinity}, end[2] = {infinity, infinity};
#pragma unroll 1
  for (int i = 0; i < 16; ++i)
#pragma unroll
    for (int bound = 0; bound < 2; ++bound) {
      const int middle = (begin[bound] + end[bound]) / 2;
      const float y = fmaf(scale, widen(number(middle)), shift);
      // Of the first: behind the numbers that are too small. Of the second: behind those that are not too
      // large.
      const bool above = rises ? y > low : y < high, within = rises ? y < high : y > low;
      const bool behind = begin[bound] < end[bound] && (bound == 0 ? !above : within);
      if (behind)
        begin[bound] = middle + 1;
      else if (begin[bound] < end[bound])
        end[bound] = middle;
    }
  const bool empty = begin[0] >= begin[1];
  return {empty ? number(infinity) : number(begin[0]),
          empty ? number(0xffff - infinity) : number(begin[1] - 1)};
}

}  // namespace lamella::depthwise
